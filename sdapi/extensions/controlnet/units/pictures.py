"""A unit's picture, with its mask as fourth channel (contract: controlnet-api 3 and 4)."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final, cast

import numpy as np
from PIL import Image

from sdapi.engine.control.unit import Pixels
from sdapi.errors import BadImage, BadRequest, BadUrl
from sdapi.extensions.controlnet.maps.fitting import Fit
from sdapi.extensions.controlnet.preprocessors import Mask, Preprocessor
from sdapi.extensions.controlnet.units.pixel_budget import PixelBudget
from sdapi.extensions.controlnet.units.unit_fields import UnitFields
from sdapi.images import CONTAIN, resize_image
from sdapi.images.masks import Box, blur_mask, invert_mask, mask_from
from sdapi.schemas.generation import Img2ImgRequest
from sdapi.services.generation.pictures.init_images import is_url
from sdapi.services.scripts.script import Preparation

_MOST_PICTURES: Final = 64
_MAX_PIXELS: Final = 64_000_000
#: a mask that says nothing is nearly black, or nearly white, all over
_BLACK, _ALL_WHITE = 5, 250
#: how a request's `resize_mode` is called here
_REQUEST_FITS: Final = (Fit.STRETCH, Fit.COVER, Fit.CONTAIN, Fit.STRETCH)
_RESIZE: Final = {Fit.STRETCH: 0, Fit.COVER: 1, Fit.CONTAIN: 2}


@dataclass(frozen=True, slots=True)
class UnitPictures:
    """What a preprocessor looks at: pictures [H, W, 3], or [H, W, 4] with a mask."""

    pictures: tuple[Pixels, ...]
    #: how the map comes to the size of the drawn picture
    fit: Fit
    #: of the request's own mask: the unit stands for img2img's inpainting
    has_request_mask: bool = False


@dataclass(frozen=True, slots=True)
class PictureChoice:
    """Finds the pictures of one unit; `place` is where it stands in the request."""

    unit: UnitFields
    module: Preprocessor
    preparation: Preparation
    place: str
    budget: PixelBudget

    def find(self) -> UnitPictures:
        """The pictures, decoded and fetched; blocks.

        Raises `BadImage` or `BadUrl` for what cannot be decoded or fetched, `BadRequest` where
        there is no picture.
        """
        given, fit = self._given(), Fit(self.unit.resize_mode)
        if given:
            pictures = tuple(self._joined(image, mask) for image, mask in given)
            return UnitPictures(tuple(self._cropped(each, fit) for each in pictures), fit)
        if self.unit.mask is not None:
            raise BadRequest(f"{self.place}.mask: there is a mask, but no image it belongs to")
        return self._of_request()

    def _given(self) -> list[tuple[Image.Image, Image.Image | None]]:
        """The unit's own pictures and masks."""
        own = self._mask(self.unit.mask, "mask")
        if self.unit.image_link is not None:
            link = self.unit.image_link
            if not is_url(link):
                raise BadUrl(
                    f"{self.place}.image_link: {link[:200]!r} is no http or https URL, "
                    "nor an object's such as oss://bucket/key"
                )
            return [(self._needed(link, "image_link"), own)]
        pairs = list(_pairs(self.unit.image, f"{self.place}.image"))
        if len(pairs) > _MOST_PICTURES:
            raise BadRequest(f"{self.place}.image: at most {_MOST_PICTURES} pictures in one unit")
        return [
            (self._needed(image, "image"), own or self._mask(mask, "image.mask"))
            for image, mask in pairs
        ]

    def _mask(self, value: object, name: str) -> Image.Image | None:
        return None if _is_empty(value) else self._needed(value, name)

    def _needed(self, value: object, name: str) -> Image.Image:
        image = self._decoded(value, name)
        self.budget.take(image.size, f"{self.place}.{name}")
        if image.width * image.height > _MAX_PIXELS:
            raise BadRequest(
                f"{self.place}.{name}: {image.width}x{image.height} is more than "
                f"{_MAX_PIXELS // 1_000_000} megapixels"
            )
        return image

    def _decoded(self, value: object, name: str) -> Image.Image:
        if isinstance(value, Image.Image):
            return value
        if not isinstance(value, str):
            raise BadImage(f"{self.place}.{name}: a picture is a text, not {value!r:.80}")
        try:
            return self.preparation.load_image(value, f"{self.place}.{name}")
        except BadImage as error:
            raise BadImage(f"{self.place}.{name}: {error.detail}") from error

    def _joined(self, image: Image.Image, mask: Image.Image | None) -> Pixels:
        """A picture with its mask, as far as the module looks at one."""
        pixels = on_white(image)
        shape = None if mask is None else (mask.height, mask.width)
        if shape is not None and shape != pixels.shape[:2]:
            raise BadRequest(
                f"{self.place}.mask: image shape {list(pixels.shape[:2])} not aligned with mask "
                f"shape {list(shape)}; both must have the same size"
            )
        plane = np.zeros(pixels.shape[:2], np.uint8)
        if mask is not None:
            plane = on_white(mask)[:, :, 0]
        if self.module.mask is not Mask.IGNORED:
            return np.dstack([pixels, plane])
        says_something = plane.max() > _BLACK and plane.min() < _ALL_WHITE
        if says_something and not self._ignores_masks:
            # A scribble: what was painted over the picture stands for it.
            return np.repeat(plane[:, :, None], 3, axis=2)
        return pixels

    @property
    def _ignores_masks(self) -> bool:
        return self.preparation.options.flag("controlnet_ignore_noninpaint_mask")

    def _of_request(self) -> UnitPictures:
        """img2img's first picture; its request's resize mode then stands for the unit's."""
        preparation, request = self.preparation, self.preparation.request
        if preparation.inputs is None or not isinstance(request, Img2ImgRequest):
            raise BadRequest(
                f"{self.place}.image: controlnet is enabled but no input image is given"
            )
        fit = _REQUEST_FITS[int(request.resize_mode or 0)]
        image, mask = preparation.inputs.images[0], preparation.inputs.mask
        # Others would take it for what of the picture they are to see.
        if self.module.mask is not Mask.REQUIRED or mask is None:
            return UnitPictures((self._cropped(self._joined(image, None), fit),), fit)
        drawn = _request_mask(mask, request)
        if drawn.size != image.size:
            drawn = resize_image(drawn, CONTAIN, image.size).convert("L")
        pixels = self._cropped(self._joined(image, drawn), fit)
        return UnitPictures((pixels,), fit, has_request_mask=True)

    def _cropped(self, pixels: Pixels, fit: Fit) -> Pixels:
        """The part that img2img draws, where it draws only what is masked."""
        box = self._box
        if box is None or self.module.name.startswith("reference"):
            return pixels
        inputs = self.preparation.inputs
        assert inputs is not None
        assert inputs.mask is not None
        size = self.preparation.request.width or 0, self.preparation.request.height or 0
        planes = [pixels[:, :, :3], *(pixels[:, :, i] for i in range(3, pixels.shape[2]))]
        cut: list[Pixels] = []
        for plane in planes:
            image = Image.fromarray(plane)
            whole = resize_image(image, _RESIZE[fit], inputs.mask.size)
            part = resize_image(whole.crop(box), CONTAIN, size)
            cut.append(np.asarray(part.convert(image.mode)))  # resizing makes everything RGB
        return np.dstack(cut)

    @property
    def _box(self) -> Box | None:
        prepared = self.preparation.prepared
        if prepared is None or prepared.finish.surroundings is None:
            return None
        return prepared.finish.surroundings.box if self.unit.inpaint_crop_input_image else None


