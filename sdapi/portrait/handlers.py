"""What trains and what creates: the places that the parts for it fill.

A server without them answers `model not found`, as one on which that service is not deployed.
"""

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from PIL import Image

from sdapi.portrait import faults
from sdapi.portrait.faults import PortraitError
from sdapi.portrait.state.records import Model
from sdapi.portrait.state.store import PortraitStore
from sdapi.portrait.wire.requests import CreateRequest, TrainRequest


async def _nothing() -> None:
    """Nothing was kept."""


@dataclass(frozen=True, slots=True)
class Trained:
    """A model whose files have been published; `states` are its photos' check results."""

    about: dict[str, Any]
    states: list[dict[str, Any]] = field(default_factory=list[dict[str, Any]])
    #: lets go of what an equal request would be answered from; once the model is written down
    settle: Callable[[], Awaitable[None]] = _nothing


@dataclass(frozen=True, slots=True)
class Created:
    """A portrait, and what was done otherwise than asked."""

    image: Image.Image
    warnings: tuple[str, ...] = ()


class Trainer(Protocol):
    """Trains a person's or a scene's model."""

    async def can_train(self, *, is_xl: bool) -> bool:
        """Whether a base checkpoint for it is there."""
        ...

    async def train(self, owner: str, model_id: str, request: TrainRequest) -> Trained:
        """Publish the model's files; raises PortraitError. Cancelling it ends the work.

        Asked again before the answer is settled, it answers the same and learns nothing.
        """
        ...


class Creator(Protocol):
    """Makes portraits."""

    async def can_create(self, *, is_xl: bool) -> bool:
        """Whether a base checkpoint for it is there."""
        ...

    async def create(self, models: Sequence[Model], request: CreateRequest) -> Created:
        """The portrait of these models, face by face; raises PortraitError."""
        ...


@dataclass(frozen=True, slots=True)
class Handlers:
    """What this server can do beside checking."""

    trainer: Trainer | None = None
    creator: Creator | None = None


async def trained_models(store: PortraitStore, owner: str, request: CreateRequest) -> list[Model]:
    """The models that a creation names; raises PortraitError when one is not there."""
    if request.model_ids == ("",):
        return []
    found: list[Model] = []
    for model_id in request.model_ids:
        model = await store.model(owner, model_id)
        if model is None:
            raise PortraitError(faults.NOT_TRAINED)
        found.append(model)
    return found
