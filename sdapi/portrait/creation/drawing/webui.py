"""A pass as a request of the webui API, and its answer read.

Either a service in this process or a server elsewhere takes the same body, as any client sends it.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Protocol, cast

import numpy as np
from PIL import Image

from sdapi.errors import BadImage
from sdapi.images import decode_image, encode_png, to_base64
from sdapi.portrait.creation.drawing.control_kinds import Kind, kind_of_name
from sdapi.portrait.creation.drawing.passes import Drawn, Pass, Unit
from sdapi.portrait.faces.face import Pixels
from sdapi.portrait.state.records import Base

TXT2IMG: Final = "txt2img"
IMG2IMG: Final = "img2img"
#: how an error of this server's names a control unit
_UNIT: Final = re.compile(r"alwayson_scripts\.controlnet\.args\.(\d{1,3})\b")


class DrawingFailed(Exception):
    """No picture came; the text says why."""


class UnitsRefused(DrawingFailed):
    """The request was refused for what it asks; without its control units it may be taken."""

    @property
    def number(self) -> int | None:
        """Of the control unit at fault, from 0; None where the refusal names none."""
        named = _UNIT.search(str(self))
        return None if named is None else int(named[1])


@dataclass(frozen=True, slots=True)
class Inventory:
    """The optional models of whoever draws, by the names that requests have for them."""

    control_models: tuple[str, ...] = ()
    #: which checkpoints they are for, of those whose files say so
    control_kinds: Mapping[str, Kind] = field(default_factory=dict[str, Kind])
    #: but for those of people, whose names are callers'; None where that cannot be told
    style_loras: frozenset[str] | None = None
    #: face restorers and upscalers that have their files
    restorers: tuple[str, ...] = ()
    upscalers: tuple[str, ...] = ()

    def controls_for(self, kind: Base) -> tuple[str, ...]:
        """The control models for a kind of checkpoint, as their files or names say."""
        kinds = {name: self.control_kinds.get(name) for name in self.control_models}
        return tuple(name for name, told in kinds.items() if (told or kind_of_name(name)) == kind)


class Drawer(Protocol):
    """Who draws: this server's generation service, or another server."""

    async def draw(self, asked: Pass) -> Drawn:
        """The picture; raises DrawingFailed."""
        ...

    async def improve(self, rgb: Pixels, fields: Mapping[str, Any]) -> Pixels:
        """A picture through `extra-single-image`; raises DrawingFailed."""
        ...

    async def lora(self, name: str, file: Path) -> str | None:
        """What prompts call the LoRA of a model, which is linked under `name`; None without it.

        `file` is the model's own, where whoever draws can see it; a broken one is none. A name of
        which nothing can be told counts as there.
        """
        ...

    async def inventory(self) -> Inventory:
        """Which optional models are there; what cannot be told counts as absent."""
        ...


def kind_of(asked: Pass) -> str:
    """Which of the two routes a pass goes to."""
    return TXT2IMG if asked.rgb is None else IMG2IMG


def body_of(asked: Pass) -> dict[str, Any]:
    """The request's body. Encodes pictures, so it belongs in a thread."""
    sampler, scheduler = asked.sampler
    body: dict[str, Any] = {
        "prompt": asked.prompt,
        "negative_prompt": asked.negative,
        "steps": asked.steps,
        "cfg_scale": asked.cfg_scale,
        "sampler_name": sampler,
        "scheduler": scheduler,
        "seed": asked.seed,
        "width": asked.size[0],
        "height": asked.size[1],
        "batch_size": 1,
        "n_iter": 1,
        "restore_faces": False,
        "override_settings": {"return_mask": False, "return_mask_composite": False},
    }
    if asked.checkpoint:
        body["override_settings"]["sd_model_checkpoint"] = asked.checkpoint
    if asked.units:
        body["alwayson_scripts"] = {"controlnet": {"args": [_unit(unit) for unit in asked.units]}}
    if asked.rgb is not None:
        body |= {
            "init_images": [png_text(asked.rgb)],
            "denoising_strength": asked.strength,
            "resize_mode": 0,
        }
    if asked.mask is not None:
        body |= {
            "mask": png_text(np.asarray(asked.mask * 255.0 + 0.5, np.uint8)),
            "mask_blur": asked.mask_blur,
            "inpainting_fill": 1,
            "inpaint_full_res": False,
        }
    return body


def picture_of(body: object) -> Drawn:
    """The first picture of an answer; raises DrawingFailed. Decodes, so it belongs in a thread."""
    answer = cast("dict[str, object]", body) if isinstance(body, dict) else {}
    images = answer.get("images")
    first = cast("list[object]", images)[0] if isinstance(images, list) and images else None
    warnings = answer.get("warnings")
    told = cast("list[object]", warnings) if isinstance(warnings, list) else []
    return Drawn(pixels_of(first), tuple(str(one) for one in told))


def pixels_of(text: object) -> Pixels:
    """A picture in base64; raises DrawingFailed."""
    if not isinstance(text, str):
        raise DrawingFailed("the answer holds no picture")
    try:
        return np.ascontiguousarray(np.asarray(decode_image(text).convert("RGB"), np.uint8))
    except BadImage as error:
        raise DrawingFailed(f"the answer's picture cannot be read: {error}") from error


def png_text(pixels: np.ndarray) -> str:
    """A picture as requests hold it."""
    return to_base64(encode_png(Image.fromarray(pixels)))


def _unit(unit: Unit) -> dict[str, Any]:
    return {
        "enabled": True,
        "module": unit.module,
        "model": unit.model,
        "weight": unit.weight,
        "image": png_text(unit.rgb),
        "resize_mode": "Just Resize",
        "control_mode": unit.mode,
        "processor_res": min(unit.rgb.shape[:2]),
        "guidance_start": 0.0,
        "guidance_end": 1.0,
        "save_detected_map": False,
    }
