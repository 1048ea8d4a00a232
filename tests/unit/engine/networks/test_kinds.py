"""Every kind of network against its formula, written out another way."""

from pathlib import Path

import pytest
import torch
from torch import Tensor

from sdapi.engine.networks.merge import MergedWeights
from tests.models.networks import Tiny, loaded, weights_of, write_network

LINEAR = "down_blocks.0.attentions.0.transformer_blocks.0.attn1.to_k"
CONV = "mid_block.resnets.0.conv1"
POINT = "down_blocks.0.attentions.0.proj_in"
NORM = "mid_block.resnets.0.norm1"
ALPHA, RANK, STRENGTH = 2.0, 4, 0.7
SCALE = ALPHA / RANK

torch.manual_seed(0)


def randn(*shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(sum(shape))) * 0.3


def merged(tiny: Tiny, folder: Path, path: str, parts: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
    """A layer's weight before, and what merging a file of one layer adds to it."""
    name = "lora_unet_" + path.replace(".", "_")
    file = folder / "net.safetensors"
    write_network(file, {f"{name}.{part}": tensor for part, tensor in parts.items()})
    weights = MergedWeights(tiny.components)
    before = weights_of(tiny.components)[f"unet.{path}.weight"]
    try:
        report = weights.merge([loaded(file, unet=STRENGTH)])
        assert (report.matched["net"], report.misfits["net"]) == (1, 0)
        return before, weights_of(tiny.components)[f"unet.{path}.weight"] - before
    finally:
        weights.restore()


def assert_close(ours: Tensor, theirs: Tensor) -> None:
    assert torch.allclose(ours, theirs.reshape(ours.shape), atol=2e-5), (ours - theirs).abs().max()


def alpha() -> dict[str, Tensor]:
    return {"alpha": torch.tensor(ALPHA)}


def weight_of(tiny: Tiny, path: str) -> Tensor:
    return weights_of(tiny.components)[f"unet.{path}.weight"]


@pytest.mark.parametrize("path", [LINEAR, POINT])
@pytest.mark.parametrize("names", [("lora_up", "lora_down"), ("lora_B", "lora_A")])
def test_lora_is_a_product(sd1: Tiny, tmp_path: Path, path: str, names: tuple[str, str]):
    rows, columns = weight_of(sd1, path).shape[:2]
    up, down = randn(rows, RANK), randn(RANK, columns)
    parts = {f"{names[0]}.weight": up, f"{names[1]}.weight": down} | alpha()
    _, change = merged(sd1, tmp_path, path, parts)
    assert_close(change, STRENGTH * SCALE * up @ down)


def test_scale_wins_over_alpha_and_neither_is_one(sd1: Tiny, tmp_path: Path):
    rows, columns = weight_of(sd1, LINEAR).shape
    up, down = randn(rows, RANK), randn(RANK, columns)
    parts = {"lora_up.weight": up, "lora_down.weight": down}
    _, plain = merged(sd1, tmp_path, LINEAR, parts)
    assert_close(plain, STRENGTH * up @ down)
    _, scaled = merged(sd1, tmp_path, LINEAR, parts | alpha() | {"scale": torch.tensor(3.0)})
    assert_close(scaled, STRENGTH * 3.0 * up @ down)


def test_locon_acts_as_two_convolutions_one_after_the_other(sd1: Tiny, tmp_path: Path):
    rows, columns = weight_of(sd1, CONV).shape[:2]
    down, up = randn(RANK, columns, 3, 3), randn(rows, RANK, 1, 1)
    _, change = merged(
        sd1, tmp_path, CONV, {"lora_up.weight": up, "lora_down.weight": down} | alpha()
    )
    x = randn(1, columns, 8, 8)
    through = torch.conv2d(torch.conv2d(x, down, padding=1), up) * SCALE * STRENGTH
    assert_close(torch.conv2d(x, change, padding=1), through)


def test_locon_with_a_core_acts_as_three_convolutions(sd1: Tiny, tmp_path: Path):
    rows, columns = weight_of(sd1, CONV).shape[:2]
    down, middle, up = randn(RANK, columns, 1, 1), randn(RANK, RANK, 3, 3), randn(rows, RANK, 1, 1)
    parts = {"lora_up.weight": up, "lora_down.weight": down, "lora_mid.weight": middle} | alpha()
    _, change = merged(sd1, tmp_path, CONV, parts)
    x = randn(1, columns, 8, 8)
    through = torch.conv2d(torch.conv2d(torch.conv2d(x, down), middle, padding=1), up)
    assert_close(torch.conv2d(x, change, padding=1), through * SCALE * STRENGTH)


def test_loha_is_a_product_of_entries(sd1: Tiny, tmp_path: Path):
    rows, columns = weight_of(sd1, LINEAR).shape
    a1, b1, a2, b2 = (
        randn(rows, RANK),
        randn(RANK, columns),
        randn(rows, RANK),
        randn(RANK, columns),
    )
    a2, b2 = a2 * 0.5, b2 + 0.1
    parts = {"hada_w1_a": a1, "hada_w1_b": b1, "hada_w2_a": a2, "hada_w2_b": b2} | alpha()
    _, change = merged(sd1, tmp_path, LINEAR, parts)
    expected = torch.stack([(a1[i] @ b1) * (a2[i] @ b2) for i in range(rows)])
    assert_close(change, STRENGTH * SCALE * expected)


def tucker_sum(core: Tensor, left: Tensor, right: Tensor) -> Tensor:
    """sum over r, s of core[r, s] x left[r] x right[s], one term at a time."""
    total = torch.zeros(left.shape[1], right.shape[1], *core.shape[2:])
    for r in range(len(left)):
        for s in range(len(right)):
            total += left[r][:, None, None, None] * right[s][None, :, None, None] * core[r, s]
    return total


def test_loha_with_cores(sd1: Tiny, tmp_path: Path):
    rows, columns = weight_of(sd1, CONV).shape[:2]
    sides = {
        n: (randn(RANK, RANK, 3, 3) + n, randn(RANK, rows), randn(RANK, columns)) for n in (1, 2)
    }
    parts = alpha()
    for n, (core, left, right) in sides.items():
        parts |= {f"hada_t{n}": core, f"hada_w{n}_a": left, f"hada_w{n}_b": right}
    _, change = merged(sd1, tmp_path, CONV, parts)
    expected = tucker_sum(*sides[1]) * tucker_sum(*sides[2])
    assert_close(change / 10, STRENGTH * SCALE * expected / 10)


def kron(first: Tensor, second: Tensor) -> Tensor:
    """The Kronecker product, block by block."""
    return torch.cat([torch.cat([x * second for x in row], dim=1) for row in first], dim=0)


def test_lokr_is_a_kronecker_product_and_whole_factors_have_no_rank(sd1: Tiny, tmp_path: Path):
    rows, columns = weight_of(sd1, LINEAR).shape
    first, second = randn(4, 2), randn(rows // 4, columns // 2)
    parts = {"lokr_w1": first, "lokr_w2": second} | alpha()
    _, change = merged(sd1, tmp_path, LINEAR, parts)
    assert_close(change, STRENGTH * kron(first, second))


def test_lokr_with_factors_that_are_products(sd1: Tiny, tmp_path: Path):
    rows, columns = weight_of(sd1, LINEAR).shape
    w1 = randn(4, RANK), randn(RANK, 2)
    w2 = randn(rows // 4, RANK), randn(RANK, columns // 2)
    parts = {"lokr_w1_a": w1[0], "lokr_w1_b": w1[1], "lokr_w2_a": w2[0], "lokr_w2_b": w2[1]}
    _, change = merged(sd1, tmp_path, LINEAR, parts | alpha())
    assert_close(change, STRENGTH * SCALE * kron(w1[0] @ w1[1], w2[0] @ w2[1]))


def test_lokr_of_a_convolution_with_a_core(sd1: Tiny, tmp_path: Path):
    rows, columns = weight_of(sd1, CONV).shape[:2]
    first = randn(2, 2)
    core, left, right = randn(RANK, RANK, 3, 3), randn(RANK, rows // 2), randn(RANK, columns // 2)
    parts = {"lokr_w1": first, "lokr_t2": core, "lokr_w2_a": left, "lokr_w2_b": right} | alpha()
    _, change = merged(sd1, tmp_path, CONV, parts)
    assert_close(change, STRENGTH * SCALE * kron(first, tucker_sum(core, left, right)))


@pytest.mark.parametrize("path", [LINEAR, CONV])
@pytest.mark.parametrize("on_input", [True, False])
def test_ia3_scales_inputs_or_outputs(sd1: Tiny, tmp_path: Path, path: str, on_input: bool):
    weight = weight_of(sd1, path)
    factors = randn(weight.shape[1 if on_input else 0])
    parts = {"weight": factors, "on_input": torch.tensor(on_input)}
    _, change = merged(sd1, tmp_path, path, parts)
    moved = weight.movedim(1, -1) if on_input else weight.movedim(0, -1)
    expected = moved * factors
    assert_close(change, STRENGTH * expected.movedim(-1, 1 if on_input else 0))


def test_full_and_norm_are_differences_of_weight_and_bias(sd1: Tiny, tmp_path: Path):
    weight = weight_of(sd1, CONV)
    difference = randn(*weight.shape)
    _, change = merged(sd1, tmp_path, CONV, {"diff": difference, "diff_b": randn(len(weight))})
    assert_close(change, STRENGTH * difference)
    width = len(weight_of(sd1, NORM))
    parts = {"w_norm": randn(width), "b_norm": randn(width)}
    _, change = merged(sd1, tmp_path, NORM, parts)
    assert_close(change, STRENGTH * parts["w_norm"])


@pytest.mark.parametrize("is_newer", [False, True])
def test_glora_depends_on_the_weight(sd1: Tiny, tmp_path: Path, is_newer: bool):
    weight = weight_of(sd1, "down_blocks.0.attentions.0.transformer_blocks.0.ff.net.0.proj")
    path = "down_blocks.0.attentions.0.transformer_blocks.0.ff.net.0.proj"
    rows, columns = weight.shape
    into, out_of = randn(columns, RANK), randn(RANK, columns)
    high, low = randn(rows, RANK), randn(RANK, columns) + 0.1
    names = ("a1", "a2", "b1", "b2") if is_newer else ("a2", "a1", "b2", "b1")
    tensors = (into, out_of, high, low)
    parts = {f"{n}.weight": t for n, t in zip(names, tensors, strict=True)} | alpha()
    _, change = merged(sd1, tmp_path, path, parts)
    assert_close(change, STRENGTH * SCALE * (weight @ into @ out_of + high @ low))


def rotation(block: Tensor) -> Tensor:
    """Cayley's transform of a block's skew-symmetric part."""
    skew = block - block.T
    eye = torch.eye(len(block))
    return torch.linalg.solve((eye - skew).T, (eye + skew).T).T


@pytest.mark.parametrize("path", [LINEAR, CONV])
def test_oft_rotates_blocks_of_outputs(sd1: Tiny, tmp_path: Path, path: str):
    weight = weight_of(sd1, path)
    blocks = randn(4, len(weight) // 4, len(weight) // 4)
    _, change = merged(sd1, tmp_path, path, {"oft_blocks": blocks})
    turned = [
        rotation(block).T @ part.flatten(1)
        for block, part in zip(blocks, weight.chunk(4), strict=True)
    ]
    expected = torch.cat(turned).reshape(weight.shape) - weight
    assert_close(change, STRENGTH * expected)
    lengths = torch.cat(turned).norm() / weight.norm()
    assert lengths == pytest.approx(1.0, abs=1e-4)


def test_oft_alpha_bounds_the_rotation(sd1: Tiny, tmp_path: Path):
    weight = weight_of(sd1, LINEAR)
    blocks = randn(4, len(weight) // 4, len(weight) // 4)
    bound = 1e-3
    parts = {"oft_blocks": blocks, "alpha": torch.tensor(bound)}
    _, change = merged(sd1, tmp_path, LINEAR, parts)
    skew = blocks - blocks.transpose(1, 2)
    shrunk = blocks * (bound * len(weight) / skew.norm())
    _, expected = merged(sd1, tmp_path, LINEAR, {"oft_blocks": shrunk})
    assert_close(change, expected)


def test_older_lycoris_oft_holds_the_rotations(sd1: Tiny, tmp_path: Path):
    weight = weight_of(sd1, LINEAR)
    blocks = randn(4, len(weight) // 4, len(weight) // 4)
    _, expected = merged(sd1, tmp_path, LINEAR, {"oft_blocks": blocks})
    turns = torch.stack([rotation(block) for block in blocks])
    _, change = merged(sd1, tmp_path, LINEAR, {"oft_diag": turns})
    assert_close(change, expected)


def test_rescale_stretches_the_rotated_outputs(sd1: Tiny, tmp_path: Path):
    weight = weight_of(sd1, CONV)
    parts = {"oft_blocks": torch.zeros(2, len(weight) // 2, len(weight) // 2)}
    lengths = 1 + randn(len(weight)) * 0.1
    _, change = merged(sd1, tmp_path, CONV, parts | {"rescale": lengths[:, None, None, None]})
    assert_close(change, STRENGTH * (weight * lengths[:, None, None, None] - weight))


def test_boft_turns_outputs_in_butterflies(sd1: Tiny, tmp_path: Path):
    weight = weight_of(sd1, LINEAR)
    size, rounds = 4, 2
    blocks = randn(rounds, len(weight) // size, size, size)
    _, change = merged(sd1, tmp_path, LINEAR, {"oft_blocks": blocks})
    whole = torch.eye(len(weight))
    for round_ in range(rounds):
        group = 2**round_ * size // 2
        order = [
            start + side * group + k
            for start in range(0, len(weight), 2 * group)
            for k in range(group)
            for side in (0, 1)
        ]
        shuffle = torch.eye(len(weight))[order]
        turn = torch.block_diag(*(rotation(block) for block in blocks[round_]))
        whole = shuffle.T @ turn @ shuffle @ whole
    assert_close(change, STRENGTH * (whole @ weight - weight))


def test_dora_gives_columns_or_rows_their_learnt_length(sd1: Tiny, tmp_path: Path):
    weight = weight_of(sd1, LINEAR)
    rows, columns = weight.shape
    up, down = randn(rows, RANK), randn(RANK, columns)
    parts = {"lora_up.weight": up, "lora_down.weight": down} | alpha()
    whole = weight + SCALE * up @ down
    lengths = randn(1, columns).abs() + 0.5
    _, change = merged(sd1, tmp_path, LINEAR, parts | {"dora_scale": lengths})
    ours = weight + change / STRENGTH
    assert_close(ours.norm(dim=0), lengths[0])
    assert_close(ours / ours.norm(dim=0), whole / whole.norm(dim=0))
    lengths = randn(rows, 1).abs() + 0.5
    _, change = merged(sd1, tmp_path, LINEAR, parts | {"dora_scale": lengths})
    ours = weight + change / STRENGTH
    assert_close(ours.norm(dim=1), lengths[:, 0])


def test_bias_part_is_added_to_the_change(sd1: Tiny, tmp_path: Path):
    rows, columns = weight_of(sd1, LINEAR).shape
    up, down, added = randn(rows, RANK), randn(RANK, columns), randn(rows, columns)
    parts = {"lora_up.weight": up, "lora_down.weight": down, "bias": added} | alpha()
    _, change = merged(sd1, tmp_path, LINEAR, parts)
    assert_close(change, STRENGTH * SCALE * (up @ down + added))
