"""A checkpoint as diffusers saves it: a folder of `model_index.json` and a folder for each part."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel
from transformers import CLIPTextModel, CLIPTextModelWithProjection, PreTrainedModel

from sdapi.engine.checkpoints.architecture import Family
from sdapi.engine.text.chunks import END
from sdapi.engine.text.encoding.text_encoder import TextEncoder
from sdapi.errors import ModelUnusable

_LOADING = {"local_files_only": True, "low_cpu_mem_usage": True}


@dataclass(frozen=True, slots=True)
class DiffusersFolder:
    """Reads the parts of a folder; every method raises `ModelUnusable` for what it cannot read."""

    path: Path

    def config(self, part: str) -> dict[str, Any]:
        """A part's configuration file, `{}` when there is none."""
        names = ("config.json", "scheduler_config.json")
        files = [f for n in names if (f := self.path / part / n).is_file()]
        return _read_json(files[0]) if files else {}

    @property
    def family(self) -> Family:
        """Told from the text encoders: two of them are SDXL's, a wide one is SD2's."""
        index = _read_json(self.path / "model_index.json")
        if "text_encoder_2" in index:
            return Family.SDXL
        activation = self.config("text_encoder").get("hidden_act", "quick_gelu")
        return Family.SD1 if activation == "quick_gelu" else Family.SD2

    def unet(self, dtype: torch.dtype) -> UNet2DConditionModel:
        """The UNet, on the CPU."""
        return self._load(UNet2DConditionModel, "unet", dtype)

    def vae(self, dtype: torch.dtype) -> AutoencoderKL:
        """The VAE, on the CPU."""
        return self._load(AutoencoderKL, "vae", dtype)

    def text_encoders(self, dtype: torch.dtype) -> tuple[TextEncoder, ...]:
        """One text encoder, or SDXL's two."""
        if self.family is not Family.SDXL:
            pad = END if self.family is Family.SD1 else 0
            return (TextEncoder(self._load(CLIPTextModel, "text_encoder", dtype), None, pad),)
        second = self._load(CLIPTextModelWithProjection, "text_encoder_2", dtype)
        first = self._load(CLIPTextModel, "text_encoder", dtype)
        return (
            TextEncoder(first, None, END),
            TextEncoder(second.text_model, second.text_projection.weight.T.contiguous(), 0),
        )

    def _load(self, kind: type[Any], part: str, dtype: torch.dtype) -> Any:
        if not (self.path / part).is_dir():
            raise ModelUnusable(f"the folder {part}/ is missing")
        try:
            name = "dtype" if issubclass(kind, PreTrainedModel) else "torch_dtype"
            options: dict[str, Any] = {name: dtype, **_LOADING}
            model = kind.from_pretrained(self.path / part, **options)
        except (OSError, ValueError, RuntimeError, KeyError) as error:
            raise ModelUnusable(f"{part}/: {str(error).splitlines()[0]}") from error
        return model.requires_grad_(False).eval()


def _read_json(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ModelUnusable(f"{path.name}: no readable JSON ({type(error).__name__})") from error
    if not isinstance(content, dict):
        raise ModelUnusable(f"{path.name}: no JSON object")
    return content
