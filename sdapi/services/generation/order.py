"""A request on its way through the generation service, with what belongs to it."""

from collections.abc import Callable
from dataclasses import dataclass, fields
from typing import Any

from sdapi.options import Options
from sdapi.services.catalog.styles import Styles
from sdapi.services.generation.eas import EASFields
from sdapi.services.jobs.tasks import Task
from sdapi.services.scripts.registry import CalledScripts
from sdapi.services.scripts.script import GenerationRequest, Kind
from sdapi.services.storage.places import Place


@dataclass(frozen=True, slots=True)
class Caller:
    """Who asks, and whether they are still there."""

    user: str | None = None
    #: returns when the client has gone away; None for callers that cannot
    wait_disconnected: Callable[[], Any] | None = None
    #: told when the task is over
    webhook: str | None = None
    #: has no use for unfinished pictures: a stop of the server is an error, an interrupt told
    wants_whole: bool = False


@dataclass(frozen=True, slots=True)
class Asked:
    """What was asked for. `request` and `options` hold what `infotext` and overrides said."""

    kind: Kind
    request: GenerationRequest
    #: the server's when the request came, with the request's over them
    options: Options
    eas: EASFields
    #: `alwayson_scripts` without the EAS keys, as sent
    sent_scripts: dict[str, Any]
    scripts: CalledScripts
    styles: Styles
    #: without the request's own, for the inner generations of a script
    plain_options: Options
    #: where URL mode puts the pictures; None: the answer holds them
    place: Place | None = None
    #: a model enlarges the pictures that it brings
    needs_device_before: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Order(Asked):
    """A request that was accepted, with its task."""

    caller: Caller
    task: Task

    @property
    def tells_interrupt(self) -> bool:
        """Whether its answer warns of an interrupt: the webui's own does not."""
        return self.place is not None or self.caller.wants_whole

    @classmethod
    def of(cls, asked: Asked, caller: Caller, task: Task) -> "Order":
        return cls(
            **{each.name: getattr(asked, each.name) for each in fields(asked)},
            caller=caller,
            task=task,
        )
