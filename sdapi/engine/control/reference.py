"""Reference units: pictures in the style of another, without a model (contract: controlnet-api 7).

At every step the reference's latent, noised as far as the picture is, passes the UNet first and
leaves its self-attention inputs, its feature statistics, or both; the picture then attends to the
one and takes on the other (AdaIN, Huang and Belongie 2017).
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from enum import Enum
from typing import TYPE_CHECKING, Any, Final, cast

import torch
from PIL import Image
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from sdapi.engine.checkpoints.architecture import Family
from sdapi.engine.control.control import Control
from sdapi.engine.control.residuals import EncoderInputs
from sdapi.engine.control.unet_layers import attention_places, input_outputs, output_outputs
from sdapi.engine.control.unit import ControlMode, ControlUnit
from sdapi.engine.latents import vae
from sdapi.engine.stages import UNetCall
from sdapi.errors import BadRequest

if TYPE_CHECKING:
    from sdapi.engine.sampling.sampling_pass import SamplingPass

ATTENTION: Final = frozenset({"reference_only", "reference_adain+attn"})
STATISTICS: Final = frozenset({"reference_adain", "reference_adain+attn"})
REFERENCES: Final = ATTENTION | STATISTICS
_EPSILON: Final = 1e-6
#: how many output blocks take part, from the deepest on
_OUTPUTS, _OUTPUTS_SDXL = 8, 6
#: places whose share is above half the weight have no part in AdaIN
_ADAIN_STEEPNESS: Final = 2.0


class _Phase(Enum):
    OFF = "off"
    #: the reference passes
    LOOKS = "looks"
    #: the picture passes
    DRAWS = "draws"


@dataclass(slots=True)
class _State:
    """What the hooks of one unit share."""

    fidelity: float
    phase: _Phase = _Phase.OFF
    #: which rows of the call belong to negative prompts [N]
    unconds: Tensor = field(default_factory=lambda: torch.zeros(0, dtype=torch.bool))

    def blended(self, output: Tensor, own: Callable[[], Tensor]) -> Tensor:
        """Give negative prompts what they would have without a reference, by the fidelity."""
        if self.fidelity <= 0 or not self.unconds.any():
            return output
        output = output.clone()
        output[self.unconds] = torch.lerp(output[self.unconds], own(), self.fidelity)
        return output


class _Attention:
    """One self-attention that also sees what the reference had here."""

    def __init__(self, state: _State, layer: nn.Module) -> None:
        self._state, self._layer = state, layer
        self._seen: Tensor | None = None
        #: the latest tokens, and what they would attend to without the reference
        self._own: tuple[Tensor, Tensor] | None = None

    def place(self) -> list[RemovableHandle]:
        return [
            self._layer.register_forward_pre_hook(self._before, with_kwargs=True),
            self._layer.register_forward_hook(self._after, with_kwargs=True, prepend=True),
        ]

    def _before(self, _: nn.Module, inputs: tuple[Any, ...], arguments: dict[str, Any]) -> Any:
        hidden: Tensor = inputs[0]
        if self._state.phase is _Phase.LOOKS:
            self._seen = hidden
        elif self._state.phase is _Phase.DRAWS and self._seen is not None:
            context = arguments.get("encoder_hidden_states")
            own = hidden if context is None else context
            self._own = hidden, own
            both = torch.cat([own, self._seen], dim=1)
            return inputs, arguments | {"encoder_hidden_states": both}
        return None

    def _after(
        self, _: nn.Module, inputs: tuple[Any, ...], arguments: dict[str, Any], output: Tensor
    ) -> Tensor:
        # What a hook further inside made of the tokens, such as merging them, is undone by now.
        if self._state.phase is not _Phase.DRAWS or self._own is None:
            return output
        hidden, context = self._own
        self._seen = self._own = None
        rows = self._state.unconds

        def own() -> Tensor:
            # Not through the module's call: it would come by here again.
            return self._layer.forward(hidden[rows], encoder_hidden_states=context[rows])

        return self._state.blended(output, own)


class _Statistics:
    """One place whose channels take on the reference's mean and variance."""

    def __init__(self, state: _State, layer: nn.Module) -> None:
        self._state, self._layer = state, layer
        self._seen: tuple[Tensor, Tensor] | None = None

    def place(self) -> list[RemovableHandle]:
        return [self._layer.register_forward_hook(self._after)]

    def _after(self, _: nn.Module, inputs: tuple[Any, ...], output: Any) -> Any:
        if self._state.phase is _Phase.OFF:
            return None
        # Attention answers with a tuple of one.
        features: Tensor = output[0] if isinstance(output, tuple) else output
        variance, mean = torch.var_mean(features.float(), dim=(2, 3), keepdim=True, correction=0)
        deviation = variance.clamp_min(_EPSILON).sqrt()
        if self._state.phase is _Phase.LOOKS:
            self._seen = mean, deviation
            return None
        if self._seen is None:
            return None
        (new_mean, new_deviation), self._seen = self._seen, None
        styled = (features.float() - mean) / deviation * new_deviation + new_mean
        unconds = self._state.unconds
        made = self._state.blended(styled, lambda: features.float()[unconds]).to(features.dtype)
        return (made, *output[1:]) if isinstance(output, tuple) else made


