"""Which checkpoint serves which kind of portrait."""

import json
import logging
import threading
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, cast

from sdapi.engine.weights.model_file import ModelFile
from sdapi.errors import SDAPIError
from sdapi.portrait.base.native_size import native_side
from sdapi.portrait.base.words import Words
from sdapi.portrait.state.records import Base
from sdapi.services.catalog.catalog import Catalog, Checkpoint
from sdapi.services.catalog.model_files.safetensors_header import read_header
from sdapi.services.options.server_options import ServerOptions
from sdapi.settings import Settings

#: only SDXL has a second text encoder under this name
_XL_PREFIX: Final = "conditioner.embedders.1."
#: SD 1's text encoder
_SD1_PREFIX: Final = "cond_stage_model.transformer."
_FIRST_LAYER: Final = "model.diffusion_model.input_blocks.0.0.weight"
_LATENT_CHANNELS: Final = 4
#: of SD 2's texts; SD 1 has 768
_SD2_WIDTH: Final = 1024
_INPAINTING: Final = "inpaint"
#: of the numbers that a metadata file may say
_LARGEST: Final = 1000
log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class BaseModel:
    """A checkpoint for portraits."""

    checkpoint: Checkpoint
    kind: Base
    #: of a square picture, pixels
    native_side: int
    words: Words
    #: of drawings, where it says what suits it; None for what is usual
    cfg_scale: float | None = None
    #: of LoRA trainings, likewise
    learning_rate: float | None = None
    #: LoRAs change convolutions too
    trains_convolutions: bool = False
    #: templates drawn from text are squares of its native size
    has_square_templates: bool = False


class BaseModels:
    """Finds them by the settings, else among what is there."""

    def __init__(self, settings: Settings, catalog: Catalog, options: ServerOptions) -> None:
        self._settings = settings
        self._catalog = catalog
        self._options = options
        #: guards the two below
        self._lock = threading.Lock()
        #: what a look into each file told, and the file as it was
        self._kinds: dict[Path, tuple[ModelFile, Base | None]] = {}
        #: by the name of what was looked for and the kind: what the log has of it
        self._told: dict[tuple[str, Base], str] = {}

    def find(self, kind: Base) -> BaseModel | None:
        """The one for a kind: the setting's, else the server's own, else the first that fits."""
        named = {
            "sd15": self._settings.portrait_checkpoint,
            "xl": self._settings.portrait_checkpoint_xl,
        }[kind]
        if named:
            return self._named(named, kind)
        candidates = self._candidates()
        self._forget_unlisted(candidates)
        for checkpoint in candidates:
            if self.kind_of(checkpoint) == kind:
                return self._made(checkpoint, kind)
        return None

    def anime(self) -> BaseModel | None:
        """The one for illustrations; None unless a setting names it."""
        named = self._settings.portrait_checkpoint_anime
        return self._named(named, "sd15") if named else None

    def kind_of(self, checkpoint: Checkpoint) -> Base | None:
        """Which portraits a checkpoint can draw; None for SD 2, for inpainting and the like.

        Reads a file's header, once; files without one are told apart by their names.
        """
        try:
            file = ModelFile.of(checkpoint.path, checkpoint.sidecar)
        except OSError:
            return None
        with self._lock:
            seen, kind = self._kinds.get(file.path, (None, None))
            if seen != file:
                kind = _kind(file.path)
                self._kinds[file.path] = file, kind
            return kind

    def _forget_unlisted(self, listed: Iterable[Checkpoint]) -> None:
        paths = {checkpoint.path for checkpoint in listed}
        with self._lock:
            self._kinds = {path: told for path, told in self._kinds.items() if path in paths}

    def _candidates(self) -> list[Checkpoint]:
        try:
            configured = self._options.current.text("sd_model_checkpoint")
            first = self._catalog.default_checkpoint(configured)
        except SDAPIError:
            return []
        return [first, *self._catalog.checkpoints]

    def _named(self, name: str, kind: Base) -> BaseModel | None:
        try:
            checkpoint = self._catalog.closest_checkpoint(name)
        except SDAPIError as error:
            self._tell(name, kind, f"no portraits of {kind}: {error}")
            return None
        if self.kind_of(checkpoint) != kind:
            why = f"{name} is a checkpoint of another kind"
            self._tell(name, kind, f"no portraits of {kind}: {why}")
            return None
        with self._lock:
            self._told.pop((name, kind), None)
        return self._made(checkpoint, kind)

    def _tell(self, name: str, kind: Base, why: str) -> None:
        """Warn of what a name stands for, once: it is looked for at every request."""
        with self._lock:
            if self._told.get((name, kind)) == why:
                return
            self._told[name, kind] = why
        log.warning("%s", why)

    def _made(self, checkpoint: Checkpoint, kind: Base) -> BaseModel:
        own = _own(checkpoint.path)
        side = self._settings.portrait_native_size or native_side(own, checkpoint.sidecar, kind)
        return BaseModel(
            checkpoint,
            kind,
            side,
            Words.read(own),
            self._positive(checkpoint, kind, own, "cfg_scale"),
            self._positive(checkpoint, kind, own, "learning_rate"),
            self._flag(checkpoint, kind, own, "train_convolutions"),
            self._flag(checkpoint, kind, own, "square_templates"),
        )

    def _positive(
        self, checkpoint: Checkpoint, kind: Base, own: Mapping[str, Any], name: str
    ) -> float | None:
        """A number above 0; None, with a warning, for anything else that is there."""
        if (value := own.get(name)) is None:
            return None
        is_number = isinstance(value, int | float) and not isinstance(value, bool)
        if is_number and 0 < value <= _LARGEST:
            return float(value)
        wanted = f"a number above 0 and at most {_LARGEST}, not {value!r:.80}: the usual one acts"
        self._tell_unfit(checkpoint, kind, name, wanted)
        return None

    def _flag(self, checkpoint: Checkpoint, kind: Base, own: Mapping[str, Any], name: str) -> bool:
        """Whether it says true; a warning for what is neither true nor false."""
        value = own.get(name)
        if value is not None and not isinstance(value, bool):
            wanted = f"true or false, not {value!r:.80}: false acts"
            self._tell_unfit(checkpoint, kind, name, wanted)
        return value is True

    def _tell_unfit(self, checkpoint: Checkpoint, kind: Base, name: str, wanted: str) -> None:
        why = f"portrait.{name} of {checkpoint.name}'s metadata file must be {wanted}"
        self._tell(f"{checkpoint.name} {name}", kind, why)


