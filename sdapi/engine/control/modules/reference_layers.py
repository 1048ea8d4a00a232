"""The layers of a UNet in which reference units act, shared by all units of a sampler run.

What a layer does in the picture's pass does not depend on the order of the units: it attends to
what each of them had there, or takes on the mean of their statistics, and negative prompts are
spared by the mean of their fidelities.
"""

from collections.abc import Callable, Sequence
from enum import Enum
from typing import Any, Final

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

_EPSILON: Final = 1e-6


class Phase(Enum):
    """What the UNet is called for."""

    #: something that references have no part in
    OFF = "off"
    #: a reference passes
    LOOKS = "looks"
    #: the picture passes
    DRAWS = "draws"


class ReferenceLayers:
    """What the hooks of a sampler run's reference units share."""

    def __init__(self) -> None:
        self._phase = Phase.OFF
        #: which layers the reference that passes reaches, and its fidelity
        self._reached: frozenset[nn.Module] = frozenset()
        self._fidelity = 0.0
        #: the rows of the call that belong to negative prompts, as numbers and as a tensor [M]
        self._unconds: tuple[Sequence[int], Tensor] = ((), torch.zeros(0, dtype=torch.long))
        self._placed: dict[nn.Module, tuple[_Attention | _Statistics, list[RemovableHandle]]] = {}
        self._users: dict[nn.Module, int] = {}

    def place_attention(self, layer: nn.Module) -> None:
        """Let a self-attention take part; every call needs a `leave`."""
        self._place(layer, _Attention)

    def place_statistics(self, layer: nn.Module) -> None:
        """Let the features that a layer gives take part; every call needs a `leave`."""
        self._place(layer, _Statistics)

    def leave(self, layer: nn.Module) -> None:
        """One unit has done with a layer; the last one leaves it as it was."""
        self._users[layer] -= 1
        if self._users[layer] == 0:
            for handle in self._placed.pop(layer)[1]:
                handle.remove()

    def look(self, reached: frozenset[nn.Module], fidelity: float) -> None:
        """A reference is about to pass."""
        self._phase, self._reached, self._fidelity = Phase.LOOKS, reached, fidelity

    def draw(self, unconds: Sequence[int], index: Tensor) -> None:
        """The picture is about to pass; rows of negative prompts are `unconds`, also as `index`."""
        self._phase, self._unconds = Phase.DRAWS, (unconds, index)

    def rest(self) -> None:
        """Have no part in what passes, and forget what was not used."""
        self._phase = Phase.OFF
        for part, _ in self._placed.values():
            part.forget()

    def _place(self, layer: nn.Module, kind: "type[_Attention | _Statistics]") -> None:
        if layer not in self._placed:
            part = kind(self, layer)
            self._placed[layer] = part, part.place()
        self._users[layer] = self._users.get(layer, 0) + 1

    @property
    def is_drawing(self) -> bool:
        return self._phase is Phase.DRAWS

    def seen_by(self, layer: nn.Module) -> float | None:
        """The fidelity of the reference that passes, where it reaches a layer."""
        is_seen = self._phase is Phase.LOOKS and layer in self._reached
        return self._fidelity if is_seen else None

    def blended(
        self, output: Tensor, own: Callable[[Tensor], Tensor], fidelities: Sequence[float]
    ) -> Tensor:
        """Give negative prompts what they would have without a reference, by the fidelity.

        `own` makes that of rows, given as [M].
        """
        fidelity = sum(fidelities) / len(fidelities)
        numbers, index = self._unconds
        if fidelity <= 0 or not numbers:
            return output
        output = output.clone()
        output[index] = torch.lerp(output[index], own(index), fidelity)
        return output


class _Attention:
    """One self-attention that also sees what the references had here."""

    def __init__(self, layers: ReferenceLayers, layer: nn.Module) -> None:
        self._layers, self._layer = layers, layer
        #: tokens of each reference, with its fidelity
        self._seen: list[tuple[float, Tensor]] = []
        #: the latest tokens, and what they would attend to without references
        self._own: tuple[Tensor, Tensor] | None = None

    def place(self) -> list[RemovableHandle]:
        return [
            self._layer.register_forward_pre_hook(self._before, with_kwargs=True),
            self._layer.register_forward_hook(self._after, with_kwargs=True, prepend=True),
        ]

    def forget(self) -> None:
        self._seen, self._own = [], None

    def _before(self, _: nn.Module, inputs: tuple[Any, ...], arguments: dict[str, Any]) -> Any:
        hidden: Tensor = inputs[0]
        if (fidelity := self._layers.seen_by(self._layer)) is not None:
            self._seen.append((fidelity, hidden))
        elif self._layers.is_drawing and self._seen:
            context = arguments.get("encoder_hidden_states")
            own = hidden if context is None else context
            self._own = hidden, own
            together = torch.cat([own, *(tokens for _, tokens in self._seen)], dim=1)
            return inputs, arguments | {"encoder_hidden_states": together}
        return None

    def _after(
        self, _: nn.Module, inputs: tuple[Any, ...], arguments: dict[str, Any], output: Tensor
    ) -> Tensor:
        # What a hook further inside made of the tokens, such as merging them, is undone by now.
        if not self._layers.is_drawing or self._own is None:
            return output
        (hidden, context), fidelities = self._own, [fidelity for fidelity, _ in self._seen]
        self.forget()

        def own(rows: Tensor) -> Tensor:
            # Not through the module's call: it would come by here again.
            return self._layer.forward(hidden[rows], encoder_hidden_states=context[rows])

        return self._layers.blended(output, own, fidelities)


class _Statistics:
    """One place whose channels take on the references' mean and variance."""

    def __init__(self, layers: ReferenceLayers, layer: nn.Module) -> None:
        self._layers, self._layer = layers, layer
        #: mean and variance of each reference, with its fidelity
        self._seen: list[tuple[float, Tensor, Tensor]] = []

    def place(self) -> list[RemovableHandle]:
        return [self._layer.register_forward_hook(self._after)]

    def forget(self) -> None:
        self._seen = []

    def _after(self, _: nn.Module, inputs: tuple[Any, ...], output: Any) -> Any:
        # Attention answers with a tuple of one.
        features: Tensor = output[0] if isinstance(output, tuple) else output
        if (fidelity := self._layers.seen_by(self._layer)) is not None:
            variance, mean = _statistics(features)
            self._seen.append((fidelity, mean, variance))
        if not self._layers.is_drawing or not self._seen:
            return None
        styled = self._styled(features).to(features.dtype)
        return (styled, *output[1:]) if isinstance(output, tuple) else styled

    def _styled(self, features: Tensor) -> Tensor:
        fidelities, means, variances = zip(*self._seen, strict=True)
        self.forget()
        wide = features.float()
        variance, mean = _statistics(wide)
        new_mean, new_variance = (torch.stack(each).mean(dim=0) for each in (means, variances))
        styled = (wide - mean) / _deviation(variance) * _deviation(new_variance) + new_mean
        return self._layers.blended(styled, lambda rows: wide[rows], fidelities)


def _statistics(features: Tensor) -> tuple[Tensor, Tensor]:
    """Variance and mean of each channel [N, C, 1, 1]."""
    return torch.var_mean(features.float(), dim=(2, 3), keepdim=True, correction=0)


def _deviation(variance: Tensor) -> Tensor:
    return variance.clamp_min(_EPSILON).sqrt()
