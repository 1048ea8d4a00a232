"""The trainer of a server. What it needs is imported with its first use."""

from functools import cached_property
from typing import TYPE_CHECKING

from sdapi.portrait.base.checkpoints import BaseModels
from sdapi.portrait.handlers import Trained
from sdapi.portrait.requests import TrainRequest
from sdapi.portrait.tools import Tools
from sdapi.services.container import Services

if TYPE_CHECKING:
    from sdapi.portrait.training.trainer import PortraitTrainer


class LateTrainer:
    """Trains with this process's workers; looking at faces imports OpenCV, which takes a while."""

    def __init__(self, services: Services, tools: Tools) -> None:
        self._services = services
        self._tools = tools
        self._bases = BaseModels(services.settings, services.catalog, services.options)

    def can_train(self, request: TrainRequest) -> bool:
        return self._bases.find("xl" if request.is_xl else "sd15") is not None

    async def train(self, owner: str, model_id: str, request: TrainRequest) -> Trained:
        return await self._trainer.train(owner, model_id, request)

    @cached_property
    def _trainer(self) -> "PortraitTrainer":
        from sdapi.portrait.training.trainer import PortraitTrainer

        return PortraitTrainer(self._services, self._tools, self._bases)
