"""What a flag is."""

from dataclasses import dataclass
from enum import Enum
from typing import Any


class Kind(Enum):
    """What a flag's value looks like."""

    SWITCH = "switch"  # given or not
    TEXT = "text"
    INTEGER = "integer"
    NUMBER = "number"
    #: a relative default is below the data directory, a relative value below the launch folder
    PATH = "path"
    PATHS = "paths"  # repeatable; given values add to the default
    TEXTS = "texts"  # repeatable; given values add to the default
    WORDS = "words"  # one or more words after the flag
    JSON = "json"


REPEATABLE = frozenset({Kind.PATHS, Kind.TEXTS})


@dataclass(frozen=True, slots=True)
class Flag:
    """One flag; `help` of a flag that does not act is the reason why."""

    name: str
    kind: Kind
    default: Any
    acts: bool
    help: str
    choices: tuple[str, ...] = ()

    @property
    def dest(self) -> str:
        """The attribute name, which is also the key in `GET /sdapi/v1/cmd-flags`."""
        return self.name.lstrip("-").replace("-", "_")


def acts(name: str, kind: Kind, default: Any, help: str, choices: tuple[str, ...] = ()) -> Flag:
    """A flag that means something here."""
    return Flag(name, kind, default, True, help, choices)


def ignored(name: str, kind: Kind, default: Any, why: str) -> Flag:
    """A flag that is accepted and does nothing."""
    return Flag(name, kind, default, False, why)


def later(name: str, kind: Kind, default: Any, help: str, choices: tuple[str, ...] = ()) -> Flag:
    """A flag whose meaning is not built yet; `Settings` holds its value already."""
    return Flag(name, kind, default, False, f"not built yet ({help})", choices)
