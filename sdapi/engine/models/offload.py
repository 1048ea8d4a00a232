"""Models on a small GPU: only the part at work is on the device (`--medvram`, `--lowvram`)."""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from sdapi.engine.checkpoints.checkpoint import Components

_CPU = torch.device("cpu")


class OffloadLevel(Enum):
    """How little of a checkpoint is on the device at a time."""

    NONE = "none"
    #: text encoders, UNet or VAE
    PARTS = "parts"
    #: the same, and of the UNet one block after the other
    BLOCKS = "blocks"


@dataclass(frozen=True, slots=True)
class Part:
    """Modules that come to the device together when one of `gates` is called."""

    modules: tuple[nn.Module, ...]
    gates: tuple[nn.Module, ...]


class Offload:
    """Brings a part to the device when it is called, and sends the one before it away.

    What a caller gives on another device is brought along, so callers need not know.
    """

    def __init__(self, device: torch.device, parts: Sequence[Part]) -> None:
        self._device = device
        self._current: Part | None = None
        self._handles: list[RemovableHandle] = []
        for part in parts:
            for gate in part.gates:
                self._attach(part, gate)

    def bring(self, part: Part) -> None:
        """Have this part on the device, and no other."""
        if part is self._current:
            return
        self.rest()
        for module in part.modules:
            module.to(self._device)
        self._current = part

    def rest(self) -> None:
        """Have no part on the device."""
        if self._current is not None:
            for module in self._current.modules:
                module.to(_CPU)
            self._current = None

    def detach(self) -> None:
        """Leave the modules as they were; what is on the device goes back."""
        self.rest()
        for handle in self._handles:
            handle.remove()
        self._handles.clear()

    def _attach(self, part: Part, gate: nn.Module) -> None:
        def hook(
            _: nn.Module, inputs: tuple[Any, ...], named: dict[str, Any]
        ) -> tuple[tuple[Any, ...], dict[str, Any]]:
            self.bring(part)
            return self._moved(inputs), self._moved(named)

        self._handles.append(gate.register_forward_pre_hook(hook, with_kwargs=True))

    def _moved(self, value: Any) -> Any:
        if isinstance(value, Tensor):
            return value.to(self._device)
        if isinstance(value, (tuple, list)):
            return type(value)(self._moved(each) for each in value)
        if isinstance(value, dict):
            return {key: self._moved(each) for key, each in value.items()}
        return value


def parts_of(components: Components, level: OffloadLevel) -> list[Part]:
    """A checkpoint's parts in the order a job uses them."""
    if level is OffloadLevel.NONE:
        return []
    encoders = tuple(encoder.model for encoder in components.text_encoders)
    vae = components.vae
    gates = (vae.encoder, vae.quant_conv, vae.post_quant_conv, vae.decoder)
    return [
        Part(encoders, encoders),
        *_unet_parts(components.unet, level),
        Part((vae,), tuple(gate for gate in gates if isinstance(gate, nn.Module))),
    ]


def _unet_parts(unet: nn.Module, level: OffloadLevel) -> list[Part]:
    if level is OffloadLevel.PARTS:
        return [Part((unet,), (unet,))]
    blocks: list[nn.Module] = []
    for child in unet.children():
        blocks += child.children() if isinstance(child, nn.ModuleList) else [child]
    return [Part((block,), (block,)) for block in blocks]


def level_for(*, medvram: bool, medvram_sdxl: bool, lowvram: bool, is_sdxl: bool) -> OffloadLevel:
    """What the flags ask for a checkpoint of this family."""
    if lowvram:
        return OffloadLevel.BLOCKS
    return OffloadLevel.PARTS if medvram or (medvram_sdxl and is_sdxl) else OffloadLevel.NONE
