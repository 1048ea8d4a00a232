"""CLIP's image encoders (Radford et al. 2021), built from the shapes in a file."""

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import torch
from accelerate import init_empty_weights
from PIL import Image
from torch import Tensor
from transformers import CLIPVisionConfig, CLIPVisionModelWithProjection

from sdapi.engine.control.middle import middle
from sdapi.engine.control.models.control_file import fitting_together
from sdapi.engine.control.unit import Pixels
from sdapi.engine.weights.assigning import assign
from sdapi.engine.weights.model_file import ModelFile
from sdapi.engine.weights.state_dict import StateDict, read_state_dict
from sdapi.engine.weights.tensor_bytes import module_bytes
from sdapi.errors import ModelUnusable

#: of each published encoder; their weights do not tell
_HEADS: Final = 16
#: only OpenAI's own has its approximation of GELU, and it is this wide
_OPENAI_WIDTH: Final = 1024
_LAYER = re.compile(r"vision_model\.encoder\.layers\.(\d+)\.mlp\.fc1\.weight")
#: a table that older files hold and newer code computes
_COMPUTED: Final = "vision_model.embeddings.position_ids"
_MEAN: Final = (0.48145466, 0.4578275, 0.40821073)
_DEVIATION: Final = (0.26862954, 0.26130258, 0.27577711)
_HIDDEN: Final = 127


@dataclass(frozen=True, slots=True)
class Embedding:
    """What an encoder says of some pictures."""

    #: [N, projection]
    pooled: Tensor
    #: of the last layer but one, a vector for each patch and one for all [N, 1 + patches, width]
    patches: Tensor


@dataclass(slots=True)
class LoadedImageEncoder:
    """An encoder in memory."""

    module: CLIPVisionModelWithProjection
    #: pixels of a picture's sides
    side: int

    @property
    def size_bytes(self) -> int:
        return module_bytes(self.module)

    def move(self, device: torch.device) -> None:
        torch.nn.Module.to(self.module, device)

    def embed(self, pictures: Sequence[Pixels]) -> Embedding:
        """Look at pictures [H, W, 3 or 4]; what a mask leaves out is hidden."""
        return self._embed(torch.cat([prepared(each, self.side) for each in pictures]))

    def blank(self) -> Embedding:
        """What it says where there is nothing to see."""
        return self._embed(torch.zeros(1, 3, self.side, self.side))

    def _embed(self, pixels: Tensor) -> Embedding:
        weight = self.module.visual_projection.weight
        made: Any = self.module(pixels.to(weight), output_hidden_states=True)
        return Embedding(made.image_embeds, made.hidden_states[-2])


def prepared(pixels: Pixels, side: int) -> Tensor:
    """The middle of a picture [1, 3, side, side], its values as CLIP has them."""
    pixels = middle(pixels, (side, side))
    image = Image.fromarray(np.ascontiguousarray(pixels[:, :, :3]))
    scale = side / min(image.size)
    # Rounded down on the longer side, as transformers' processor does.
    size = int(image.width * scale + 1e-6), int(image.height * scale + 1e-6)
    size = max(size[0], side), max(size[1], side)
    left, top = (size[0] - side) // 2, (size[1] - side) // 2
    box = (left, top, left + side, top + side)
    cut = np.asarray(image.resize(size, Image.Resampling.BICUBIC).crop(box), np.float32) / 255
    values = (cut - np.array(_MEAN, np.float32)) / np.array(_DEVIATION, np.float32)
    if pixels.shape[2] == 4 and pixels[:, :, 3].any():
        mask = Image.fromarray(np.ascontiguousarray(pixels[:, :, 3]))
        seen = np.asarray(mask.resize(size, Image.Resampling.BICUBIC).crop(box)) > _HIDDEN
        values = values * seen[:, :, None]
    return torch.from_numpy(values.transpose(2, 0, 1).astype(np.float32))[None]


def load_image_encoder(file: ModelFile, dtype: torch.dtype) -> LoadedImageEncoder:
    """Build an encoder from a file's weights, all of them; raises `ModelUnusable`."""
    weights = read_state_dict(file.path)
    weights.pop(_COMPUTED, None)
    name = file.path.name
    with fitting_together(name), init_empty_weights(include_buffers=False):
        shape = _shape(weights, name)
        config = CLIPVisionConfig(**shape, num_attention_heads=_HEADS)
        module = CLIPVisionModelWithProjection(config)
    assign(module, weights, name, dtype)
    return LoadedImageEncoder(module, shape["image_size"])


def _shape(weights: StateDict, name: str) -> dict[str, Any]:
    """What the shapes of an encoder's weights tell, under transformers' names."""
    try:
        width = weights["vision_model.embeddings.class_embedding"].shape[0]
        patch = weights["vision_model.embeddings.patch_embedding.weight"].shape[-1]
        positions = weights["vision_model.embeddings.position_embedding.weight"].shape[0]
        projection = weights["visual_projection.weight"].shape[0]
        inner = weights["vision_model.encoder.layers.0.mlp.fc1.weight"].shape[0]
    except KeyError as error:
        raise ModelUnusable(
            f"{name}: no CLIP image encoder in transformers' form, for it has no {error}"
        ) from error
    return {
        "hidden_size": width,
        "intermediate_size": inner,
        "projection_dim": projection,
        "num_hidden_layers": sum(1 for key in weights if _LAYER.fullmatch(key)),
        "image_size": math.isqrt(positions - 1) * patch,
        "patch_size": patch,
        "hidden_act": "quick_gelu" if width == _OPENAI_WIDTH else "gelu",
    }
