"""Write the trained networks as one Stable Diffusion 1 checkpoint with its sidecar."""

import argparse
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
import yaml
from safetensors.torch import save_file
from torch import Tensor

from tools.demo_model.networks import models
from tools.demo_model.networks.ldm_names import ldm_text_encoder, ldm_unet, ldm_vae

_UNET_ATTENTION_LEVELS = [4, 2]  # downsampling factors of the levels with attention


def checkpoint_weights(networks: models.Networks, vae: torch.nn.Module) -> dict[str, Tensor]:
    """All weights in fp16 under their original names."""
    parts = {
        **dict(ldm_unet(networks.unet.state_dict(), models.LAYERS)),
        **dict(ldm_vae(vae.state_dict(), len(models.VAE_WIDTHS))),
        **dict(ldm_text_encoder(networks.text_encoder.state_dict())),
    }
    return {name: parts[name].half().contiguous() for name in sorted(parts)}


def sidecar() -> Mapping[str, Any]:
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
                "image_size": 16,
                "channels": models.LATENT_CHANNELS,
                "cond_stage_trainable": False,
                "conditioning_key": "crossattn",
                "scale_factor": models.SCALE_FACTOR,
                "use_ema": False,
                "unet_config": _unet_config(),
                "first_stage_config": _vae_config(),
                "cond_stage_config": _text_config(),
            },
        }
    }


def _unet_config() -> dict[str, Any]:
    first = models.UNET_WIDTHS[0]
    return {
        "target": "ldm.modules.diffusionmodules.openaimodel.UNetModel",
        "params": {
            "image_size": 16,
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


def _vae_config() -> dict[str, Any]:
    first = models.VAE_WIDTHS[0]
    return {
        "target": "ldm.models.autoencoder.AutoencoderKL",
        "params": {
            "embed_dim": models.LATENT_CHANNELS,
            "monitor": "val/rec_loss",
            "ddconfig": {
                "double_z": True,
                "z_channels": models.LATENT_CHANNELS,
                "resolution": 128,
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


def export(folder: Path, size: int, target: Path) -> None:
    """Averaged weights of the run in `folder` to `target` (.safetensors) and its .yaml."""
    networks, vae = models.make_networks(), models.make_vae()
    averaged = torch.load(folder / f"diffusion{size}.ema.pt", weights_only=True)
    networks.load_state_dict(averaged)
    vae.load_state_dict(torch.load(folder / "vae.pt", map_location="cpu", weights_only=True))
    target.parent.mkdir(parents=True, exist_ok=True)
    save_file(checkpoint_weights(networks, vae), target, metadata={"format": "pt"})
    target.with_suffix(".yaml").write_text(yaml.safe_dump(dict(sidecar()), sort_keys=False))


def main() -> None:
    """Read the command line and export."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--folder", type=Path, default=Path("demo_train"))
    parser.add_argument("--size", type=int, default=128)
    parser.add_argument("--target", type=Path, default=Path("sdapi/demo/sdapi-demo.safetensors"))
    arguments = parser.parse_args()
    export(arguments.folder, arguments.size, arguments.target)


if __name__ == "__main__":
    main()