class ReferenceControl(Control):
    """A reference unit during one sampler run."""

    def __init__(self, unit: ControlUnit, sampling: "SamplingPass") -> None:
        """Raises `BadRequest` beside Hypertile, which cuts what the two would share."""
        components = sampling.components
        if unit.module in ATTENTION and sampling.job.hypertile.unet.enabled:
            raise BadRequest(f"{unit.label}: {unit.module} cannot be used with Hypertile")
        self._components = components
        self._state = _State(_fidelity(unit, components.family, is_second=sampling.is_second))
        parts = _parts(unit, self._state, components)
        self._handles = [handle for part in parts for handle in part.place()]
        seeds = sampling.noise.seeds.seeds
        self._noise = [sampling.noise.source.generator(seed) for seed in seeds]
        self._device = sampling.models.device
        #: the time step that was last drawn for: every call of a step has the same noise
        self._drawn: tuple[float, list[Tensor]] | None = None
        pixels = unit.hint_for(is_second_pass=sampling.is_second)[:, :, :3]
        picture = vae.to_tensor([Image.fromarray(pixels)])
        self._latent = vae.encode_mode(components.vae, picture) * components.scale_factor

    def before(self, call: UNetCall) -> None:
        if not self._handles or call.components.unet is not self._components.unet:
            return
        state, device = self._state, call.x.device
        state.unconds = torch.tensor([row.is_uncond for row in call.rows], device=device)
        state.phase = _Phase.LOOKS
        self._look(call)
        state.phase = _Phase.DRAWS

    def after(self, call: UNetCall, output: Tensor) -> Tensor:
        self._state.phase = _Phase.OFF
        return output

    def close(self) -> None:
        for handle in self._handles:
            handle.remove()
        self._handles = []

    def _look(self, call: UNetCall) -> None:
        """Let the reference pass the UNet, noised as far as the picture is."""
        unet = call.components.unet
        inputs = EncoderInputs.of(call, range(len(call.rows)), unet.dtype)
        x = self._noised(call).to(unet.dtype)
        if call.image_cond is not None:
            x = torch.cat([x, call.image_cond[[row.image for row in call.rows]].to(x)], dim=1)
        unet(
            cast("torch.FloatTensor", x),
            inputs.t,
            encoder_hidden_states=inputs.cross,
            added_cond_kwargs=inputs.added,
            return_dict=False,
        )

    def _noised(self, call: UNetCall) -> Tensor:
        """The reference's latent for each row; rows of an image share its noise."""
        now = float(call.t[0])
        if self._drawn is None or self._drawn[0] != now:
            shape = tuple(self._latent.shape[1:])
            self._drawn = now, [each.randn(shape).to(self._device) for each in self._noise]
        noise = torch.stack([self._drawn[1][row.image] for row in call.rows])
        alphas = call.components.alphas_cumprod.to(self._device)
        alpha = alphas[call.t.float().round().long().clamp(0, len(alphas) - 1)].reshape(-1, 1, 1, 1)
        return alpha.sqrt() * self._latent.to(self._device) + (1 - alpha).sqrt() * noise


def _fidelity(unit: ControlUnit, family: Family, *, is_second: bool) -> float:
    """How far negative prompts are left as they are, 0 to 1."""
    if unit.mode is ControlMode.CONTROL:
        return 1.0
    if unit.mode is ControlMode.PROMPT or is_second:
        return 0.0
    return unit.threshold_a**3 if family is Family.SDXL else unit.threshold_a


def _parts(unit: ControlUnit, state: _State, components: Any) -> list[_Attention | _Statistics]:
    """The layers that a unit of a weight reaches; with weight 0 none."""
    parts: list[_Attention | _Statistics] = []
    if unit.weight <= 0:
        return parts
    if unit.module in ATTENTION:
        parts += [_Attention(state, layer) for layer in _attentions(components.unet, unit.weight)]
    if unit.module in STATISTICS:
        outputs = _OUTPUTS_SDXL if components.family is Family.SDXL else _OUTPUTS
        places = _statistics_places(components.unet, unit.weight, outputs)
        parts += [_Statistics(state, layer) for layer in places]
    return parts


def _attentions(unet: Any, weight: float) -> list[nn.Module]:
    """The self-attentions that a weight reaches: the widest first."""
    down, middle, up = attention_places(unet)
    blocks: list[Any] = [block for place in (*down, *middle, *up) for block in place]
    blocks.sort(key=lambda block: -block.norm1.normalized_shape[0])
    return [block.attn1 for i, block in enumerate(blocks) if weight > i / len(blocks)]


def _statistics_places(unet: Any, weight: float, outputs: int) -> list[nn.Module]:
    """The places that a weight reaches: the deepest first."""
    down, up = input_outputs(unet), output_outputs(unet)[:outputs]
    places = [(0.0, unet.mid_block)]
    places += [(1 - i / len(down), layer) for i, layer in enumerate(down)]
    places += [(i / len(up), layer) for i, layer in enumerate(up)]
    return [layer for share, layer in places if weight >= share * _ADAIN_STEEPNESS]
