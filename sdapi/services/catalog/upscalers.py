"""The upscalers there are, and which one a name means (contract: webui-api 13).

The webui lists what it could download, too; here stands what can run.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from sdapi.engine.upscaling.upscaler import Filter, ModelUpscaler, Tiles, Upscaler
from sdapi.engine.weights.model_file import ModelFile
from sdapi.errors import BadRequest, UnknownName, near_names
from sdapi.options import Options
from sdapi.settings import Settings

_SUFFIXES = {".pth", ".pt", ".safetensors", ".ckpt"}
#: what the listing says of every upscaler whose name does not tell its factor
USUAL_SCALE = 4.0
_LARGEST_TILE = 4096


@dataclass(frozen=True, slots=True)
class _Kind:
    """What the files of a folder have in common."""

    folder: str
    #: what the webui calls these models when it names none
    model_name: str | None
    #: prefix of the options for tiles
    tiles: str = "ESRGAN"
    averages: bool = False
    prefers_half: bool = False


_KINDS = (
    _Kind("ESRGAN", "ESRGAN_4x"),
    _Kind("BSRGAN", None),
    _Kind("RealESRGAN", None, prefers_half=True),
    _Kind("DAT", None, tiles="DAT", prefers_half=True),
    _Kind("HAT", None),
    _Kind("SwinIR", "SwinIR 4x", tiles="SWIN", averages=True, prefers_half=True),
    _Kind("ScuNET", "ScuNET GAN", tiles="SCUNET", averages=True),
)
_REALESRGAN_URL = "https://github.com/xinntao/Real-ESRGAN/releases/download"


@dataclass(frozen=True, slots=True)
class PublishedModel:
    """A model that the webui knows by a name of its own."""

    name: str
    url: str
    scale: float = USUAL_SCALE

    @property
    def file_name(self) -> str:
        """The name under which it is published."""
        return self.url.rsplit("/", 1)[1]


#: Real-ESRGAN's, in the webui's order.
REALESRGAN_MODELS = (
    PublishedModel("R-ESRGAN General 4xV3", f"{_REALESRGAN_URL}/v0.2.5.0/realesr-general-x4v3.pth"),
    PublishedModel(
        "R-ESRGAN General WDN 4xV3", f"{_REALESRGAN_URL}/v0.2.5.0/realesr-general-wdn-x4v3.pth"
    ),
    PublishedModel("R-ESRGAN AnimeVideo", f"{_REALESRGAN_URL}/v0.2.5.0/realesr-animevideov3.pth"),
    PublishedModel("R-ESRGAN 4x+", f"{_REALESRGAN_URL}/v0.1.0/RealESRGAN_x4plus.pth"),
    PublishedModel(
        "R-ESRGAN 4x+ Anime6B", f"{_REALESRGAN_URL}/v0.2.2.4/RealESRGAN_x4plus_anime_6B.pth"
    ),
    PublishedModel("R-ESRGAN 2x+", f"{_REALESRGAN_URL}/v0.2.1/RealESRGAN_x2plus.pth", 2.0),
)
_DAT_URL = "https://github.com/n0kovo/dat_upscaler_models/raw/main/DAT"
_KAIR_URL = "https://github.com/cszn/KAIR/releases/download/v1.0"
_PUBLISHED: Mapping[tuple[str, str], PublishedModel] = {
    (folder, model.file_name.lower()): model
    for folder, models in {
        "RealESRGAN": REALESRGAN_MODELS,
        "DAT": [PublishedModel(f"DAT x{n}", f"{_DAT_URL}/DAT_x{n}.pth", n) for n in (2, 3, 4)],
        "ScuNET": [
            PublishedModel("ScuNET GAN", f"{_KAIR_URL}/scunet_color_real_gan.pth"),
            PublishedModel("ScuNET PSNR", f"{_KAIR_URL}/scunet_color_real_psnr.pth"),
        ],
    }.items()
    for model in models
}


@dataclass(frozen=True, slots=True)
class UpscalerFile:
    """A model file under the name that clients use."""

    name: str
    path: Path
    kind: _Kind
    scale: float = USUAL_SCALE

    @property
    def model_name(self) -> str | None:
        """What listings call its model."""
        return self.kind.model_name

    @property
    def aliases(self) -> tuple[str, ...]:
        """Every name that means it."""
        return self.name, self.path.stem, self.path.name

    def upscaler(self, options: Options) -> ModelUpscaler:
        """The upscaler with the tiles that the options give it.

        Raises `BadRequest` for tiles that cannot be, `ModelUnusable` when the file is gone.
        """
        return ModelUpscaler(
            self.name,
            ModelFile.usable(self.path),
            _tiles(self.kind, options),
            prefers_half=self.kind.prefers_half,
        )


@dataclass(frozen=True, slots=True)
class Upscalers:
    """The model folders, read at every question: files come and go while the server runs."""

    settings: Settings

    def filters(self) -> tuple[str, ...]:
        """The upscalers that are no models, first in every listing."""
        return tuple(each.value for each in Filter)

    def files(self) -> list[UpscalerFile]:
        """The model files, by name without letter case."""
        found = {file.name: file for kind in _KINDS for file in self._of_kind(kind)}
        return sorted(found.values(), key=lambda file: file.name.lower())

    def find(self, name: str, options: Options) -> Upscaler:
        """The upscaler of a name; raises `UnknownName` with the near ones."""
        if name in self.filters():
            return Filter(name)
        files = self.files()
        for file in files:
            if name in file.aliases:
                return file.upscaler(options)
        names = [*self.filters(), *(file.name for file in files)]
        raise UnknownName(
            f"could not find upscaler named {name}; there are {near_names(name, names)}"
        )

    def _of_kind(self, kind: _Kind) -> Iterator[UpscalerFile]:
        folders = self.settings.auxiliary_dirs
        folder = folders.get(kind.folder, self.settings.models_dir / kind.folder)
        if not folder.is_dir():
            return
        for path in sorted(folder.rglob("*")):
            if path.suffix.lower() not in _SUFFIXES or not path.is_file():
                continue
            known = _PUBLISHED.get((kind.folder, path.name.lower()))
            if known is None:
                yield UpscalerFile(path.stem, path, kind)
            else:
                yield UpscalerFile(known.name, path, kind, known.scale)


def _tiles(kind: _Kind, options: Options) -> Tiles:
    size_key, overlap_key = f"{kind.tiles}_tile", f"{kind.tiles}_tile_overlap"
    size, overlap = options.integer(size_key), options.integer(overlap_key)
    if size > _LARGEST_TILE:
        raise BadRequest(f"{size_key}: {size} is too large; at most {_LARGEST_TILE}, 0 for none")
    if size > 0 and not 0 <= overlap <= size // 2:
        raise BadRequest(f"{overlap_key}: {overlap} does not fit tiles of {size}; 0 to {size // 2}")
    return Tiles(max(size, 0), overlap, kind.averages)
