"""Which files `GET /file=…` may show (contract: webui-api 16)."""

from pathlib import Path

from sdapi.errors import Missing, PathNotAllowed
from sdapi.settings import Settings

#: kinds of files that generation makes; a database or a key in the same folder is nobody's business
_SHOWN = frozenset({".png", ".jpg", ".jpeg", ".webp", ".avif", ".gif", ".txt", ".mp4", ".webm"})


def find_page_file(path: str, settings: Settings) -> Path:
    """The file a page asks for, below a folder that requests may name.

    Raises `PathNotAllowed` for a folder, a hidden file, what the server keeps for itself and
    everything outside, `Missing` for what is not there.
    """
    refusal = PathNotAllowed(f"File not allowed: {path[:500]}.")
    try:
        found = settings.data_dir.joinpath(path).resolve()
        roots = [root.resolve() for root in settings.allowed_roots]
    except (OSError, RuntimeError, ValueError):
        raise refusal from None
    above = [root for root in roots if found.is_relative_to(root)]
    if not above or _is_private(found, above, settings) or found.is_dir():
        raise refusal
    if not found.is_file():
        raise Missing(f"File not found: {path[:500]}.")
    return found


def _is_private(found: Path, roots: list[Path], settings: Settings) -> bool:
    if any(found.is_relative_to(place.resolve()) for place in settings.own_places):
        return True
    if found.suffix.lower() not in _SHOWN:
        return True
    return all(
        any(part.startswith(".") for part in found.relative_to(root).parts) for root in roots
    )
