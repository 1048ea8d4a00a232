"""Small networks of a fixed layout, each in a file of its own."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Generic, TypeVar

import torch
from torch import nn

from sdapi.engine.weights.assigning import assign
from sdapi.engine.weights.model_file import ModelFile
from sdapi.engine.weights.state_dict import StateDict, read_state_dict
from sdapi.engine.weights.tensor_bytes import module_bytes
from sdapi.errors import ModelUnusable

N = TypeVar("N", bound=nn.Module)
#: how training on several devices saves names
_PARALLEL = "module."
_COUNTER = "num_batches_tracked"


@dataclass(slots=True)
class LoadedSmallNetwork(Generic[N]):
    """A network in memory."""

    module: N

    @property
    def size_bytes(self) -> int:
        return module_bytes(self.module)

    def move(self, device: torch.device) -> None:
        self.module.to(device)


def load_network(file: ModelFile, build: Callable[[], N]) -> LoadedSmallNetwork[N]:
    """Fill a network with the weights of a file, float32; raises `ModelUnusable` naming it."""
    weights = {k.removeprefix(_PARALLEL): v for k, v in read_state_dict(file.path).items()}
    module = build()
    try:
        assign(module, _with_counters(weights, module), file.path.name, torch.float32)
    except ModelUnusable as error:
        raise ModelUnusable(f"{error}; it holds something else than its name says") from error
    return LoadedSmallNetwork(module)


def _with_counters(weights: StateDict, module: nn.Module) -> StateDict:
    """Old files lack the counters of batch norms, which only training reads."""
    counters = {k: v for k, v in module.state_dict().items() if k.endswith(_COUNTER)}
    return counters | weights
