"""The folders that options name for pictures, and the files that a request puts there."""

import datetime
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from PIL import Image

from sdapi import images as codecs
from sdapi.options import Options
from sdapi.security import resolve_save_dir
from sdapi.services.generation.pictures.gathered import Pictures
from sdapi.services.generation.pictures.img2img import pixel_hash
from sdapi.services.generation.pictures.variants import saved
from sdapi.services.generation.saving.filenames import NameContext, decoration, output_directory
from sdapi.services.generation.saving.image_files import FileName, ImageFiles
from sdapi.services.generation.telling.generation_info import GenerationInfo
from sdapi.services.scripts.script import GRID_PREFIX, ScriptFile
from sdapi.services.storage.local_disk import write_whole
from sdapi.services.storage.storage import SavedFile, Storage
from sdapi.settings import Settings

_PNG_MODES = ("1", "L", "LA", "P", "RGB", "RGBA", "I", "I;16")


@dataclass(frozen=True, slots=True)
class OutputFolders:
    """Writes a request's pictures where the options say, under running numbers."""

    settings: Settings
    files: ImageFiles
    storage: Storage
    #: every file that was written, for whoever uploads them
    saved: list[SavedFile] = field(default_factory=list[SavedFile])

    def check(self, kind: str, options: Options) -> None:
        """Refuse what could not be written before anything is drawn: folders outside the allowed
        roots, and those whose object store is far behind."""
        self._check(options, *(f"outdir_{kind}_{name}" for name in ("samples", "grids")))

    def check_init_images(self, options: Options) -> None:
        """Likewise for the folder of init images, where they are saved."""
        if options.flag("save_init_img"):
            self._check(options, "outdir_init_images")

    def _check(self, options: Options, *keys: str) -> None:
        """Raises `PathNotAllowed`, or `OutboxFull` where a folder's store is far behind."""
        self.storage.check_room([self._folder(options, key) for key in keys])

    def save_init_images(self, images: Sequence[Image.Image], options: Options) -> None:
        """Write init images under the hash of their pixels, with the text they came with."""
        if not images:
            return
        folder = self._folder(options, "outdir_init_images")
        for image in images:
            path = folder / f"{pixel_hash(image)}.png"
            if not path.exists():
                text = image.info.get("parameters")
                writable = image if image.mode in _PNG_MODES else image.convert("RGB")
                data = codecs.encode_file(
                    writable, "png", text if isinstance(text, str) else None, options
                )
                write_whole(path, data)
                # Named by its content: the same name is the same picture.
                self.saved.append(SavedFile(path, replaces=True))

    def save(
        self, kind: str, pictures: Pictures, info: GenerationInfo, *, samples: bool = True
    ) -> list[Path]:
        """Write grid and, if wanted, images of a job; returns their paths.

        Raises `PathNotAllowed` for a folder outside the allowed roots, `StorageFailed`.
        """
        options, written = info.options, list[Path]()
        if samples and options.flag("samples_save"):
            folder = self._folder(options, f"outdir_{kind}_samples")
            for each in saved(pictures.images, info.job.batch_size, options):
                index, image = each.index, each.image
                context = name_context(info, index)
                directory = output_directory(folder, context, options, is_grid=False)
                name = FileName(
                    decoration(context, options), suffix=each.suffix and f"-{each.suffix}"
                )
                written.append(self._write(image, directory, name, "samples_format", info, index))
        if pictures.grid is not None and options.flag("grid_save"):
            context = name_context(info, 0)
            folder = self._folder(options, f"outdir_{kind}_grids")
            directory = output_directory(folder, context, options, is_grid=True)
            name = FileName(decoration(context, options, is_grid=True), prefix=GRID_PREFIX)
            written.append(self._write(pictures.grid, directory, name, "grid_format", info, 0))
        return written

    def save_script_file(self, kind: str, file: ScriptFile, info: GenerationInfo) -> Path:
        """Write a picture that a script made; as `save` otherwise."""
        info = file.info or info
        options, context = info.options, name_context(info, 0)
        folder = self._folder(options, f"outdir_{kind}_{'grids' if file.is_grid else 'samples'}")
        directory = output_directory(folder, context, options, is_grid=file.is_grid)
        # Only plain grids have the short names of grids.
        named = decoration(context, options, is_grid=file.prefix == GRID_PREFIX)
        name = FileName(named, prefix=file.prefix) if file.prefix else FileName(named)
        fmt = options.text("grid_format" if file.is_grid else "samples_format")
        return self.files.save(
            file.image, directory, name, fmt, file.infotext, options, self.saved.append
        )

    def _folder(self, options: Options, key: str) -> Path:
        return resolve_save_dir(options.text(key), self.settings, field=key)

    def _write(
        self,
        image: Image.Image,
        directory: Path,
        name: FileName,
        format_option: str,
        info: GenerationInfo,
        index: int,
    ) -> Path:
        fmt = info.options.text(format_option)
        return self.files.save(
            image, directory, name, fmt, info.infotext(index), info.options, self.saved.append
        )


def name_context(info: GenerationInfo, index: int) -> NameContext:
    """What file names may tell of picture `index`."""
    job = info.job
    return NameContext(
        prompt=job.prompts[index],
        negative_prompt=job.negative_prompts[index],
        seed=job.seeds[index],
        seeds=job.seeds,
        steps=job.steps,
        cfg_scale=job.cfg_scale,
        width=job.width,
        height=job.height,
        styles=info.styles,
        style_prompts=info.style_prompts,
        sampler=job.sampler.name,
        scheduler=job.scheduler,
        model_name=info.checkpoint.name_for_extra,
        model_hash=info.checkpoint.shorthash or "",
        vae_filename=info.vae.name if info.vae else None,
        clip_skip=job.options.clip_skip,
        denoising_strength=job.init.denoising_strength if job.init else None,
        batch_size=job.batch_size,
        n_iter=job.n_iter,
        iteration=index // job.batch_size,
        batch_index=index % job.batch_size,
        user=info.user,
        job_timestamp=info.job_timestamp,
        now=datetime.datetime.now(),
    )
