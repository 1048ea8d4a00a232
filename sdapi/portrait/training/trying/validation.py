"""Trial pictures: which steps of a training draw the person best. Contract: portrait-pipeline 2.4.

A trial draws the face of a template anew with the weights of one step. Templates are drawn by the
checkpoint itself, once, and kept beside the models; where it draws no single face, the person's
own reference photo serves.
"""

import hashlib
import json
import logging
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import anyio
import anyio.to_thread
import numpy as np
from PIL import Image

from sdapi.errors import QueueFull, SDAPIError
from sdapi.images import decode_image, encode_png, to_base64
from sdapi.images.decode import decode_bytes
from sdapi.portrait.base.checkpoints import BaseModel
from sdapi.portrait.faces.face import Box
from sdapi.portrait.faces.processes import FaceProcesses, FaceTaskFailed
from sdapi.portrait.faults import PASSING
from sdapi.portrait.models.whole_files import write_whole
from sdapi.portrait.training.photos.study import only_face, to_jpeg
from sdapi.schemas.generation import Img2ImgRequest, Txt2ImgRequest
from sdapi.services.catalog.networks import NetworkCatalog
from sdapi.services.generation.order import Caller
from sdapi.services.generation.service import GenerationService

#: of each training: two men and two women, or all of the one that `sex` names. With fewer, the
#: ten best trials would be most of all trials, and early weights would share in the result
TEMPLATES: Final = 4
_TEMPLATE_TRIES: Final = 4
_TEMPLATE_STEPS, _TRIAL_STEPS = 20, 20
_TEMPLATE_SCALE, _TRIAL_SCALE = 7.0, 9.0
_STRENGTH: Final = 0.65
_MASK_GROWN: Final = 1.3
#: a trial waits half an hour for its place, which costs its training nothing
_TRIES, _PATIENCE_S = 900, 2.0
#: nothing of the server's own settings may change a trial
_OVERRIDES: Final = {
    "return_mask": False,
    "return_mask_composite": False,
    "return_grid": False,
    "lora_add_hashes_to_infotext": False,
    "CLIP_stop_at_last_layers": 1,
}
log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, eq=False)
class Template:
    """A portrait and its face's box, in pixels."""

    image: Image.Image
    face: Box


