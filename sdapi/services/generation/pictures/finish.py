"""What becomes of a drawn picture before it is delivered: its colours, and its place in the
picture it was made from.

Contract: webui-generation 10.7 and 10.8, webui-scripts 12. Runs off the device.
"""

from dataclasses import dataclass, replace
from typing import Final

from PIL import Image, ImageFilter

from sdapi.engine.jobs.job import GeneratedImage, Result
from sdapi.images import CONTAIN, Upscale, resize_image
from sdapi.images.colour import correct_colours
from sdapi.images.masks import Box, kept_part, lay_over, masked_part, put_back
from sdapi.options import Options
from sdapi.services.generation.pictures.variants import (
    BEFORE_COLOURS,
    MASK,
    MASK_COMPOSITE,
    is_wanted,
)

#: softens the steps that a mask has at the resolution of latents
_SOFT_EDGE: Final = ImageFilter.GaussianBlur(4)


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What is around the part that was drawn anew; pictures RGB, one or as many as a batch."""

    pictures: tuple[Image.Image, ...]
    #: of the pictures' size, white where they are hidden
    hidden: Image.Image
    #: where the drawn picture belongs; None: it is the whole
    box: Box | None
    #: option `overlay_inpaint`
    shows: bool


@dataclass(frozen=True, slots=True)
class Finish:
    """How a job's pictures are finished."""

    #: the job's size as asked for
    size: tuple[int, int]
    #: pictures whose colours the results get, one or as many as a batch; empty: none
    colours: tuple[Image.Image, ...] = ()
    surroundings: Surroundings | None = None
    #: the upscaler of option `upscaler_for_img2img`
    upscale: Upscale | None = None


def finish_result(result: Result, plan: Finish, batch_size: int, options: Options) -> Result:
    """A result with its pictures finished, and their other states as `variants`."""
    if not plan.colours and plan.surroundings is None:
        return result
    images = tuple(_finish(each, plan, each.index % batch_size, options) for each in result.images)
    return replace(result, images=images)


def _finish(each: GeneratedImage, plan: Finish, position: int, options: Options) -> GeneratedImage:
    place = _Place.of(plan, each, position)
    image, variants = each.image, dict(each.variants)
    if plan.colours:
        if is_wanted(BEFORE_COLOURS, options):
            variants[BEFORE_COLOURS] = place.put(image)[0]
        image = correct_colours(image, _of_batch(plan.colours, position))
    image, bare = place.put(image)
    if place.hidden is not None and is_wanted(MASK, options):
        variants[MASK] = place.hidden.convert("RGB")
    if place.hidden is not None and is_wanted(MASK_COMPOSITE, options):
        variants[MASK_COMPOSITE] = masked_part(bare, place.hidden)
    return replace(each, image=image, variants=variants)


@dataclass(frozen=True, slots=True)
class _Place:
    """Where one picture belongs."""

    box: Box | None = None
    overlay: Image.Image | None = None
    hidden: Image.Image | None = None
    upscale: Upscale | None = None

    @classmethod
    def of(cls, plan: Finish, each: GeneratedImage, position: int) -> "_Place":
        around = plan.surroundings
        if around is None:
            return cls()
        picture, hidden = _of_batch(around.pictures, position), around.hidden
        if each.cover is not None:
            hidden = _soft_mask(each.cover, plan.size, picture.size, around.box)
        # Soft inpainting lays its picture over whatever the option says, as the reference does.
        shows = around.shows or each.cover is not None
        overlay = kept_part(picture, hidden).convert("RGBA") if shows else None
        return cls(around.box, overlay, hidden, plan.upscale)

    def put(self, image: Image.Image) -> tuple[Image.Image, Image.Image]:
        """The picture with its surroundings, and without them at the same place."""
        if self.overlay is None:
            return image, image
        if self.box is not None:
            image = put_back(image, self.overlay.size, self.box, self.upscale)
        return lay_over(image, self.overlay), image


def _soft_mask(
    cover: Image.Image, size: tuple[int, int], whole: tuple[int, int], box: Box | None
) -> Image.Image:
    """Soft inpainting's mask at the size of the whole picture, black outside of the box."""
    mask = resize_image(cover, CONTAIN, size).convert("L").filter(_SOFT_EDGE)
    if box is not None:
        return put_back(mask, whole, box).convert("L")
    return mask if mask.size == whole else resize_image(mask, CONTAIN, whole).convert("L")


def _of_batch(pictures: tuple[Image.Image, ...], position: int) -> Image.Image:
    return pictures[position if len(pictures) > 1 else 0]
