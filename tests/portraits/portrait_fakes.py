"""Stand-ins for what draws portraits and for the processes that look at faces."""

import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import anyio.to_thread
import numpy as np

from sdapi.portrait.creation.drawing.passes import Drawn, Pass
from sdapi.portrait.creation.drawing.webui import DrawingFailed, Inventory
from sdapi.portrait.faces.face import Face, FaceError, Pixels
from sdapi.portrait.faces.processes import FaceTaskFailed
from sdapi.portrait.faces.providers import Choices, Providers


@dataclass
class FacesHere:
    """Runs face tasks in a thread of this process, with the built-in providers or others."""

    providers: Any = field(default_factory=lambda: Providers(Choices.make(Path("/nowhere"), {})))
    #: names of tasks that fail, and the calls of each so far
    failing: set[str] = field(default_factory=set[str])
    calls: list[str] = field(default_factory=list[str])
    #: what each of them was given
    given: list[tuple[Any, ...]] = field(default_factory=list[tuple[Any, ...]])
    #: what tasks answer without being run, by name, or by name and number of the call
    answers: dict[str, Any] = field(default_factory=dict[str, Any])
    #: a process does one task after the other, which dlib's detectors rely on
    turn: threading.Lock = field(default_factory=threading.Lock)

    async def run(self, task: Callable[..., Any], *arguments: Any) -> Any:
        name = task.__name__
        self.calls.append(name)
        self.given.append(arguments)
        count = self.calls.count(name)
        if name in self.failing or f"{name} {count}" in self.failing:
            raise FaceTaskFailed(f"{name} was told to fail")
        for known in (name, f"{name} {count}"):
            if known in self.answers:
                return self.answers[known]

        def do() -> Any:
            with self.turn:
                return task(self.providers, *arguments)

        try:
            return await anyio.to_thread.run_sync(do)
        except Exception as error:
            raise FaceTaskFailed(str(error)) from error

    def close(self) -> None:
        """Nothing to end."""


@dataclass
class FakeDrawer:
    """Gives every pass its own picture back, a little darker where it is to be drawn."""

    models: Inventory = field(default_factory=lambda: Inventory(style_loras=frozenset()))
    #: of people, by the names that prompts have for them
    loras: frozenset[str] = frozenset({"ann", "bob", "large", "street"})
    #: numbers of passes that fail, from 1
    failing: set[int] = field(default_factory=set[int])
    passes: list[Pass] = field(default_factory=list[Pass])
    improved: list[Mapping[str, Any]] = field(default_factory=list[Mapping[str, Any]])
    #: what it tells of every pass
    warnings: tuple[str, ...] = ()
    #: what passes without a picture draw
    invents: Callable[[Pass], Pixels] | None = None

    async def draw(self, asked: Pass) -> Drawn:
        self.passes.append(asked)
        if len(self.passes) in self.failing:
            raise DrawingFailed("told to fail")
        if asked.rgb is None:
            assert self.invents is not None
            return Drawn(self.invents(asked), self.warnings)
        weight = np.ones(asked.rgb.shape[:2]) if asked.mask is None else asked.mask
        darker = asked.rgb * (1.0 - 0.08 * asked.strength * (weight > 0.5))[..., None]
        return Drawn((darker + 0.5).astype(np.uint8), self.warnings)

    async def improve(self, rgb: Pixels, fields: Mapping[str, Any]) -> Pixels:
        self.improved.append(fields)
        factor = fields.get("upscaling_resize", 1)
        return np.repeat(np.repeat(rgb, int(factor), axis=0), int(factor), axis=1)

    async def lora(self, name: str, file: Path) -> str | None:
        return name if name in self.loras else None

    async def inventory(self) -> Inventory:
        return self.models


class NoSwapper:
    """A swapper that finds nothing to swap."""

    def swap(self, target: Pixels, target_face: Face, source: Pixels, source_face: Face) -> Pixels:
        raise FaceError("no face")
