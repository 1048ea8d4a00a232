"""What portraits are drawn with: this server's checkpoints, or another server's by name."""

from dataclasses import dataclass
from typing import Final, Protocol

from sdapi.portrait.base.checkpoints import BaseModel, BaseModels
from sdapi.portrait.base.native_size import USUAL
from sdapi.portrait.base.words import Words
from sdapi.portrait.state.records import Base

#: the side for which the contract says all sizes in pixels
_SAID_FOR: Final = 512


@dataclass(frozen=True, slots=True)
class Target:
    """What portraits are drawn with."""

    kind: Base
    #: side of the square that it draws best, pixels
    native: int
    #: None: whichever the drawing server uses
    checkpoint: str | None = None
    #: the CFG scale that suits it, where it says so
    cfg_scale: float | None = None
    #: templates drawn from text are squares of the native size
    has_square_templates: bool = False

    @property
    def scale(self) -> float:
        """What every constant in pixels is multiplied with, SDXL's too: they are said for 512.

        Contract: portrait-pipeline 3.2.
        """
        return self.native / _SAID_FOR


class Targets(Protocol):
    """Finds targets and what is said to them."""

    def find(self, kind: Base) -> tuple[Target, Words] | None:
        """The one of a kind; None where there is none."""
        ...

    def anime(self) -> tuple[Target, Words] | None:
        """The one for illustrations."""
        ...


class Bases:
    """Those of this server."""

    def __init__(self, models: BaseModels) -> None:
        self._models = models

    def find(self, kind: Base) -> tuple[Target, Words] | None:
        return _target(self._models.find(kind))

    def anime(self) -> tuple[Target, Words] | None:
        return _target(self._models.anime())


@dataclass(frozen=True, slots=True)
class RemoteBases:
    """Another server's checkpoints by the names that the settings have for them."""

    checkpoint: str | None
    checkpoint_xl: str | None
    checkpoint_anime: str | None
    native: int

    def find(self, kind: Base) -> tuple[Target, Words] | None:
        """Without a name the other server's own checkpoint draws, taken for SD 1."""
        if kind == "xl":
            return None if not self.checkpoint_xl else self._named("xl", self.checkpoint_xl)
        return self._named("sd15", self.checkpoint)

    def anime(self) -> tuple[Target, Words] | None:
        return None if not self.checkpoint_anime else self._named("sd15", self.checkpoint_anime)

    def _named(self, kind: Base, name: str | None) -> tuple[Target, Words]:
        native = self.native or USUAL[kind]
        return Target(kind, native, name), Words.read({})


def _target(base: BaseModel | None) -> tuple[Target, Words] | None:
    if base is None:
        return None
    target = Target(
        base.kind,
        base.native_side,
        base.checkpoint.name,
        base.cfg_scale,
        base.has_square_templates,
    )
    return target, base.words
