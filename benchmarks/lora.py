"""What a LoRA costs: switching to it over reading its file, and a step with it over one without.

usage: python -m benchmarks.lora [--width N] [--side N] [--device D]

The UNet has SD1.5's shape, its width as asked for (320 is SD1.5's), and random weights; the LoRA
has rank 16 and every attention layer. Both sides of a ratio run in turn in one process. Goals: a
step with a merged LoRA at most 1.02 times one without; a set that is active already nothing.
"""

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel
from safetensors.torch import load_file, save_file

from sdapi.engine.checkpoints.architecture import Family
from sdapi.engine.checkpoints.checkpoint import Components, alphas_cumprod
from sdapi.engine.checkpoints.precision import Precision
from sdapi.engine.models.device_models import LoadedCheckpoint, Models
from sdapi.engine.models.model_cache import ModelCache
from sdapi.engine.networks.selection import LoraUse, NetworkFiles, NetworkSet
from sdapi.engine.weights.model_file import ModelFile

RANK, CONTEXT, RUNS = 16, 768, 5
NOTHING = NetworkSet()


def checkpoint(width: int, device: torch.device, dtype: torch.dtype) -> LoadedCheckpoint:
    """A UNet like SD1.5's; what else a checkpoint has plays no part."""
    torch.manual_seed(0)
    unet = UNet2DConditionModel(
        block_out_channels=(width, 2 * width, 4 * width, 4 * width),
        cross_attention_dim=CONTEXT,
        attention_head_dim=8,
    )
    unet = unet.to(device, dtype).requires_grad_(False).eval()
    schedule = alphas_cumprod(0.00085, 0.012)
    return LoadedCheckpoint(
        Components(Family.SD1, unet, AutoencoderKL(), (), False, 0.18215, schedule)
    )


def write_lora(unet: UNet2DConditionModel, path: Path) -> ModelFile:
    """A LoRA for the layers of every attention, in half precision."""
    tensors: dict[str, torch.Tensor] = {}
    for name, module in unet.named_modules():
        if isinstance(module, torch.nn.Linear) and ".attn" in name:
            key = "lora_unet_" + name.replace(".", "_")
            tensors[f"{key}.lora_down.weight"] = torch.randn(RANK, module.in_features).half()
            tensors[f"{key}.lora_up.weight"] = torch.randn(module.out_features, RANK).half() * 1e-3
    save_file(tensors, path)
    return ModelFile.of(path)


def timed(run: Callable[[], Any], device: torch.device) -> float:
    """Seconds of one run, the device's work included."""
    start = time.perf_counter()
    run()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter() - start


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--width", type=int, default=160, help="channels of the first level")
    parser.add_argument("--side", type=int, default=32, help="side of the latent")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    options = parser.parse_args()
    device = torch.device(options.device)
    dtype = torch.float32 if device.type == "cpu" else torch.float16
    loaded = checkpoint(options.width, device, dtype)
    models = Models(device, Precision(dtype, dtype), ModelCache(device, 8 << 30, 8 << 30))
    with tempfile.TemporaryDirectory() as folder, torch.inference_mode():
        path = Path(folder, "lora.safetensors")
        use = LoraUse("lora", write_lora(loaded.components.unet, path))
        lora = NetworkSet((use,))

        def activate(wanted: NetworkSet) -> float:
            return timed(lambda: models.activate(loaded, wanted, NetworkFiles()), device)

        columns: dict[str, list[float]] = {}
        for _ in range(RUNS):
            row = {"read the file": timed(lambda: load_file(path), device)}
            models.cache.clear()
            row["apply, file not in memory"] = activate(lora)
            row["the same set again"] = activate(lora)
            row["take out"] = activate(NOTHING)
            row["apply, file in memory"] = activate(lora)
            activate(NOTHING)
            for name, seconds in row.items():
                columns.setdefault(name, []).append(seconds)
        report(columns, path.stat().st_size)
        print(
            f"a step with the LoRA over one without: {step_ratio(loaded, activate, lora, options)}"
        )


def report(columns: dict[str, list[float]], size_bytes: int) -> None:
    best = {name: min(times) for name, times in columns.items()}
    print(f"LoRA of {size_bytes / 1e6:.1f} MB")
    for name, seconds in best.items():
        print(
            f"{name:28} {seconds * 1000:9.2f} ms {seconds / best['read the file']:8.2f} x reading"
        )


def step_ratio(
    loaded: LoadedCheckpoint,
    activate: Callable[[NetworkSet], float],
    lora: NetworkSet,
    options: argparse.Namespace,
) -> str:
    """The median of the ratios of steps that were run in turn."""
    unet = loaded.components.unet
    x = torch.randn(2, 4, options.side, options.side).to(unet.device, unet.dtype)
    context = torch.randn(2, 77, CONTEXT).to(unet.device, unet.dtype)

    def step(wanted: NetworkSet) -> float:
        activate(wanted)
        return timed(lambda: unet(x, 500, encoder_hidden_states=context), unet.device)

    step(NOTHING)
    ratios = [step(lora) / step(NOTHING) for _ in range(4 * RUNS)]
    return f"{statistics.median(ratios):.3f}"


if __name__ == "__main__":
    main()
