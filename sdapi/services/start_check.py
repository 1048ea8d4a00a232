"""What flags say of models, looked at before a server listens: a wrong one is its operator's."""

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Final

from sdapi.errors import UnknownName
from sdapi.services.catalog.model_files.weight_file import problem_of, vae_problem_of
from sdapi.settings import Settings
from sdapi.settings.settings import AUXILIARY_FOLDERS

if TYPE_CHECKING:
    from sdapi.services.catalog.catalog import Catalog

_PORTRAIT_FLAGS: Final = (
    "portrait_checkpoint",
    "portrait_checkpoint_xl",
    "portrait_checkpoint_anime",
)
_FOLDER_FLAGS: Final = (
    *("models_dir", "ckpt_dir", "vae_dir", "lora_dir", "lyco_dir_backcompat"),
    *("embeddings_dir", "hypernetwork_dir", "controlnet_dir", "controlnet_annotator_models_path"),
    *AUXILIARY_FOLDERS.values(),
)


def start_problem(settings: Settings) -> str | None:
    """Why the server cannot start: a flag names a model that is not there or not whole."""
    if settings.role == "api":  # draws nothing
        return None
    vae = settings.vae_path
    if vae is not None and (reason := vae_problem_of(vae)):
        return f"--vae-path {vae}: {reason}"
    flags = ("ckpt", *(_PORTRAIT_FLAGS if _draws_portraits(settings) else ()))
    names = [(dest, name) for dest in flags if (name := getattr(settings, dest))]
    if not names:
        return None
    # Here, so that a start without such flags comes to its port without them.
    from sdapi.services.catalog.catalog import Catalog
    from sdapi.services.catalog.model_files.hashes import HashCache

    catalog = Catalog(settings, HashCache(settings.data_dir))
    problems = (_checkpoint_problem(settings, catalog, dest, name) for dest, name in names)
    return next((each for each in problems if each), None)


def start_warnings(settings: Settings) -> Iterator[str]:
    """A sentence for each folder of models that a flag names and that is not there."""
    for dest in _FOLDER_FLAGS:
        path = settings.flag_values.get(dest)
        if path and not Path(path).is_dir():
            yield f"{_flag(dest)} {path}: there is no such folder"


def _draws_portraits(settings: Settings) -> bool:
    """Whether portraits are surely drawn by this server, not by one that has other models.

    A service file may name another server in its variables.
    """
    return settings.portrait and not settings.portrait_url and not settings.service_files


def _checkpoint_problem(settings: Settings, catalog: "Catalog", dest: str, name: str) -> str | None:
    path = settings.below_data(name)
    if dest != "ckpt" or not path.is_file():
        # Only `--ckpt` may lie outside the folders; it, too, may be a name among theirs.
        try:
            path = catalog.closest_checkpoint(Path(name).name if dest == "ckpt" else name).path
        except UnknownName as error:
            return f"{_flag(dest)} {name}: {error.detail}"
    reason = problem_of(path)
    return f"{_flag(dest)} {name}: {path} cannot be used: {reason}" if reason else None


def _flag(dest: str) -> str:
    return "--" + dest.replace("_", "-")
