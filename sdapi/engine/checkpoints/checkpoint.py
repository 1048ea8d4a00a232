"""Loading a checkpoint, a file in the original layout or a diffusers folder, into components."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from accelerate import init_empty_weights
from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel
from torch import Tensor

from sdapi.engine.checkpoints import unet_keys, vae_keys
from sdapi.engine.checkpoints.architecture import (
    Architecture,
    Family,
    Sidecar,
    head_counts,
    identify,
    read_sidecar,
)
from sdapi.engine.checkpoints.diffusers_folder import DiffusersFolder
from sdapi.engine.checkpoints.precision import NANS_FAIL, NanRule, Precision
from sdapi.engine.checkpoints.reference_unet import use_reference_upsampling
from sdapi.engine.text.encoding.text_encoder import TextEncoder, load_text_encoder
from sdapi.engine.weights.assigning import assign
from sdapi.engine.weights.state_dict import StateDict, read_state_dict
from sdapi.engine.weights.tensor_bytes import module_bytes
from sdapi.errors import ModelUnusable

TRAIN_STEPS = 1000
#: Left-overs of training that every reader of these files drops.
_TRAINING_LEFTOVERS = re.compile(
    r"^(model_ema\.|betas$|alphas_cumprod|sqrt_|log_one_minus_|posterior_|logvar$|lvlb_weights$|scale_factor$"
    r"|cond_stage_model\.logit_scale$|denoiser\.|v_pred$|ztsnr$|first_stage_model\.loss\.|loss\.|global_step$)"
)


@dataclass(slots=True)
class Components:
    """A loaded checkpoint: everything that drawing needs, on one device."""

    family: Family
    unet: UNet2DConditionModel
    vae: AutoencoderKL
    text_encoders: tuple[TextEncoder, ...]
    v_prediction: bool
    scale_factor: float
    #: cumulative products of 1 - beta over the training steps, float32 [1000]
    alphas_cumprod: Tensor
    #: for what the VAE makes; of the job that runs
    nans: NanRule = NANS_FAIL

    @property
    def latent_channels(self) -> int:
        return int(self.vae.config["latent_channels"])

    @property
    def is_inpainting(self) -> bool:
        """Whether the UNet takes a mask and a masked picture beside the latent."""
        return int(self.unet.config["in_channels"]) == 2 * self.latent_channels + 1

    @property
    def is_instruct_pix2pix(self) -> bool:
        """Whether the UNet takes a picture beside the latent."""
        return int(self.unet.config["in_channels"]) == 2 * self.latent_channels

    @property
    def modules(self) -> tuple[torch.nn.Module, ...]:
        return (self.unet, self.vae, *(e.model for e in self.text_encoders))

    @property
    def size_bytes(self) -> int:
        return module_bytes(*self.modules)


def load_checkpoint(path: Path, sidecar_path: Path | None, precision: Precision) -> Components:
    """Load a checkpoint file or diffusers folder to the CPU in the given precision.

    Raises `ModelUnusable` with the file's name and the reason; what was loaded before stays as it
    was.
    """
    try:
        sidecar = read_sidecar(sidecar_path)
        if path.is_dir():
            return _load_folder(path, precision)
        return _load_file(read_state_dict(path), sidecar, precision)
    except ModelUnusable as error:
        text = str(error)
        if text.startswith(path.name):
            raise
        raise ModelUnusable(f"{path.name}: {text}") from error


def alphas_cumprod(linear_start: float, linear_end: float) -> Tensor:
    """Stable Diffusion's "scaled linear" noise schedule, float32 [1000]; products are float64."""
    betas = np.linspace(linear_start**0.5, linear_end**0.5, TRAIN_STEPS, dtype=np.float64) ** 2
    return torch.from_numpy(np.cumprod(1.0 - betas)).float()


def _load_file(weights: StateDict, sidecar: Sidecar, precision: Precision) -> Components:
    architecture = identify(weights)
    parts = _split(weights, architecture)
    encoders = tuple(
        load_text_encoder(parts[p], sidecar.text_config, precision.unet)
        for p in architecture.text_prefixes
    )
    unet = _load_unet(parts[unet_keys.PREFIX], architecture.family, sidecar, precision.unet)
    scale_factor = sidecar.scale_factor or architecture.default_scale_factor
    vae = load_vae(parts[vae_keys.PREFIX], scale_factor, precision.vae)
    return Components(
        family=architecture.family,
        unet=unet,
        vae=vae,
        text_encoders=encoders,
        v_prediction=_is_v_prediction(architecture.family, weights, unet, sidecar),
        scale_factor=scale_factor,
        alphas_cumprod=alphas_cumprod(sidecar.linear_start, sidecar.linear_end),
    )


