"""What a control model must know of the checkpoint it steers, and whether it fits."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel

from sdapi.engine.checkpoints.unet_keys import UNetShape
from sdapi.errors import ModelUnusable

if TYPE_CHECKING:
    from sdapi.engine.sampling.sampling_pass import SamplingPass

_FAMILIES = {768: "SD1", 1024: "SD2"}


@dataclass(frozen=True, slots=True)
class BaseModel:
    """A UNet's figures that its controls share; two checkpoints of a family have the same."""

    #: its encoder's shape
    encoder: UNetShape
    #: attention heads at each resolution
    heads: tuple[int, ...]
    #: the number type that controls run in
    dtype: torch.dtype

    @classmethod
    def of(cls, sampling: "SamplingPass") -> "BaseModel":
        """The UNet of a sampler run."""
        return cls.of_unet(sampling.components.unet, sampling.models.precision.control)

    @classmethod
    def of_unet(cls, unet: UNet2DConditionModel, dtype: torch.dtype) -> "BaseModel":
        """A UNet with controls of a number type."""
        config: Any = unet.config
        channels = tuple(config["block_out_channels"])
        heads = config["num_attention_heads"] or config["attention_head_dim"]
        depths = _for_each(config["transformer_layers_per_block"], channels)
        attends = [kind.startswith("CrossAttn") for kind in config["down_block_types"]]
        encoder = UNetShape(
            # Copies read the latents alone, also those of inpainting checkpoints.
            in_channels=config["out_channels"],
            out_channels=None,
            channels=channels,
            resnets=config["layers_per_block"],
            transformer_depth=tuple(
                depth if has else 0 for depth, has in zip(depths, attends, strict=True)
            ),
            middle_depth=depths[-1],
            context_width=config["cross_attention_dim"],
            linear_projection=config["use_linear_projection"],
            vector_width=config["projection_class_embeddings_input_dim"],
        )
        return cls(encoder, _for_each(heads, channels), dtype)

    @property
    def channels(self) -> tuple[int, ...]:
        return self.encoder.channels

    @property
    def context_width(self) -> int:
        return self.encoder.context_width

    @property
    def vector_width(self) -> int | None:
        """Of SDXL's extra vector, None for the others."""
        return self.encoder.vector_width

    def check(self, name: str, shape: UNetShape) -> None:
        """Raise `ModelUnusable` unless a copy of an encoder fits this checkpoint."""
        # Copies without attention tell no width of the texts.
        context_width = shape.context_width or self.context_width
        figures = (
            ("widths of its levels", shape.channels, self.channels),
            ("blocks at each level", shape.resnets, self.encoder.resnets),
            ("width of texts", context_width, self.context_width),
            ("width of the vector beside them", shape.vector_width, self.vector_width),
        )
        unlike = [
            f"{what}: {_shown(theirs)}, the checkpoint's {_shown(ours)}"
            for what, theirs, ours in figures
            if theirs != ours
        ]
        if unlike:
            raise ModelUnusable(
                f"ControlNet model {name}({_family(context_width, shape.vector_width)}) is not "
                f"compatible with sd model({_family(self.context_width, self.vector_width)}): "
                + "; ".join(unlike)
            )


def _for_each(value: Any, levels: tuple[int, ...]) -> tuple[int, ...]:
    """A number for every level, where one may stand for all."""
    return tuple(value) if isinstance(value, (tuple, list)) else (value,) * len(levels)


def _family(context_width: int, vector_width: int | None) -> str:
    if vector_width is not None:
        return "SDXL"
    return _FAMILIES.get(context_width, f"context of {context_width}")


def _shown(figure: tuple[int, ...] | int | None) -> str:
    return "none" if figure is None else str(list(figure) if isinstance(figure, tuple) else figure)
