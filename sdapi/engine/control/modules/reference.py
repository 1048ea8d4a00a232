"""Reference units: pictures in the style of another, without a model (contract: controlnet-api 7).

At every step the reference's latent, noised as far as the picture is, passes the UNet first and
leaves its self-attention inputs, its feature statistics, or both; the picture then attends to the
one and takes on the other (AdaIN, Huang and Belongie 2017).
"""

from typing import TYPE_CHECKING, Any, Final, cast

import torch
from torch import Tensor, nn

from sdapi.engine.checkpoints.architecture import Family
from sdapi.engine.control.control import Control
from sdapi.engine.control.models.residuals import EncoderInputs
from sdapi.engine.control.modules.encoding import encode_mode, picture_tensor
from sdapi.engine.control.modules.prediction import alpha_of
from sdapi.engine.control.modules.reference_layers import ReferenceLayers
from sdapi.engine.control.rows import RowTensors
from sdapi.engine.control.unet_layers import attention_places, input_outputs, output_outputs
from sdapi.engine.control.unit import ControlMode, ControlUnit
from sdapi.engine.jobs.stages import UNetCall
from sdapi.engine.models.compilation import calling
from sdapi.errors import BadRequest

if TYPE_CHECKING:
    from sdapi.engine.sampling.sampling_pass import SamplingPass

ATTENTION: Final = frozenset({"reference_only", "reference_adain+attn"})
STATISTICS: Final = frozenset({"reference_adain", "reference_adain+attn"})
REFERENCES: Final = ATTENTION | STATISTICS
#: how many output blocks take part, from the deepest on
_OUTPUTS, _OUTPUTS_SDXL = 8, 6
#: places whose share is above half the weight have no part in AdaIN
_ADAIN_STEEPNESS: Final = 2.0


class ReferenceControl(Control):
    """A reference unit during one sampler run."""

    def __init__(
        self, unit: ControlUnit, sampling: "SamplingPass", layers: ReferenceLayers
    ) -> None:
        """Raises `BadRequest` beside Hypertile, which cuts what the two would share."""
        components = sampling.components
        if unit.module in ATTENTION and sampling.job.hypertile.unet.enabled:
            raise BadRequest(f"{unit.label}: {unit.module} cannot be used with Hypertile")
        self._components = components
        self._fidelity = _fidelity(unit, components.family, is_second=sampling.is_second)
        seeds = sampling.noise.seeds.seeds
        self._noise = [sampling.noise.source.generator(seed) for seed in seeds]
        self._device = sampling.models.device
        #: the time step that was last drawn for: every call of a step has the same noise
        self._drawn: tuple[float, list[Tensor]] | None = None
        self._row_tensors = RowTensors()
        pixels = unit.hint_for(is_second_pass=sampling.is_second)
        self._latent = encode_mode(sampling, picture_tensor(pixels)).to(self._device)
        self._layers, self._reached = layers, list[nn.Module]()
        self._place(unit, components)

    def _place(self, unit: ControlUnit, components: Any) -> None:
        """Reach the layers of the unit's weight; with weight 0 none."""
        if unit.weight <= 0:
            return
        if unit.module in ATTENTION:
            for layer in _attentions(components.unet, unit.weight):
                self._layers.place_attention(layer)
                self._reached.append(layer)
        if unit.module in STATISTICS:
            outputs = _OUTPUTS_SDXL if components.family is Family.SDXL else _OUTPUTS
            for layer in _statistics_places(components.unet, unit.weight, outputs):
                self._layers.place_statistics(layer)
                self._reached.append(layer)

    def look(self, call: UNetCall) -> None:
        if not self._acts_on(call):
            return
        self._layers.look(frozenset(self._reached), self._fidelity)
        self._pass(call)

    def before(self, call: UNetCall) -> None:
        if self._acts_on(call):
            unconds = [i for i, row in enumerate(call.rows) if row.is_uncond]
            self._layers.draw(unconds, self._row_tensors.of(unconds, call.x.device))

    def after(self, call: UNetCall, output: Tensor) -> Tensor:
        self._layers.rest()
        return output

    def close(self) -> None:
        while self._reached:
            self._layers.leave(self._reached.pop())

    def _acts_on(self, call: UNetCall) -> bool:
        return bool(self._reached) and call.components.unet is self._components.unet

    def _pass(self, call: UNetCall) -> None:
        """Let the reference pass the UNet, noised as far as the picture is."""
        unet = call.components.unet
        inputs = EncoderInputs.of(call, range(len(call.rows)), unet.dtype)
        x = self._noised(call).to(unet.dtype)
        if call.image_cond is not None:
            x = torch.cat([x, call.image_cond[[row.image for row in call.rows]].to(x)], dim=1)
        calling(unet)(
            cast("torch.FloatTensor", x),
            inputs.t,
            encoder_hidden_states=inputs.cross,
            added_cond_kwargs=inputs.added,
            return_dict=False,
        )

    def _noised(self, call: UNetCall) -> Tensor:
        """The reference's latent for each row; rows of an image share its noise."""
        now = call.time_step
        if self._drawn is None or self._drawn[0] != now:
            shape = tuple(self._latent.shape[1:])
            self._drawn = now, [each.randn(shape).to(self._device) for each in self._noise]
        noise = torch.stack([self._drawn[1][row.image] for row in call.rows])
        alpha = alpha_of(call)
        return alpha**0.5 * self._latent + (1 - alpha) ** 0.5 * noise


def _fidelity(unit: ControlUnit, family: Family, *, is_second: bool) -> float:
    """How far negative prompts are left as they are, 0 to 1."""
    if unit.mode is ControlMode.CONTROL:
        return 1.0
    if unit.mode is ControlMode.PROMPT or is_second:
        return 0.0
    return unit.threshold_a**3 if family is Family.SDXL else unit.threshold_a


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
