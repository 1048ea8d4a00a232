"""How texts become vectors."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class TextOptions:
    """How texts become vectors; a part of every cache key."""

    #: option `CLIP_stop_at_last_layers`
    clip_skip: int = 1
    #: option `emphasis`: Original, No norm, Ignore or None
    emphasis: str = "Original"
    comma_backtrack: int = 20
    #: option `sdxl_clip_l_skip`: let clip skip act on SDXL's first encoder
    sdxl_clip_l_skip: bool = False
    #: SDXL's size conditioning, pixels: (height, width) and (top, left)
    size: tuple[int, int] = (512, 512)
    crop: tuple[int, int] = (0, 0)
    #: option `prompt_attention`: webui, or compel
    attention: str = "webui"
