"""What becomes of a job's pictures: files under the output folders, and the encoded answer."""

import datetime
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from pathlib import Path

from PIL import Image

from sdapi import images as codecs
from sdapi.engine.job import BEFORE_HIRES, Result
from sdapi.options import Options
from sdapi.security import resolve_save_dir
from sdapi.services.generation import url_mode
from sdapi.services.generation.filenames import NameContext, decoration, output_directory
from sdapi.services.generation.generation_info import GenerationInfo
from sdapi.services.generation.image_files import FileName, ImageFiles
from sdapi.services.scripts.script import ScriptFile
from sdapi.settings import Settings


@dataclass(frozen=True, slots=True)
class Pictures:
    """A job's pictures with their infotexts, the grid first where there is one."""

    grid: Image.Image | None
    images: tuple[Image.Image, ...]
    #: index of each image among the job's prompts and seeds
    indices: tuple[int, ...]
    #: pictures of the first pass of hires fix, to be saved, by the same indices
    before_hires: Mapping[int, Image.Image] = field(default_factory=dict[int, Image.Image])


def with_grid(result: Result, options: Options, batch_size: int, *, wanted: bool) -> Pictures:
    """The pictures of a result, with a grid of them when wanted."""
    images = tuple(each.image for each in result.images)
    grid = None
    if wanted and images:
        rows = codecs.grid_rows(len(images), options, batch_size)
        grid = codecs.make_grid(images, rows, background=options.text("grid_background_color"))
    before = {
        each.index: each.variants[BEFORE_HIRES]
        for each in result.images
        if BEFORE_HIRES in each.variants
    }
    return Pictures(grid, images, tuple(each.index for each in result.images), before)


def wants_grid(count: int, options: Options, *, saves: bool) -> bool:
    """Whether a webui answer or its folder gets a grid (contract: webui-api 7.1)."""
    if not saves or not (options.flag("return_grid") or options.flag("grid_save")):
        return False
    return count > 1 or not options.flag("grid_only_if_multiple")


@dataclass(frozen=True, slots=True)
class OutputFolders:
    """Writes pictures where the options say, under running numbers."""

    settings: Settings
    files: ImageFiles

    def check(self, kind: str, options: Options) -> None:
        """Refuse folders outside the allowed roots before anything is drawn."""
        for name in ("samples", "grids"):
            self._folder(options, f"outdir_{kind}_{name}")

    def save(self, kind: str, pictures: Pictures, info: GenerationInfo) -> list[Path]:
        """Write grid and images of a job; returns their paths.

        Raises `PathNotAllowed` for a folder outside the allowed roots, `StorageFailed`.
        """
        options, written = info.options, list[Path]()
        if options.flag("samples_save"):
            folder = self._folder(options, f"outdir_{kind}_samples")
            for index, image, suffix in _in_order_of_writing(pictures, info.job.batch_size):
                context = name_context(info, index)
                directory = output_directory(folder, context, options, is_grid=False)
                name = FileName(decoration(context, options), suffix=suffix)
                written.append(self._write(image, directory, name, "samples_format", info, index))
        if pictures.grid is not None and options.flag("grid_save"):
            context = name_context(info, 0)
            folder = self._folder(options, f"outdir_{kind}_grids")
            directory = output_directory(folder, context, options, is_grid=True)
            name = FileName(decoration(context, options, is_grid=True), prefix="grid")
            written.append(self._write(pictures.grid, directory, name, "grid_format", info, 0))
        return written

    def save_script_file(self, kind: str, file: ScriptFile, info: GenerationInfo) -> Path:
        """Write a picture that a script made; as `save` otherwise."""
        options, context = info.options, name_context(info, 0)
        folder = self._folder(options, f"outdir_{kind}_{'grids' if file.is_grid else 'samples'}")
        directory = output_directory(folder, context, options, is_grid=file.is_grid)
        named = decoration(context, options, is_grid=file.is_grid)
        name = FileName(named, prefix=file.prefix) if file.prefix else FileName(named)
        fmt = options.text("grid_format" if file.is_grid else "samples_format")
        return self.files.save(file.image, directory, name, fmt, file.infotext, options)

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
        return self.files.save(image, directory, name, fmt, info.infotext(index), info.options)


def _in_order_of_writing(
    pictures: Pictures, batch_size: int
) -> Iterator[tuple[int, Image.Image, str]]:
    """The pictures of a job with their indices and file suffixes; of each batch its first pass's
    come before all others.
    """
    numbered = zip(pictures.indices, pictures.images, strict=True)
    for _, batch in groupby(numbered, key=lambda pair: pair[0] // batch_size):
        members = list(batch)
        for index, _ in members:
            if index in pictures.before_hires:
                yield index, pictures.before_hires[index], f"-{BEFORE_HIRES}"
        for index, image in members:
            yield index, image, ""


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


def encode_answer(
    pictures: Pictures, info: GenerationInfo, options: Options, *, grid: bool
) -> list[str]:
    """The pictures in base64, encoded as the server's own options say; texts as the job's do."""
    options = options.overlay({"enable_pnginfo": info.options.flag("enable_pnginfo")})
    fmt = options.text("samples_format") or "png"
    texts = [info.infotext(index) for index in pictures.indices]
    encoded = [
        codecs.encode(image, fmt, text, options)
        for image, text in zip(pictures.images, texts, strict=True)
    ]
    if grid and pictures.grid is not None:
        encoded.insert(0, codecs.encode(pictures.grid, fmt, info.infotext(0), options))
    return [codecs.to_base64(data) for data in encoded]


def save_for_urls(
    kind: str, save_dir: url_mode.SaveDir, pictures: Pictures, info: GenerationInfo
) -> list[str]:
    """Write a job's pictures for URL mode; returns their paths, grid first."""
    named: list[url_mode.NamedImage] = []
    if pictures.grid is not None:
        named.append(
            url_mode.NamedImage(
                f"{kind}-grids", url_mode.grid_stem(), pictures.grid, info.infotext(0)
            )
        )
    for index, image in zip(pictures.indices, pictures.images, strict=True):
        stem = url_mode.image_stem(info.job.seeds[index])
        named.append(url_mode.NamedImage(f"{kind}-images", stem, image, info.infotext(index)))
    return url_mode.write_all(save_dir, named)


def seeds_of(pictures: Pictures, info: GenerationInfo) -> Sequence[int]:
    """The seeds of the pictures there are."""
    return [info.job.seeds[index] for index in pictures.indices]
