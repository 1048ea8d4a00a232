"""Merging networks into a checkpoint's weights in place, and taking them out again, bit for bit."""

from collections import Counter, defaultdict
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor

from sdapi.engine.checkpoints.checkpoint import Components
from sdapi.engine.networks.kinds import change_of
from sdapi.engine.networks.layer import NetworkLayer, finished
from sdapi.engine.networks.layer_index import Target, layer_index
from sdapi.engine.networks.network_file import LoadedNetwork
from sdapi.engine.networks.selection import LoraUse
from sdapi.engine.weights.tensor_bytes import bytes_of


@dataclass(frozen=True, slots=True)
class MergeReport:
    """How a merge went."""

    #: by name: layers of this checkpoint that the network has
    matched: Counter[str]
    #: by name: those that could not be merged
    misfits: Counter[str]


@dataclass(frozen=True, slots=True)
class _Step:
    """One network's part in one layer."""

    use: LoraUse
    layer: NetworkLayer
    multiplier: float


@dataclass(frozen=True, slots=True)
class _Original:
    """What a layer was before, on the CPU; a layer without a bias may have got one."""

    weight: Tensor
    bias: Tensor | None


class MergedWeights:
    """The weights of one loaded checkpoint, with what it takes to have the originals back.

    Merging costs nothing while drawing. Originals are kept of changed layers only, on the CPU, and
    always restored from there: a delta that is subtracted would leave rounding errors.
    """

    def __init__(self, components: Components) -> None:
        self._components = components
        self._index: dict[str, Target] | None = None
        self._originals: dict[str, tuple[Target, _Original]] = {}

    @property
    def size_bytes(self) -> int:
        """Bytes of the originals that are kept."""
        kept = (t for _, saved in self._originals.values() for t in (saved.weight, saved.bias))
        return bytes_of(tensor for tensor in kept if tensor is not None)

    def restore(self) -> None:
        """Make every weight what the checkpoint's file has."""
        for name in list(self._originals):
            self._restore_layer(name)

    @contextmanager
    def lifted(self) -> Generator[None]:
        """Every weight as the checkpoint's file has it while the block runs, then merged again."""
        merged: list[tuple[torch.nn.Module, Tensor, Tensor | None]] = []
        try:
            for target, original in self._originals.values():
                weight, bias = _tensors(target.module)
                merged.append((target.module, weight.clone(), _copied(bias)))
                _write(target.module, original.weight, original.bias)
            yield
        finally:
            for module, weight, bias in merged:
                _write(module, weight, bias)

    def merge(self, networks: Sequence[tuple[LoraUse, LoadedNetwork]]) -> MergeReport:
        """Replace what is merged by `networks`, in their order.

        A layer that a network does not fit keeps what the others make of it, and is counted. On
        any other failure every weight is restored.
        """
        report = MergeReport(Counter(), Counter())
        plan = self._plan(networks, report)
        try:
            for name in self._originals.keys() - plan.keys():
                self._restore_layer(name)
            for target, steps in plan.values():
                self._merge_layer(target, steps, report)
        except BaseException:
            self.restore()
            raise
        return report

    def _plan(
        self, networks: Sequence[tuple[LoraUse, LoadedNetwork]], report: MergeReport
    ) -> dict[str, tuple[Target, list[_Step]]]:
        if not networks:
            return {}
        if self._index is None:
            self._index = layer_index(self._components)
        targets: dict[str, Target] = {}
        steps: defaultdict[str, list[_Step]] = defaultdict(list)
        for use, network in networks:
            for path, layer in network.layers.items():
                if (target := self._index.get(path)) is None:
                    continue
                report.matched[use.name] += 1
                multiplier = use.te if target.is_text else use.unet
                if multiplier != 0:
                    targets[target.name] = target
                    steps[target.name].append(_Step(use, layer, multiplier))
        return {name: (target, steps[name]) for name, target in targets.items()}

    def _merge_layer(self, target: Target, steps: list[_Step], report: MergeReport) -> None:
        module = target.module
        weight, bias = _tensors(module)
        kept = self._originals.get(target.name)
        original = kept[1] if kept else None
        first = weight if original is None else original.weight.to(weight.device)
        start_bias = bias if original is None else original.bias
        merged, merged_bias = first, start_bias
        for step in steps:
            try:
                merged, merged_bias = _stepped(merged, merged_bias, step)
            except (RuntimeError, ValueError, IndexError) as error:
                if _is_out_of_memory(error):
                    raise
                report.misfits[step.use.name] += 1
        if merged is first and merged_bias is start_bias:
            self._restore_layer(target.name)
            return
        if original is None:
            saved_bias = None if bias is None else _saved(bias)
            self._originals[target.name] = (target, _Original(_saved(weight), saved_bias))
        _write(module, merged, merged_bias)

    def _restore_layer(self, name: str) -> None:
        if (kept := self._originals.get(name)) is None:
            return
        target, original = kept
        _write(target.module, original.weight, original.bias)
        del self._originals[name]


def _stepped(weight: Tensor, bias: Tensor | None, step: _Step) -> tuple[Tensor, Tensor | None]:
    """A layer's weight and bias after one network; the given ones are not changed."""
    change_from = change_of(step.layer.parts)
    if change_from is None:
        raise ValueError("a layer of no known kind")
    parts = {name: tensor.to(weight.device) for name, tensor in step.layer.parts.items()}
    # Types of one byte are for storing only.
    parts = {n: t.to(weight.dtype) if _is_tiny(t) else t for n, t in parts.items()}
    change = change_from(parts, weight, step.use.dyn)
    weight = weight + finished(step.layer, change, weight) * step.multiplier
    if change.bias is not None:
        added = change.bias.reshape(len(weight)) * step.multiplier
        bias = added if bias is None else bias.to(added.device) + added
    return weight, bias


def _tensors(module: torch.nn.Module) -> tuple[Tensor, Tensor | None]:
    weight, bias = module.weight, module.bias
    assert isinstance(weight, Tensor)
    return weight, bias if isinstance(bias, Tensor) else None


def _write(module: torch.nn.Module, weight: Tensor, bias: Tensor | None) -> None:
    """Put values into a layer's own tensors, so that whatever holds these sees the change."""
    own_weight, own_bias = _tensors(module)
    own_weight.copy_(weight)
    if bias is None:
        module.register_parameter("bias", None)
    elif own_bias is None:
        module.bias = torch.nn.Parameter(bias.to(own_weight.device), requires_grad=False)
    else:
        own_bias.copy_(bias)


def _copied(tensor: Tensor | None) -> Tensor | None:
    return None if tensor is None else tensor.clone()


def _saved(tensor: Tensor) -> Tensor:
    return tensor.detach().to("cpu", copy=True)


def _is_tiny(tensor: Tensor) -> bool:
    return tensor.is_floating_point() and tensor.element_size() == 1


def _is_out_of_memory(error: Exception) -> bool:
    return isinstance(error, torch.OutOfMemoryError) or "memory" in str(error)
