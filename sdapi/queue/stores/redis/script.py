"""The store's Lua script, joined from its parts."""

from pathlib import Path

#: each builds on those before it
_PARTS = (
    *("common", "items", "consumers", "order", "reading"),
    *("clearing", "handing_out", "getting_back", "nodes", "answer"),
)
_FOLDER = Path(__file__).parent / "lua"


def script() -> str:
    """The text that Redis is given, once, and knows by its hash from then on."""
    return "\n".join((_FOLDER / f"{part}.lua").read_text(encoding="utf-8") for part in _PARTS)
