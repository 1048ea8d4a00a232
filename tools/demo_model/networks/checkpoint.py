"""Read the exported checkpoint back: through its original names, not from the training folder."""

from collections.abc import Iterable, Mapping
from pathlib import Path

from diffusers import AutoencoderKL, ControlNetModel
from safetensors.torch import load_file
from torch import Tensor, nn

from tools.demo_model.networks.ldm_names import (
    ldm_control,
    ldm_text_encoder,
    ldm_unet,
    ldm_vae,
)
from tools.demo_model.networks.models import (
    LAYERS,
    VAE_WIDTHS,
    Networks,
    make_networks,
    make_unet,
    make_vae,
)


def load_checkpoint(path: Path) -> tuple[Networks, AutoencoderKL]:
    """The networks of a file that `export` wrote, in float32."""
    weights = load_file(path)
    networks, vae = make_networks(), make_vae()
    unet, text = networks.unet, networks.text_encoder
    _fill(unet, weights, ldm_unet(_names(unet), LAYERS))
    _fill(text, weights, ldm_text_encoder(_names(text)))
    _fill(vae, weights, ldm_vae(_names(vae), len(VAE_WIDTHS)))
    return networks.eval().requires_grad_(False), vae.eval().requires_grad_(False)


def load_control(path: Path) -> ControlNetModel:
    """The ControlNet of a file that `export` wrote, in float32."""
    control = ControlNetModel.from_unet(make_unet())
    _fill(control, load_file(path), ldm_control(_names(control), LAYERS))
    return control.eval().requires_grad_(False)


def _names(model: nn.Module) -> Mapping[str, Tensor]:
    return model.state_dict()


def _fill(
    model: nn.Module, weights: Mapping[str, Tensor], originals: Iterable[tuple[str, Tensor]]
) -> None:
    """Copy every weight from its original name, in the order of the model's own names."""
    own = model.state_dict()
    named = [name for name in own if not name.endswith("position_ids")]
    for name, (original, _) in zip(named, originals, strict=True):
        own[name] = weights[original].float().reshape(own[name].shape)
    model.load_state_dict(own)
