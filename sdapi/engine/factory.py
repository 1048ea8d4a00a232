"""Makes the engine of one device as the settings say. Importing this imports torch."""

import psutil
import torch

from sdapi.engine.checkpoints.precision import Precision
from sdapi.engine.engine import Engine
from sdapi.engine.models.device_models import Loading, Models
from sdapi.engine.models.model_cache import ModelCache, Movable
from sdapi.settings import Settings

#: Of main memory, and of a GPU's, what models may take when no flag says.
_RAM_SHARE = 0.5
_GPU_SHARE = 0.7


def device_names(settings: Settings) -> list[str]:
    """The devices that draw, as torch names them.

    `--devices`, `--device-id`, else the first GPU or the CPU.
    """
    if "all" in settings.use_cpu or "sd" in settings.use_cpu or not torch.cuda.is_available():
        return ["cpu"]
    if settings.devices:
        return [f"cuda:{d}" if d.isdigit() else d for d in settings.devices]
    return [f"cuda:{settings.device_id}" if settings.device_id else "cuda:0"]


def make_engine(settings: Settings, name: str) -> Engine:
    """An engine on a device, with no model loaded."""
    device = torch.device(name)
    precision = Precision.choose(
        device,
        no_half=settings.no_half or settings.precision == "full",
        no_half_vae=settings.no_half_vae,
        no_half_control=settings.no_half_controlnet,
    )
    ram = settings.model_cache_bytes or int(psutil.virtual_memory().total * _RAM_SHARE)
    gpu = ram
    if device.type == "cuda":
        gpu = int(torch.cuda.get_device_properties(device).total_memory * _GPU_SHARE)
    cache = ModelCache[Movable](device, ram, gpu)
    loading = Loading(
        medvram=settings.medvram,
        medvram_sdxl=settings.medvram_sdxl,
        lowvram=settings.lowvram,
        channels_last=settings.opt_channelslast,
        compiles=settings.optimize == "near",
    )
    models = Models(device, precision, cache, loading, settings.vae_approx_dir)
    return Engine(models, checks_nan=not settings.disable_nan_check)