def _load_folder(path: Path, precision: Precision) -> Components:
    """A folder as diffusers saves it, with `model_index.json` and one folder for each part."""
    folder = DiffusersFolder(path)
    unet = folder.unet(precision.unet)
    use_reference_upsampling(unet)
    vae = folder.vae(precision.vae)
    schedule = folder.config("scheduler")
    return Components(
        family=folder.family,
        unet=unet,
        vae=vae,
        text_encoders=folder.text_encoders(precision.unet),
        v_prediction=schedule.get("prediction_type") == "v_prediction",
        scale_factor=float(vae.config["scaling_factor"]),
        alphas_cumprod=alphas_cumprod(
            float(schedule.get("beta_start", 0.00085)), float(schedule.get("beta_end", 0.012))
        ),
    )


def _split(weights: StateDict, architecture: Architecture) -> dict[str, StateDict]:
    """Sort the weights by part, prefixes removed; every other key must be a known left-over."""
    prefixes = (unet_keys.PREFIX, vae_keys.PREFIX, *architecture.text_prefixes)
    parts: dict[str, StateDict] = {prefix: {} for prefix in prefixes}
    unexplained: list[str] = []
    for key, tensor in weights.items():
        prefix = next((p for p in prefixes if key.startswith(p)), None)
        if _TRAINING_LEFTOVERS.match(key):
            continue
        if prefix is None:
            unexplained.append(key)
        else:
            parts[prefix][key[len(prefix) :]] = tensor
    if unexplained:
        raise ModelUnusable(
            f"{len(unexplained)} weights belong to no part of a "
            f"{architecture.family.upper()} model, such as {sorted(unexplained)[0]!r}"
        )
    if not parts[unet_keys.PREFIX]:
        hint = "; its averaged (EMA) weights alone cannot be used" if _has_ema(weights) else ""
        raise ModelUnusable(f"no Stable Diffusion checkpoint: it holds no UNet{hint}")
    return parts


def _has_ema(weights: StateDict) -> bool:
    return any(key.startswith("model_ema.") for key in weights)


def _load_unet(
    weights: StateDict, family: Family, sidecar: Sidecar, dtype: torch.dtype
) -> UNet2DConditionModel:
    shape = unet_keys.read_shape(weights)
    heads = head_counts(family, shape.channels, sidecar)
    config = unet_keys.diffusers_config(shape, heads, sample_size=64)
    with init_empty_weights(include_buffers=False):
        unet = UNet2DConditionModel(**config)
    use_reference_upsampling(unet)
    assign(unet, rename(weights, unet_keys.key_table(shape)), "the UNet", dtype)
    return unet


def load_vae(weights: StateDict, scale_factor: float, dtype: torch.dtype) -> AutoencoderKL:
    """Build a VAE from its weights, keys without the `first_stage_model.` prefix.

    Raises `ModelUnusable` for missing or left-over weights.
    """
    weights = {k: v for k, v in weights.items() if not k.startswith(vae_keys.IGNORED_PREFIXES)}
    shape = vae_keys.read_shape(weights)
    with init_empty_weights(include_buffers=False):
        vae = AutoencoderKL(**vae_keys.diffusers_config(shape, scale_factor))
    tensors = rename(weights, vae_keys.key_table(shape))
    # The original attention is made of 1x1 convolutions, diffusers' of linear layers.
    tensors = {
        k: v[:, :, 0, 0] if ".attentions." in k and v.ndim == 4 else v for k, v in tensors.items()
    }
    assign(vae, tensors, "the VAE", dtype)
    return vae


def rename(weights: StateDict, table: Mapping[str, str]) -> StateDict:
    """Give weights their new module names; unknown ones keep theirs, and `assign` reports them."""
    renamed: StateDict = {}
    for key, tensor in weights.items():
        module, _, leaf = key.rpartition(".")
        renamed[f"{table[module]}.{leaf}" if module in table else key] = tensor
    return renamed


def _is_v_prediction(
    family: Family, weights: StateDict, unet: UNet2DConditionModel, sidecar: Sidecar
) -> bool:
    """Whether the UNet predicts v: by sidecar, marker in the file, or trial (contract: 13.1)."""
    if sidecar.v_prediction is not None:
        return sidecar.v_prediction
    if "v_pred" in weights:
        return True
    if family is not Family.SD2:
        return False
    x = torch.full((1, int(unet.config["in_channels"]), 8, 8), 0.5)
    states = torch.full((1, 2, int(unet.config["cross_attention_dim"])), 0.5)
    dtype = unet.dtype
    with torch.inference_mode():
        predicted = unet.float()(x, torch.tensor([999]), encoder_hidden_states=states).sample
    torch.nn.Module.to(unet, dtype)  # diffusers' wrapper of `to` hides its types
    return bool((predicted - x[:, : predicted.shape[1]]).mean() < -1)
