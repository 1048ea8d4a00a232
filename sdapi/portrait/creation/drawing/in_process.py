"""Passes drawn by this server's own generation service, as jobs like any others."""

import asyncio
import logging
import os
from collections.abc import Awaitable, Callable, Generator, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import anyio.to_thread
from pydantic import ValidationError

from sdapi.errors import BadRequest, ModelUnusable, QueueFull, SDAPIError
from sdapi.portrait.creation.drawing.control_kinds import Kind, kind_of_file
from sdapi.portrait.creation.drawing.passes import Drawn, Pass
from sdapi.portrait.creation.drawing.webui import (
    TXT2IMG,
    DrawingFailed,
    Inventory,
    UnitsRefused,
    body_of,
    kind_of,
    picture_of,
    pixels_of,
    png_text,
)
from sdapi.portrait.faces.face import Pixels
from sdapi.portrait.faults import PASSING
from sdapi.portrait.models.folders import LORA_MARK
from sdapi.schemas.extras import ExtrasFields
from sdapi.schemas.generation import Img2ImgRequest, Txt2ImgRequest
from sdapi.services.catalog.catalog import DEMO_CHECKPOINT
from sdapi.services.catalog.face_restorers import FACE_RESTORERS, FaceRestorers
from sdapi.services.catalog.model_files.finding import find_files
from sdapi.services.catalog.model_files.safetensors_header import read_header
from sdapi.services.catalog.model_files.weight_file import problem_of
from sdapi.services.catalog.upscalers import Upscalers
from sdapi.services.container import Services
from sdapi.services.generation.order import Caller

_CONTROLNET: Final = "controlnet"
_CONTROL_SUFFIXES: Final = {".safetensors", ".pt", ".pth", ".ckpt", ".bin"}
#: of a control network's weights in its original layout
_CONTROL_PREFIX: Final = "control_model."
#: of one pass with its wait in the queue, as a portrait once begun is not refused; a large
#: checkpoint takes half an hour on a CPU
PASS_TIMEOUT_S: Final = 3600.0
log = logging.getLogger(__name__)


@contextmanager
def _told_as_failed() -> Generator[None]:
    """What a pass ends with, as drawers tell it; what passes is for whoever asked."""
    try:
        yield
    except PASSING:
        raise
    except (BadRequest, ValidationError) as error:
        raise UnitsRefused(str(error)) from error
    except ModelUnusable as error:
        refused = UnitsRefused(error.sentence)
        raise (DrawingFailed(error.detail) if refused.number is None else refused) from error
    except SDAPIError as error:
        raise DrawingFailed(error.detail) from error
    except TimeoutError as error:
        raise DrawingFailed(f"no picture within {PASS_TIMEOUT_S:g} s") from error
    except Exception as error:  # whatever a network raises: a server elsewhere would answer 500
        log.exception("a pass of a portrait failed")
        raise DrawingFailed(f"{type(error).__name__}: {error}") from error


class InProcessDrawer:
    """Draws through the services of this process."""

    def __init__(self, services: Services) -> None:
        self._services = services

    async def draw(self, asked: Pass) -> Drawn:
        kind = kind_of(asked)
        body = await anyio.to_thread.run_sync(body_of, asked)
        model = Txt2ImgRequest if kind == TXT2IMG else Img2ImgRequest
        with _told_as_failed():
            request = model.model_validate(body)
            answer = await self._placed(
                lambda: self._services.generation.answer(
                    "txt2img" if kind == TXT2IMG else "img2img", request, Caller(wants_whole=True)
                )
            )
            return await anyio.to_thread.run_sync(picture_of, answer)

    async def improve(self, rgb: Pixels, fields: Mapping[str, Any]) -> Pixels:
        text = await anyio.to_thread.run_sync(png_text, rgb)
        with _told_as_failed():
            request = ExtrasFields.model_validate(fields)
            answer = await self._placed(
                lambda: self._services.extras.single(request, text, Caller(wants_whole=True))
            )
            return await anyio.to_thread.run_sync(pixels_of, answer.get("image"))

    async def lora(self, name: str, file: Path) -> str | None:
        """A file of the same name in another folder never stands for the model's own."""
        return await anyio.to_thread.run_sync(self._lora, name, file)

    def _lora(self, name: str, file: Path) -> str | None:
        networks = self._services.networks
        link = self._services.settings.lora_dirs[0] / f"{name}.safetensors"
        own = next((path for path in (file, link) if path.is_file()), None)
        if own is None:
            return None
        if problem := problem_of(own):
            log.warning("portrait: the LoRA %s cannot be used: %s", own, problem)
            return None
        found = networks.lora(name)
        if found is not None and os.path.realpath(found.path) == os.path.realpath(own):
            return name
        lent = "/".join(("portrait", *own.with_suffix("").parts[-3:]))
        networks.lend(lent, own)
        return lent

    async def _placed(self, ask: Callable[[], Awaitable[dict[str, Any]]]) -> dict[str, Any]:
        """The answer, once there is a place in the queue.

        Raises QueueFull where none gets free, and TimeoutError.
        """
        full: QueueFull | None = None
        try:
            async with asyncio.timeout(PASS_TIMEOUT_S):
                while True:
                    try:
                        full = None
                        return await ask()
                    except QueueFull as error:
                        full = error
                        await asyncio.sleep(error.retry_after_s or 1)
        except TimeoutError:
            raise full or TimeoutError from None

    async def inventory(self) -> Inventory:
        return await anyio.to_thread.run_sync(self._look)

    def _look(self) -> Inventory:
        services, settings = self._services, self._services.settings
        restorers = FaceRestorers(settings)
        controls = dict(self._control_models())
        usable = [name for name in FACE_RESTORERS if restorers.find(name).models is not None]
        return Inventory(
            tuple(controls),
            {name: kind for name, kind in controls.items() if kind is not None},
            style_loras=frozenset(
                name
                for lora in services.networks.loras
                if LORA_MARK not in lora.metadata
                for name in (lora.name, lora.alias)
            ),
            restorers=tuple(usable),
            upscalers=tuple(file.name for file in Upscalers(settings).files()),
        )

    def _control_models(self) -> Iterator[tuple[str, Kind | None]]:
        """The files that ControlNet's extension knows, where it is there to use them."""
        services, settings = self._services, self._services.settings
        scripts = services.scripts.names("img2img")
        if _CONTROLNET not in (name.lower() for name in scripts):
            return
        for folder in settings.controlnet_dirs:
            for path in find_files(folder, _CONTROL_SUFFIXES):
                if not path.is_relative_to(settings.controlnet_annotators_dir):
                    yield path.stem, kind_of_file(path)
        if any(each.path == DEMO_CHECKPOINT for each in services.catalog.checkpoints):
            for path in find_files(DEMO_CHECKPOINT.parent, {".safetensors"}):
                if any(key.startswith(_CONTROL_PREFIX) for key in read_header(path)):
                    yield path.stem, kind_of_file(path)
