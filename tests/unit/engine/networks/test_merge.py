from pathlib import Path

import pytest
import torch

from sdapi.engine.checkpoints.checkpoint import load_checkpoint
from sdapi.engine.checkpoints.precision import Precision
from sdapi.engine.networks import merge
from sdapi.engine.networks.merge import MergedWeights
from sdapi.engine.networks.network_file import read_network
from sdapi.errors import ModelUnusable
from tests.models.builders import FEW_WORDS, build_sd1
from tests.models.networks import (
    RANK,
    Tiny,
    kohya_lora,
    layers_of,
    loaded,
    make_tiny,
    same,
    weights_of,
    write_network,
)


@pytest.fixture
def lora(tmp_path: Path, sd1: Tiny) -> Path:
    return write_network(tmp_path / "one.safetensors", kohya_lora(sd1))


@pytest.fixture
def other(tmp_path: Path, sd1: Tiny) -> Path:
    return write_network(tmp_path / "two.safetensors", kohya_lora(sd1, seed=1))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16], ids=str)
def test_merging_and_restoring_leaves_every_bit_as_it_was(
    tmp_path: Path, lora: Path, dtype: torch.dtype
):
    tiny = make_tiny("sd1", tmp_path)
    components = tiny.components
    for module in (components.unet, *(e.model for e in components.text_encoders)):
        torch.nn.Module.to(module, dtype)
    before = weights_of(components)
    weights = MergedWeights(components)
    report = weights.merge([loaded(lora, 0.7, 0.3)])
    assert report.matched["one"] == len(kohya_lora(tiny)) // 3
    assert report.misfits.total() == 0
    changed = weights_of(components)
    assert not any(torch.equal(changed[k], before[k]) for k in changed if "to_q.weight" in k)
    weights.restore()
    assert same(weights_of(components), before)
    assert weights.size_bytes == 0


def test_sets_that_take_turns_do_not_depend_on_the_one_before(sd1: Tiny, lora: Path, other: Path):
    weights = MergedWeights(sd1.components)
    before = weights_of(sd1.components)
    try:
        weights.merge([loaded(lora)])
        first = weights_of(sd1.components)
        weights.merge([loaded(other, 0.2, 0.9), loaded(lora, 0, 0.5)])
        weights.merge([loaded(other)])
        weights.merge([loaded(lora)])
        assert same(weights_of(sd1.components), first)
        weights.merge([])
        assert same(weights_of(sd1.components), before)
    finally:
        weights.restore()


def test_networks_add_up_and_the_same_one_twice_counts_twice(sd1: Tiny, lora: Path):
    weights = MergedWeights(sd1.components)
    try:
        weights.merge([loaded(lora, 1, 1), loaded(lora, 0.5, 0.5)])
        twice = weights_of(sd1.components)
        weights.merge([loaded(lora, 1.5, 1.5)])
        once = weights_of(sd1.components)
    finally:
        weights.restore()
    assert all(torch.allclose(twice[key], once[key], atol=1e-6) for key in once)


def test_multipliers_of_zero_leave_their_part_untouched(sd1: Tiny, lora: Path):
    before = weights_of(sd1.components)
    weights = MergedWeights(sd1.components)
    try:
        weights.merge([loaded(lora, te=1, unet=0)])
        after = weights_of(sd1.components)
    finally:
        weights.restore()
    changed = {key.split(".")[0] for key in after if not torch.equal(after[key], before[key])}
    assert changed == {"te0"}


def test_dyn_takes_the_first_ranks_and_keeps_the_scale(tmp_path: Path, sd1: Tiny):
    tensors = {k: v for k, v in kohya_lora(sd1, text=False).items() if "to_q" in k}
    lora = write_network(tmp_path / "dyn.safetensors", tensors)
    before = weights_of(sd1.components)
    weights = MergedWeights(sd1.components)
    try:
        weights.merge([loaded(lora, dyn=2)])
        after = weights_of(sd1.components)
    finally:
        weights.restore()
    path = next(path for path in layers_of(sd1.components.unet) if path.endswith("to_q"))
    name = "lora_unet_" + path.replace(".", "_")
    up, down = tensors[f"{name}.lora_up.weight"], tensors[f"{name}.lora_down.weight"]
    expected = before[f"unet.{path}.weight"] + 2.0 / RANK * up[:, :2] @ down[:2]
    assert torch.allclose(after[f"unet.{path}.weight"], expected, atol=1e-6)