def on_white(image: Image.Image) -> Pixels:
    """A picture's pixels [H, W, 3], on white where it is transparent; fractions are cut off."""
    if not image.has_transparency_data:
        return np.asarray(image.convert("RGB"))
    pixels = np.asarray(image.convert("RGBA"), np.float32)
    alpha = pixels[:, :, 3:] / 255
    return (pixels[:, :, :3] * alpha + 255 * (1 - alpha)).clip(0, 255).astype(np.uint8)


def _pairs(image: object, place: str) -> Iterator[tuple[object, object]]:
    """The pictures and masks in the forms that `image` may have."""
    if isinstance(image, list):
        elements = cast("list[Any]", image)
        if any(isinstance(element, dict) for element in elements):
            for element in elements:
                yield from _pairs(element, place)
        elif len(elements) == 2:
            yield from _pair(elements[0], elements[1], place)
        else:
            raise BadRequest(
                f"{place}: a list is [image, mask] or holds objects, not {len(elements)} texts"
            )
    elif isinstance(image, dict):
        entry = cast("dict[str, Any]", image)
        if "image" not in entry:
            raise BadRequest(f'{place}: an object needs "image"; it may have "mask"')
        yield from _pair(entry["image"], entry.get("mask"), place)
    else:
        yield from _pair(image, None, place)


def _pair(image: object, mask: object, place: str) -> Iterator[tuple[object, object]]:
    """A picture with its mask; an empty text is none."""
    if not _is_empty(image):
        yield image, mask
    elif not _is_empty(mask):
        raise BadRequest(f"{place}: there is a mask, but no image it belongs to")


def _is_empty(value: object) -> bool:
    return value is None or value == ""


def _request_mask(mask: Image.Image, request: Img2ImgRequest) -> Image.Image:
    """img2img's mask as it draws with it, at its own size."""
    grey = mask_from(mask, rounds=False)
    if request.inpainting_mask_invert:
        grey = invert_mask(grey)
    blur = request.mask_blur
    across, down = (blur, blur) if blur is not None else (request.mask_blur_x, request.mask_blur_y)
    return blur_mask(grey, across or 0, down or 0)
