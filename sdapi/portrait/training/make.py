"""The trainer of a server. What it needs is imported with its first use."""

from importlib import import_module
from typing import TYPE_CHECKING

import anyio.to_thread

from sdapi.portrait.base.checkpoints import BaseModels
from sdapi.portrait.handlers import Trained
from sdapi.portrait.tools import Tools
from sdapi.portrait.wire.requests import TrainRequest
from sdapi.services.container import Services

if TYPE_CHECKING:
    from sdapi.portrait.training.trainer import PortraitTrainer


class LateTrainer:
    """Trains with this process's workers; looking at faces imports OpenCV, which takes a while."""

    def __init__(self, services: Services, tools: Tools) -> None:
        self._services = services
        self._tools = tools
        self._bases = BaseModels(services.settings, services.catalog, services.options)
        self._made: PortraitTrainer | None = None

    async def can_train(self, *, is_xl: bool) -> bool:
        kind = "xl" if is_xl else "sd15"
        return await anyio.to_thread.run_sync(self._bases.find, kind) is not None

    async def train(self, owner: str, model_id: str, request: TrainRequest) -> Trained:
        await anyio.to_thread.run_sync(import_module, "sdapi.portrait.training.trainer")
        return await self._trainer.train(owner, model_id, request)

    @property
    def _trainer(self) -> "PortraitTrainer":
        if self._made is None:
            from sdapi.portrait.training.trainer import PortraitTrainer

            self._made = PortraitTrainer(self._services, self._tools, self._bases)
        return self._made
