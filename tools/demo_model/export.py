"""Write the trained networks as files that every Stable Diffusion 1 program reads."""

import argparse
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
import yaml
from safetensors.torch import save_file
from torch import Tensor

from tools.demo_model.networks import models
from tools.demo_model.networks.ldm_names import (
    kohya_lora,
    ldm_control,
    ldm_text_encoder,
    ldm_unet,
    ldm_vae,
)
from tools.demo_model.training.control import KINDS

_DOWN = ".lora_down.weight"
_UNET_ATTENTION_LEVELS = [4, 2]  # downsampling factors of the levels with attention


def checkpoint_weights(networks: models.Networks, vae: torch.nn.Module) -> dict[str, Tensor]:
    """All weights in fp16 under their original names."""
    parts = {
        **dict(ldm_unet(networks.unet.state_dict(), models.LAYERS)),
        **dict(ldm_vae(vae.state_dict(), len(models.VAE_WIDTHS))),
        **dict(ldm_text_encoder(networks.text_encoder.state_dict())),
    }
    return {name: parts[name].half().contiguous() for name in sorted(parts)}


def sidecar(size: int) -> Mapping[str, Any]:
    """The original configuration format, with the text encoder's heads that weights do not show."""
    return {
        "model": {
            "base_learning_rate": 1e-4,
            "target": "ldm.models.diffusion.ddpm.LatentDiffusion",
            "params": {
                "linear_start": 0.00085,
                "linear_end": 0.012,
                "num_timesteps_cond": 1,
                "timesteps": 1000,
                "first_stage_key": "jpg",
                "cond_stage_key": "txt",
                "image_size": size // 8,
                "channels": models.LATENT_CHANNELS,
                "cond_stage_trainable": False,
                "conditioning_key": "crossattn",
                "scale_factor": models.SCALE_FACTOR,
                "use_ema": False,
                "unet_config": _unet_config(size),
                "first_stage_config": _vae_config(size),
                "cond_stage_config": _text_config(),
            },
        }
    }


def _unet_config(size: int) -> dict[str, Any]:
    first = models.UNET_WIDTHS[0]
    return {
        "target": "ldm.modules.diffusionmodules.openaimodel.UNetModel",
        "params": {
            "image_size": size // 8,
            "in_channels": models.LATENT_CHANNELS,
            "out_channels": models.LATENT_CHANNELS,
            "model_channels": first,
            "attention_resolutions": _UNET_ATTENTION_LEVELS,
            "num_res_blocks": models.LAYERS,
            "channel_mult": [width // first for width in models.UNET_WIDTHS],
            "num_heads": models.UNET_HEADS,
            "use_spatial_transformer": True,
            "transformer_depth": 1,
            "context_dim": models.TEXT_WIDTH,
            "use_checkpoint": False,
            "legacy": False,
        },
    }


def _vae_config(size: int) -> dict[str, Any]:
    first = models.VAE_WIDTHS[0]
    return {
        "target": "ldm.models.autoencoder.AutoencoderKL",
        "params": {
            "embed_dim": models.LATENT_CHANNELS,
            "monitor": "val/rec_loss",
            "ddconfig": {
                "double_z": True,
                "z_channels": models.LATENT_CHANNELS,
                "resolution": size,
                "in_channels": 3,
                "out_ch": 3,
                "ch": first,
                "ch_mult": [width // first for width in models.VAE_WIDTHS],
                "num_res_blocks": models.LAYERS,
                "attn_resolutions": [],
                "dropout": 0.0,
            },
            "lossconfig": {"target": "torch.nn.Identity"},
        },
    }


def _text_config() -> dict[str, Any]:
    text = {"num_attention_heads": models.TEXT_HEADS, "hidden_act": "quick_gelu"}
    return {
        "target": "ldm.modules.encoders.modules.FrozenCLIPEmbedder",
        "params": {"text_config": text},
    }


def mean_of(one: Mapping[str, Tensor], other: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The mean of two runs' weights by name.

    Of two points of one long run it draws better than either: errors that they do not share
    cancel (Izmailov et al. 2018, "Averaging Weights Leads to Wider Optima").
    """
    if one.keys() != other.keys():
        raise ValueError("the two files are not of one network: their weights' names differ")
    return {name: (one[name] + other[name]) / 2 for name in one}


def export_checkpoint(
    folder: Path, size: int, target: Path, *, mean_with: Path | None = None
) -> None:
    """Averaged weights of the run in `folder` to `target` (.safetensors) and its .yaml.

    With `mean_with`, a file like the run's `start.ema.pt`, the mean of both. Raises ValueError
    where its weights are those of another network.
    """
    networks, vae = models.make_networks(), models.make_vae()
    weights = _read(folder / f"diffusion{size}.ema.pt")
    networks.load_state_dict(mean_of(weights, _read(mean_with)) if mean_with else weights)
    vae.load_state_dict(_read(folder / "vae.pt"))
    _write(checkpoint_weights(networks, vae), target)
    target.with_suffix(".yaml").write_text(yaml.safe_dump(dict(sidecar(size)), sort_keys=False))


def export_control(folder: Path, size: int, kind: str, target: Path) -> None:
    """A ControlNet under its original names."""
    _write(dict(ldm_control(_read(folder / f"control_{kind}{size}.ema.pt"), models.LAYERS)), target)


def export_lora(folder: Path, size: int, target: Path) -> None:
    """The low-rank weights under the names that every LoRA loader knows."""
    weights = dict(kohya_lora(_read(folder / f"lcm{size}.pt")))
    ranks = {n.removesuffix(_DOWN): w.shape[0] for n, w in weights.items() if n.endswith(_DOWN)}
    alphas = {f"{n}.alpha": torch.tensor(float(rank)) for n, rank in ranks.items()}
    _write({**weights, **alphas}, target)


def _read(path: Path) -> dict[str, Tensor]:
    return torch.load(path, map_location="cpu", weights_only=True)


def _write(weights: Mapping[str, Tensor], target: Path) -> None:
    """In fp16, whole or not at all."""
    halves = {name: weights[name].half().contiguous() for name in sorted(weights)}
    target.parent.mkdir(parents=True, exist_ok=True)
    draft = target.with_suffix(".draft")
    save_file(halves, draft, metadata={"format": "pt"})
    draft.replace(target)


def main() -> None:
    """Read the command line and export whatever the run has trained."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--folder", type=Path, default=Path("demo_train"))
    parser.add_argument("--size", type=int, default=256)
    parser.add_argument("--target", type=Path, default=Path("sdapi/demo"))
    parser.add_argument(
        "--mean-with", type=Path, help="write the mean of the run's weights and this .ema.pt"
    )
    arguments = parser.parse_args()
    folder, size, target = arguments.folder, arguments.size, arguments.target
    if (folder / f"diffusion{size}.ema.pt").exists():
        export_checkpoint(
            folder, size, target / "sdapi-demo.safetensors", mean_with=arguments.mean_with
        )
    for kind in KINDS:
        if (folder / f"control_{kind}{size}.ema.pt").exists():
            export_control(folder, size, kind, target / f"sdapi-demo-{kind}.safetensors")
    if (folder / f"lcm{size}.pt").exists():
        export_lora(folder, size, target / "sdapi-demo-lcm.safetensors")


if __name__ == "__main__":
    main()
