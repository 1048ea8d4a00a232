"""An IP-Adapter in memory, and what a unit with one does during a sampler run."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import Tensor, nn

from sdapi.engine.adaptations.hooks import Hooks
from sdapi.engine.control.control import Control, LoadedControl
from sdapi.engine.control.hints import region_tensor
from sdapi.engine.control.ip_adapter.adapter_file import read_adapter
from sdapi.engine.control.ip_adapter.attention import PictureCall, PictureLayer, project
from sdapi.engine.control.ip_adapter.image_encoder import (
    Embedding,
    LoadedImageEncoder,
    load_image_encoder,
)
from sdapi.engine.control.ip_adapter.projection import Projection, Reads, load_projection
from sdapi.engine.control.models.base_model import BaseModel
from sdapi.engine.control.models.control_file import ControlFile
from sdapi.engine.control.rows import RowTensors
from sdapi.engine.control.unet_layers import attention_places
from sdapi.engine.control.unit import ControlUnit
from sdapi.engine.jobs.stages import UNetCall
from sdapi.engine.weights.tensor_bytes import bytes_of, module_bytes
from sdapi.errors import BadRequest, ModelUnusable

if TYPE_CHECKING:
    from sdapi.engine.sampling.sampling_pass import SamplingPass


@dataclass(slots=True)
class LoadedIPAdapter(LoadedControl):
    """An adapter in memory."""

    works_while_drawing: ClassVar[bool] = False
    name: str
    projection: Projection
    #: keys and values [inner, context] of each cross-attention: down, up, then the middle
    layers: list[tuple[Tensor, Tensor]]

    @property
    def size_bytes(self) -> int:
        layers = bytes_of(tensor for pair in self.layers for tensor in pair)
        return module_bytes(self.projection.module) + layers

    def move(self, device: torch.device) -> None:
        nn.Module.to(self.projection.module, device)
        self.layers = [(keys.to(device), values.to(device)) for keys, values in self.layers]

    def control(self, unit: ControlUnit, sampling: "SamplingPass") -> Control:
        places = _scaled_places(unit, self, sampling.components.unet)
        if not any(scale for _, scale in places):
            return Control()
        return IPAdapterControl(self, unit, sampling, places)

    def tokens(self, encoder: LoadedImageEncoder, unit: ControlUnit) -> Tensor:
        """Tokens of a unit's pictures, averaged, and of none [2, T, context].

        Raises `ModelUnusable` for an encoder that the adapter was not made for.
        """
        seen, blank = encoder.embed(unit.pictures), encoder.blank()
        made = self._project(self._read(seen))
        if self.projection.reads is Reads.POOLED:
            nothing = torch.zeros_like(self._read(seen)[:1])
        else:
            nothing = self._read(blank)
        return torch.cat([made.mean(dim=0, keepdim=True), self._project(nothing)])

    def _read(self, embedding: Embedding) -> Tensor:
        reads = self.projection.reads
        found = embedding.pooled if reads is Reads.POOLED else embedding.patches
        if found.shape[-1] != self.projection.width:
            raise ModelUnusable(
                f"{self.name} reads embeddings of {self.projection.width} numbers, and the image "
                f"encoder makes {found.shape[-1]}; choose the preprocessor that belongs to it"
            )
        return found

    def _project(self, embedding: Tensor) -> Tensor:
        weight = next(self.projection.module.parameters())
        return self.projection.module(embedding.to(weight))


class IPAdapterControl(Control):
    """A unit with an IP-Adapter during one sampler run."""

    def __init__(
        self,
        adapter: LoadedIPAdapter,
        unit: ControlUnit,
        sampling: "SamplingPass",
        places: Sequence[tuple[Any, float]],
    ) -> None:
        # Whatever can fail comes before the first hook.
        tokens = _tokens(adapter, unit, sampling)
        self._unet = sampling.components.unet
        self._call = PictureCall(region=region_tensor(unit, sampling.models.device))
        self._row_tensors = RowTensors()
        layers = [
            PictureLayer(self._call, layer, project(tokens, keys), project(tokens, values), scale)
            for (layer, scale), (keys, values) in zip(places, adapter.layers, strict=True)
            if scale
        ]
        self._hooks = Hooks()
        for each in layers:
            each.place(self._hooks)

    def before(self, call: UNetCall) -> None:
        # A refiner has other layers, and no part in this.
        if call.components.unet is self._unet:
            rows = self._row_tensors.of([int(row.is_uncond) for row in call.rows], call.x.device)
            self._call.begin(rows, (call.x.shape[-2], call.x.shape[-1]))

    def after(self, call: UNetCall, output: Tensor) -> Tensor:
        self._call.rows = None
        return output

    def close(self) -> None:
        self._hooks.remove()


def _tokens(adapter: LoadedIPAdapter, unit: ControlUnit, sampling: "SamplingPass") -> Tensor:
    file = unit.encoder
    if file is None or not unit.pictures:
        raise BadRequest(
            f"{unit.label}: the IP-Adapter {adapter.name} needs a picture and an image encoder; "
            "choose the preprocessor ip-adapter-auto, ip-adapter_clip_h or ip-adapter_clip_g"
        )
    models, dtype = sampling.models, sampling.models.precision.control

    def load() -> LoadedImageEncoder:
        return load_image_encoder(file, dtype)

    with models.lend(("image encoder", file), load, LoadedImageEncoder) as encoder:
        return adapter.tokens(encoder, unit)


def _scaled_places(
    unit: ControlUnit, adapter: LoadedIPAdapter, unet: Any
) -> list[tuple[Any, float]]:
    """A UNet's cross-attentions in the file's order, each with its weight.

    Raises `ModelUnusable` for an adapter of another kind of checkpoint.
    """
    down, middle, up = attention_places(unet)
    # `advanced_weighting` goes down, through the middle, and up; files have the middle last.
    scales = _scales(unit, len(down) + len(middle) + len(up))
    scaled = [
        *zip(down, scales, strict=False),
        *zip(up, scales[len(down) + len(middle) :], strict=True),
        *zip(middle, scales[len(down) :], strict=False),
    ]
    layers: list[tuple[Any, float]] = [
        (block.get_submodule("attn2"), scale) for place, scale in scaled for block in place
    ]
    theirs = [tuple(keys.shape) for keys, _ in adapter.layers]
    ours = [tuple(layer.to_k.weight.shape) for layer, _ in layers]
    if theirs != ours:
        raise ModelUnusable(
            f"{adapter.name} has {len(theirs)} layers for another kind of checkpoint; this one "
            f"has {len(ours)}, of a context of {ours[0][1] if ours else 0} numbers"
        )
    return layers


def _scales(unit: ControlUnit, count: int) -> list[float]:
    if unit.advanced is None:
        return [unit.weight] * count
    if len(unit.advanced) < count:
        raise BadRequest(
            f"{unit.label}: advanced_weighting has {len(unit.advanced)} weights; "
            f"an IP-Adapter needs {count} with this checkpoint"
        )
    return list(unit.advanced[:count])


def load_ip_adapter(file: ControlFile, base: BaseModel) -> LoadedControl:
    """Build an adapter from its weights; raises `ModelUnusable`."""
    weights = read_adapter(file.weights, file.name)
    projection = load_projection(weights.projection, file.name, base.dtype)
    layers = [(keys.to(base.dtype), values.to(base.dtype)) for keys, values in weights.layers]
    return LoadedIPAdapter(file.name, projection, layers)