def _kind(path: Path) -> Base | None:
    if path.is_dir():
        return _kind_of_folder(path)
    if path.suffix.lower() != ".safetensors":
        name = path.stem.lower()
        return None if _INPAINTING in name else "xl" if "xl" in name else "sd15"
    header = read_header(path)
    first = cast("dict[str, Any]", header.get(_FIRST_LAYER) or {}).get("shape", ())
    if len(first) == 4 and first[1] != _LATENT_CHANNELS:
        return None  # inpainting and editing take more than a picture
    if any(key.startswith(_XL_PREFIX) for key in header):
        return "xl"
    # SD 2 and SDXL's refiner have a text encoder of their own layout alone.
    return "sd15" if any(key.startswith(_SD1_PREFIX) for key in header) else None


def _kind_of_folder(path: Path) -> Base | None:
    try:
        unet = json.loads((path / "unet" / "config.json").read_text(encoding="utf-8"))
        channels, width = unet.get("in_channels"), unet.get("cross_attention_dim")
    except (OSError, ValueError, AttributeError):
        return None
    if channels != _LATENT_CHANNELS:
        return None
    if (path / "text_encoder_2").is_dir():
        return "xl" if (path / "text_encoder").is_dir() else None
    return None if width == _SD2_WIDTH else "sd15"


def _own(path: Path) -> Mapping[str, Any]:
    """The `portrait` object of the checkpoint's metadata file; empty without one."""
    try:
        content = json.loads(path.with_suffix(".json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    own = cast("dict[str, object]", content).get("portrait") if isinstance(content, dict) else None
    return cast("dict[str, Any]", own) if isinstance(own, dict) else {}
