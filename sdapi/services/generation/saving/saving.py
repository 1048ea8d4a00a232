"""Finishes the pictures of results and saves them: work that goes to its end once begun."""

import logging
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeVar

import anyio
import anyio.to_thread

from sdapi.engine.jobs.job import Result
from sdapi.services.generation.drafting.draft import Draft
from sdapi.services.generation.order import Order
from sdapi.services.generation.pictures.finish import finish_result
from sdapi.services.generation.pictures.gathered import Pictures, wants_grid, with_grid
from sdapi.services.generation.saving.image_files import ImageFiles
from sdapi.services.generation.saving.output_folders import OutputFolders
from sdapi.services.generation.telling.generation_info import GenerationInfo
from sdapi.services.scripts.script import Kind
from sdapi.services.storage.local_disk import replace_file
from sdapi.services.storage.storage import Storage
from sdapi.services.unbroken import unbroken
from sdapi.settings import Settings

log = logging.getLogger(__name__)
_Made = TypeVar("_Made")


@dataclass(frozen=True, slots=True)
class Saving:
    """Writes under the output folders, and has delivered what belongs in an object store."""

    settings: Settings
    storage: Storage
    files: ImageFiles
    #: of threads that may wait for a device
    limiter: anyio.CapacityLimiter

    def folders(self) -> OutputFolders:
        """For one request."""
        return OutputFolders(self.settings, self.files, self.storage)

    async def finished(self, order: Order, draft: Draft, result: Result) -> Result:
        """A result with what is done to its pictures off the device."""
        if draft.prepared is None:
            return result
        prepared, batch_size = draft.prepared, draft.job.batch_size

        def work(folders: OutputFolders) -> Result:
            if order.place is None:
                folders.save_init_images(prepared.originals, order.options)
            return finish_result(result, prepared.finish, batch_size, order.options)

        done, pending = await self.saved(work, self.limiter)
        return replace(done, warnings=(*done.warnings, *pending)) if pending else done

    async def keep(
        self, kind: Kind, result: Result, info: GenerationInfo, *, samples: bool, grid: bool
    ) -> tuple[Pictures, list[str]]:
        """The pictures of a job, with a grid if wanted, written if the request wants it.

        Besides warnings about what is written and not uploaded yet.
        """

        def work(folders: OutputFolders) -> Pictures:
            batch_size = info.job.batch_size
            wanted = wants_grid(result, info.options, saves=grid)
            pictures = with_grid(result, info.options, batch_size, wanted=wanted)
            keeps = not result.interrupted or info.options.flag("save_incomplete_images")
            if (samples or grid) and keeps:
                folders.save(kind, pictures, info, samples=samples)
            if not self.settings.no_prompt_history:
                self._remember_prompt(info.infotext(0))
            return pictures

        return await self.saved(work)

    async def saved(
        self,
        work: Callable[[OutputFolders], _Made],
        limiter: anyio.CapacityLimiter | None = None,
    ) -> tuple[_Made, list[str]]:
        """What work that saves files returns, and a sentence if some of them wait for their upload.

        What is saved is delivered, whether the work fails half-way or its caller goes away.
        """
        folders = self.folders()

        async def saved() -> tuple[_Made, list[str]]:
            try:
                made = await anyio.to_thread.run_sync(work, folders, limiter=limiter)
            except BaseException:
                await self.storage.deliver(folders.saved)
                raise
            pending = await self.storage.deliver(folders.saved)
            sentence = f"saved files are stored, upload pending: {pending}"
            return made, [sentence] if pending else []

        return await unbroken(saved())

    def _remember_prompt(self, text: str) -> None:
        path = Path(self.settings.data_dir) / "params.txt"
        try:
            replace_file(path, text.encode())
        except OSError as error:
            log.warning("%s cannot be written: %s", path, error)