def test_layer_of_another_shape_is_counted_and_the_rest_is_merged(tmp_path: Path, sd1: Tiny):
    tensors = kohya_lora(sd1, text=False)
    name = next(key for key in tensors if "to_k.lora_down" in key)
    tensors[name] = torch.zeros(RANK, 7)
    lora = write_network(tmp_path / "odd.safetensors", tensors)
    before = weights_of(sd1.components)
    weights = MergedWeights(sd1.components)
    try:
        report = weights.merge([loaded(lora)])
        after = weights_of(sd1.components)
    finally:
        weights.restore()
    assert (report.misfits["odd"], report.matched["odd"]) == (1, len(tensors) // 3)
    unchanged = [k for k in after if k.endswith("to_k.weight") and torch.equal(after[k], before[k])]
    assert len(unchanged) == 1


def test_failure_midway_leaves_exact_originals(
    sd1: Tiny, lora: Path, monkeypatch: pytest.MonkeyPatch
):
    before = weights_of(sd1.components)
    weights = MergedWeights(sd1.components)
    left = 20

    def failing(*arguments: object) -> object:
        nonlocal left
        left -= 1
        if left == 0:
            raise torch.OutOfMemoryError("out of memory")
        return real(*arguments)

    real = merge.finished
    monkeypatch.setattr(merge, "finished", failing)
    with pytest.raises(torch.OutOfMemoryError):
        weights.merge([loaded(lora)])
    assert same(weights_of(sd1.components), before)


def test_four_channel_change_fits_an_inpainting_unet(tmp_path: Path, sd1: Tiny):
    built = build_sd1(in_channels=9, words=FEW_WORDS)
    precision = Precision(torch.float32, torch.float32)
    path = built.write(tmp_path / "inpaint.safetensors")
    tiny = Tiny(built, load_checkpoint(path, None, precision))
    tensors = {k: v for k, v in kohya_lora(sd1, text=False).items() if "unet_conv_in." in k}
    before = weights_of(tiny.components)["unet.conv_in.weight"]
    weights = MergedWeights(tiny.components)
    report = weights.merge([loaded(write_network(tmp_path / "four.safetensors", tensors))])
    change = weights_of(tiny.components)["unet.conv_in.weight"] - before
    assert report.misfits.total() == 0
    assert change[:, :4].abs().min() > 0
    assert change[:, 4:].abs().max() == 0


def test_layer_without_bias_gets_one_and_loses_it_again(tmp_path: Path, sd1: Tiny):
    path = next(path for path in layers_of(sd1.components.unet) if path.endswith("to_q"))
    module = layers_of(sd1.components.unet)[path]
    assert module.bias is None
    name = "lora_unet_" + path.replace(".", "_")
    tensors = {
        f"{name}.diff": torch.zeros_like(module.weight),
        f"{name}.diff_b": torch.ones(len(module.weight)),
    }
    weights = MergedWeights(sd1.components)
    weights.merge([loaded(write_network(tmp_path / "full.safetensors", tensors), unet=0.5)])
    assert torch.equal(module.bias, torch.full((len(module.weight),), 0.5))
    weights.restore()
    assert module.bias is None
    assert "bias" not in dict(module.named_parameters())


def test_file_with_nans_is_refused_by_name(tmp_path: Path):
    tensors = {"lora_unet_conv_in.diff": torch.full((4,), torch.nan)}
    with pytest.raises(ModelUnusable, match=r"nan\.safetensors: lora_unet_conv_in\.diff holds"):
        read_network(write_network(tmp_path / "nan.safetensors", tensors))