@dataclass(frozen=True, slots=True)
class Validator:
    """Draws templates and trials with one checkpoint, as jobs like any others."""

    generation: GenerationService
    networks: NetworkCatalog
    processes: FaceProcesses
    base: BaseModel
    #: where drawn templates are kept
    folder: Path
    seed: int

    async def templates(self, sex: str, reference: bytes) -> list[Template]:
        """As many as a training needs; `reference` is the photo that may have to serve.

        Raises what passes, and FaceTaskFailed for a photo that cannot serve either.
        """
        people = {"male": ("man",), "female": ("woman",)}.get(sex.strip().lower(), ("man", "woman"))
        found: list[Template] = []
        for number in range(TEMPLATES):
            template = await self._template(people[number % len(people)], number // len(people))
            if template is not None:
                found.append(template)
        if not found:
            log.info("%s draws no single face; the photo serves as template", self.base.checkpoint)
            found += [made] if (made := await self._of_photo(reference)) is not None else []
        return found

    async def draw(self, template: Template, caption: str, lora: Path, name: str) -> bytes:
        """A trial with the weights of a file, as PNG; raises SDAPIError."""
        prompt, size = f"{caption}, <lora:{name}:1>", template.image.size
        body = self._body(prompt, _TRIAL_STEPS, _TRIAL_SCALE, size) | {
            "negative_prompt": self.base.words.validation_negative,
            **await anyio.to_thread.run_sync(_pictures, template),
            "mask_blur": 4,
            "inpainting_fill": 1,
            "inpaint_full_res": False,
            "denoising_strength": _STRENGTH,
        }
        with self.networks.lent(name, lora):
            return await self._picture("img2img", body)

    async def _template(self, person: str, number: int) -> Template | None:
        """One with a face: kept from an earlier training, or drawn; None after a few tries."""
        order = self._template_order(person)
        # Kept ones are of what is asked for today: words and guidance may have been changed.
        digest = hashlib.sha256(json.dumps(order, sort_keys=True).encode()).hexdigest()[:8]
        name = f"{self.base.checkpoint.name_for_extra}-{person}-{number}-{digest}.png"
        kept = self.folder / name
        if (template := await self._kept_template(kept)) is not None:
            return template
        for attempt in range(_TEMPLATE_TRIES):
            try:
                seed = 1000 * number + attempt
                data = await self._picture("txt2img", order | {"seed": seed})
                template = await self._with_face(data)
            except PASSING:
                raise
            except (FaceTaskFailed, SDAPIError, RuntimeError, ValueError) as error:
                log.warning("a template for trial pictures failed: %s", error)
                continue
            if template is not None:
                await anyio.to_thread.run_sync(_keep, kept, data)
                return template
        return None

    async def _kept_template(self, path: Path) -> Template | None:
        """One of an earlier training; None where it is not there, or cannot be used any more."""
        try:
            return await self._with_face(await anyio.Path(path).read_bytes())
        except FileNotFoundError:
            return None
        except PASSING:
            raise
        except (FaceTaskFailed, OSError, SDAPIError) as error:
            log.warning("the template %s is drawn anew: %s", path.name, error)
            return None

    def _template_order(self, person: str) -> dict[str, Any]:
        words, side = self.base.words, self.base.native_side
        prompt = f"{words.id_photo.format(person=person)}, {words.template_positive}"
        body = self._body(prompt, _TEMPLATE_STEPS, _TEMPLATE_SCALE, (side, side))
        return body | {"negative_prompt": words.template_negative}

    async def _of_photo(self, reference: bytes) -> Template | None:
        template = await self._with_face(reference)
        if template is None:
            return None
        side = self.base.native_side
        return await self._with_face(await anyio.to_thread.run_sync(_portrait_of, template, side))

    async def _with_face(self, data: bytes) -> Template | None:
        box = await self.processes.run(only_face, data)
        if box is None:
            return None
        return Template(await anyio.to_thread.run_sync(decode_bytes, data), box)

    def _body(self, prompt: str, steps: int, scale: float, size: tuple[int, int]) -> dict[str, Any]:
        return {
            "prompt": prompt,
            "steps": steps,
            "cfg_scale": self.base.cfg_scale or scale,
            "sampler_name": "DPM++ 2M",
            "scheduler": "Uniform",
            "seed": self.seed,
            "width": size[0],
            "height": size[1],
            "override_settings": {**_OVERRIDES, "sd_model_checkpoint": self.base.checkpoint.name},
        }

    async def _picture(self, kind: str, body: Mapping[str, Any]) -> bytes:
        """One picture of this server, as PNG; waits where the queue is full."""
        is_new = kind == "txt2img"
        request = (Txt2ImgRequest if is_new else Img2ImgRequest).model_validate(body)
        for attempt in range(_TRIES):
            try:
                answer = await self.generation.answer(
                    "txt2img" if is_new else "img2img", request, Caller(wants_whole=True)
                )
                return await anyio.to_thread.run_sync(_png, answer["images"][0])
            except QueueFull:
                if attempt == _TRIES - 1:
                    raise
                await anyio.sleep(_PATIENCE_S)
        raise AssertionError("the loop returns or raises")


def _keep(path: Path, data: bytes) -> None:
    """Keep a template for later trainings; without a place for it they draw their own."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_whole(path, data)
    except OSError as error:
        log.warning("the template %s is not kept: %s", path.name, error)


def _pictures(template: Template) -> dict[str, Any]:
    """The fields of a request that are pictures."""
    mask = _mask(template.image.size, template.face)
    return {"init_images": [_text(template.image)], "mask": _text(mask)}


def _png(text: str) -> bytes:
    return encode_png(decode_image(text).convert("RGB"))


def _text(image: Image.Image) -> str:
    return to_base64(encode_png(image))


def _mask(size: tuple[int, int], face: Box) -> Image.Image:
    """White where the face is drawn anew."""
    left, top, right, bottom = face
    beside, above = (right - left) * (_MASK_GROWN - 1) / 2, (bottom - top) * (_MASK_GROWN - 1) / 2
    rows, columns = np.mgrid[: size[1], : size[0]]
    inside = (columns >= left - beside) & (columns < right + beside)
    inside &= (rows >= top - above) & (rows < bottom + above)
    return Image.fromarray((inside * 255).astype(np.uint8))


def _portrait_of(template: Template, side: int) -> bytes:
    """The square around a photo's face, three times as wide, at a checkpoint's size; as JPEG."""
    left, top, right, bottom = template.face
    image = template.image.convert("RGB")
    half = min(1.5 * (right - left), min(image.size) / 2)
    x = min(max((left + right) / 2, half), image.width - half)
    y = min(max((top + bottom) / 2, half), image.height - half)
    area = (round(x - half), round(y - half), round(x + half), round(y + half))
    small = image.crop(area).resize((side, side), Image.Resampling.LANCZOS)
    return to_jpeg(np.asarray(small, np.uint8))
