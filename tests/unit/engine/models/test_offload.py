"""Which part of a checkpoint is on the device, watched from its modules' moves."""

from pathlib import Path
from typing import Any

import pytest
import torch

from sdapi.engine.checkpoints.checkpoint import Components, load_checkpoint
from sdapi.engine.checkpoints.precision import Precision, wider_vae_type
from sdapi.engine.jobs.job import ModelFile
from sdapi.engine.models.compilation import compile_unet
from sdapi.engine.models.device_models import LoadedCheckpoint, Loading, Models, Movable
from sdapi.engine.models.model_cache import ModelCache
from sdapi.engine.models.offload import Offload, OffloadLevel, level_for, parts_of
from sdapi.engine.text.chunks import EMPTY
from tests.models.builders import FEW_WORDS, build_sd1

CPU, GPU = torch.device("cpu"), torch.device("cuda:0")
FP32, FP16 = torch.float32, torch.float16


@pytest.fixture
def components(golden: Path) -> Components:
    models = golden / "models"
    return load_checkpoint(
        models / "tinyA.safetensors", models / "tinyA.yaml", Precision(FP32, FP32)
    )


class Watch:
    """Stands for a GPU: notes where modules are sent, and leaves them where they are."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, **modules: torch.nn.Module) -> None:
        #: names of what is on the device, in order of arrival
        self.present: list[str] = []
        self.most = 0
        names = {id(module): name for name, module in modules.items()}

        def to(module: torch.nn.Module, device: Any) -> torch.nn.Module:
            name = names[id(module)]
            if torch.device(device).type == "cpu":
                self.present.remove(name)
            else:
                self.present.append(name)
                self.most = max(self.most, len(self.present))
            return module

        for kind in {type(module) for module in modules.values()}:
            monkeypatch.setattr(kind, "to", to)
        monkeypatch.setattr(torch.Tensor, "to", lambda tensor, *args, **_: tensor)


def use_everything(components: Components) -> list[torch.Tensor]:
    with torch.inference_mode():
        encoder = components.text_encoders[0]
        states = encoder.final_norm(encoder.encode(torch.tensor([EMPTY.tokens])).hidden[-1])
        x = torch.ones(1, 4, 8, 8)
        noise = components.unet(x, torch.tensor([5.0]), encoder_hidden_states=states).sample
        picture = components.vae.decode(noise, return_dict=False)[0]
        latent = components.vae.encode(picture, return_dict=False)[0].mean
    return [noise, picture, latent]


def test_one_part_at_a_time_is_on_the_device(
    components: Components, monkeypatch: pytest.MonkeyPatch
):
    before = use_everything(components)
    text = components.text_encoders[0].model
    watch = Watch(monkeypatch, text=text, unet=components.unet, vae=components.vae)
    offload = Offload(GPU, parts_of(components, OffloadLevel.PARTS))
    after = use_everything(components)
    assert watch.most == 1
    assert watch.present == ["vae"]
    assert all(torch.equal(a, b) for a, b in zip(before, after, strict=True))
    offload.detach()
    assert watch.present == []
    use_everything(components)
    assert watch.present == []


def test_blocks_of_the_unet_take_turns(components: Components, monkeypatch: pytest.MonkeyPatch):
    parts = parts_of(components, OffloadLevel.BLOCKS)
    modules = {str(i): module for i, part in enumerate(parts) for module in part.modules}
    watch = Watch(monkeypatch, **modules)
    Offload(GPU, parts)
    use_everything(components)
    assert watch.most == 1
    blocks = [*components.unet.down_blocks, *components.unet.up_blocks]
    assert all(block in modules.values() for block in blocks)


def test_without_offload_there_are_no_parts(components: Components):
    assert parts_of(components, OffloadLevel.NONE) == []


@pytest.mark.parametrize(
    ("flags", "is_sdxl", "level"),
    [
        ((), False, OffloadLevel.NONE),
        (("medvram",), False, OffloadLevel.PARTS),
        (("medvram_sdxl",), False, OffloadLevel.NONE),
        (("medvram_sdxl",), True, OffloadLevel.PARTS),
        (("lowvram", "medvram"), False, OffloadLevel.BLOCKS),
    ],
)
def test_flags_choose_how_much_stays(flags: tuple[str, ...], is_sdxl: bool, level: OffloadLevel):
    names = ("medvram", "medvram_sdxl", "lowvram")
    assert level_for(**{name: name in flags for name in names}, is_sdxl=is_sdxl) is level


def test_offloaded_checkpoint_comes_to_a_cpu_whole(components: Components):
    loaded = LoadedCheckpoint(components, OffloadLevel.PARTS)
    loaded.move(CPU)
    assert not any(m._forward_pre_hooks for m in components.unet.modules())


def test_channels_last_changes_the_layout_not_the_values(golden: Path, components: Components):
    plain = components.unet.conv_in.weight.clone()
    Loading(channels_last=True).prepare(components)
    weight = components.unet.conv_in.weight
    assert weight.is_contiguous(memory_format=torch.channels_last)
    assert torch.equal(weight, plain)


def test_models_are_loaded_as_the_flags_say(golden: Path):
    models = Models(
        CPU,
        Precision(FP32, FP32),
        ModelCache[Movable](CPU, 1 << 30, 1 << 30),
        Loading(medvram=True),
    )
    file = golden / "models" / "tinyA.safetensors"
    with models.checkpoint(ModelFile.of(file, file.with_suffix(".yaml"))) as loaded:
        assert loaded.offload_level is OffloadLevel.PARTS


@pytest.mark.parametrize(
    ("device", "flags", "types"),
    [
        (CPU, (False, False, False), (FP32, FP32, FP32)),
        (GPU, (False, False, False), (FP16, FP16, FP16)),
        (GPU, (False, True, False), (FP16, FP32, FP16)),
        (GPU, (False, False, True), (FP16, FP16, FP32)),
        (GPU, (True, False, False), (FP32, FP32, FP32)),
    ],
)
def test_number_types_follow_device_and_flags(
    device: torch.device, flags: tuple[bool, bool, bool], types: tuple[torch.dtype, ...]
):
    no_half, no_half_vae, no_half_control = flags
    chosen = Precision.choose(
        device, no_half=no_half, no_half_vae=no_half_vae, no_half_control=no_half_control
    )
    assert chosen == Precision(*types)


def test_vae_that_makes_nans_is_widened_as_the_options_say():
    assert wider_vae_type(prefers_bfloat16=False, allowed=True) is torch.float32
    assert wider_vae_type(prefers_bfloat16=True, allowed=True) is torch.bfloat16
    assert wider_vae_type(prefers_bfloat16=False, allowed=False) is None


def test_merging_into_the_weights_compiles_nothing_anew():
    from torch._dynamo.testing import CompileCounter

    unet = build_sd1(words=FEW_WORDS).unet
    counter = CompileCounter()
    compile_unet(unet, backend=counter)
    inputs = torch.ones(1, 4, 8, 8), torch.tensor([5.0]), torch.ones(1, 77, 64)
    with torch.inference_mode():
        first = unet(*inputs, return_dict=False)[0]
        compiled = counter.frame_count
        weight = unet.get_parameter("mid_block.resnets.0.conv1.weight")
        original = weight.clone()
        weight.add_(0.1)
        changed = unet(*inputs, return_dict=False)[0]
        weight.copy_(original)
        again = unet(*inputs, return_dict=False)[0]
    assert counter.frame_count == compiled > 0
    assert not torch.equal(first, changed)
    assert torch.equal(first, again)
