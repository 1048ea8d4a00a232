"""What a job changes in its models: it acts, and nothing of it is left afterwards."""

import random
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers.models.attention_processor import Attention

from sdapi.engine.adaptations.circular import circular_padding
from sdapi.engine.adaptations.hooks import hooks
from sdapi.engine.adaptations.hypertile import Tiling, grid_of, tile_unet, tile_vae
from sdapi.engine.adaptations.token_merging import Matching
from sdapi.engine.adaptations.upcast import upcast_attention
from sdapi.engine.engine import Engine
from sdapi.engine.jobs.job import Hypertile, Job, SamplingOptions, TileOptions
from sdapi.engine.jobs.monitor import Monitor
from tests.engines import cpu_engine, golden_file, tiny_job
from tests.models.builders import FEW_WORDS, build_sd1, build_sdxl

CPU = torch.device("cpu")
#: smaller than any picture here has, so that every layer is cut
SMALL_TILES = TileOptions(enabled=True, max_tile=16, swap_size=2)


@pytest.fixture(scope="module")
def engine() -> Engine:
    return cpu_engine()


@pytest.fixture(scope="module")
def tiny(golden: Path) -> Job:
    return tiny_job(golden_file(golden, "tinyA"), negative_prompts=("dog",), width=256, height=256)


def picture(engine: Engine, job: Job) -> np.ndarray[Any, Any]:
    return np.asarray(engine.run(job, Monitor()).images[0].image)


@pytest.mark.parametrize(
    "changes",
    [
        {"tiling": True},
        {"token_merging_ratio": 0.5},
        {"hypertile": Hypertile(unet=TileOptions(enabled=True, max_tile=128))},
        {"hypertile": Hypertile(vae=TileOptions(enabled=True, max_tile=128))},
        {"token_merging_ratio": 0.3, "hypertile": Hypertile(unet=TileOptions(enabled=True))},
    ],
    ids=["tiling", "token merging", "hypertile", "hypertile VAE", "both"],
)
def test_job_changes_its_picture_and_not_that_of_the_next(
    engine: Engine, tiny: Job, changes: dict[str, Any]
):
    before = picture(engine, tiny)
    assert not np.array_equal(picture(engine, replace(tiny, **changes)), before)
    assert np.array_equal(picture(engine, tiny), before)


def test_upcast_attention_changes_nothing_in_float32(engine: Engine, tiny: Job):
    small = replace(tiny, width=64, height=64)
    upcast = replace(small, options=SamplingOptions(upcast_attn=True))
    assert np.array_equal(picture(engine, small), picture(engine, upcast))


def test_upcast_attention_meets_in_float32_and_leaves_in_half():
    layer = Attention(query_dim=8, heads=2, dim_head=4).half()
    seen: list[torch.dtype] = []
    layer.get_submodule("to_q").register_forward_hook(lambda *args: seen.append(args[2].dtype))
    x = torch.randn(1, 4, 8).half()
    with hooks() as placed:
        upcast_attention(placed, torch.nn.ModuleList([layer]))
        assert layer(x).dtype is torch.float16
    assert layer(x).dtype is torch.float16
    assert seen == [torch.float32, torch.float16]


def test_wrapping_convolution_does_not_care_where_a_picture_begins():
    convolution = torch.nn.Conv2d(1, 1, 3, padding=1)
    x = torch.randn(1, 1, 8, 8)
    with circular_padding([convolution], wanted=True):
        rolled, straight = convolution(x.roll(3, dims=-1)), convolution(x)
    assert torch.allclose(rolled, straight.roll(3, dims=-1), atol=1e-6)
    assert convolution.padding_mode == "zeros"


def test_padding_is_put_back_when_the_job_fails():
    convolution = torch.nn.Conv2d(1, 1, 3)
    with pytest.raises(RuntimeError), circular_padding([convolution], wanted=True):
        raise RuntimeError
    assert convolution.padding_mode == "zeros"


@pytest.mark.parametrize("size", [(4, 4), (5, 7)])
@pytest.mark.parametrize("ratio", [0.0, 0.3, 0.5, 1.0])
def test_merged_tokens_come_back_as_the_mean_of_their_group(size: tuple[int, int], ratio: float):
    torch.manual_seed(0)
    count = size[0] * size[1]
    tokens = torch.randn(2, count, 6)
    matching = Matching.of(tokens, size, ratio)
    cells = (size[0] // 2) * (size[1] // 2)
    merged = min(count - cells, int(count * ratio))
    assert matching.merge(tokens).shape == (2, count - merged, 6)
    restored = matching.unmerge(matching.merge(tokens))
    changed = (restored != tokens).any(-1).sum(1)
    # every merged source changes, and so does the destination it was averaged into
    assert (changed >= merged).all()
    assert (changed <= 2 * merged).all()
    # what was merged is shared: its destination's value
    for row in range(2):
        sources = matching.sources[matching.merged[row]]
        targets = matching.destinations[matching.targets[row]]
        assert torch.equal(restored[row, sources], restored[row, targets])


def test_the_most_similar_tokens_are_merged_first():
    tokens = torch.eye(16).unsqueeze(0).clone()
    tokens[0, 1] = tokens[0, 0]  # a source like the first cell's destination
    matching = Matching.of(tokens, (4, 4), 1 / 16)
    assert matching.sources[matching.merged[0]].tolist() == [1]
    assert matching.destinations[matching.targets[0]].tolist() == [0]


@pytest.mark.parametrize(
    ("tokens", "size", "grid"),
    [
        (1024, (256, 256), (32, 32)),
        # rows and columns are exchanged, as in the reference
        (32 * 16, (128, 256), (16, 32)),
        (6, (512, 512), (2, 3)),
        (7, (512, 512), (1, 7)),
    ],
)
def test_tokens_are_taken_for_a_grid(tokens: int, size: tuple[int, int], grid: tuple[int, int]):
    rows, columns = grid_of(tokens, size)
    assert rows * columns == tokens
    assert {rows, columns} == set(grid) if size[0] == size[1] else (rows, columns) == grid


def test_tiles_of_512_are_whole_or_half_and_of_256_always_whole():
    options = TileOptions(enabled=True)
    large = Tiling((512, 512), options, random.Random(1))
    counts = {large.counts(64, 64, depth=0) for _ in range(50)}
    assert counts == {(1, 1), (1, 2), (2, 1), (2, 2)}
    small = Tiling((256, 256), options, random.Random(1))
    assert {small.counts(32, 32, depth=0) for _ in range(20)} == {(1, 1)}


def test_tiles_grow_with_depth_and_are_chosen_by_the_seed():
    tiling = Tiling((1024, 1024), TileOptions(enabled=True), random.Random(5))
    assert {tiling.counts(16, 16, depth=3) for _ in range(20)} == {(1, 1)}
    choices = [
        [Tiling((1024, 1024), TileOptions(), random.Random(s)).counts(128, 128, 0) for _ in "ab"]
        for s in (5, 5)
    ]
    assert choices[0] == choices[1]


class FirstChoice(random.Random):
    """Takes the smallest tile every time."""

    def randint(self, a: int, b: int) -> int:
        return a


def tiles_seen(unet: Any, *, is_sdxl: bool, max_depth: int) -> int:
    """How many layers a tiling of some depth takes part in."""
    tiling = Tiling((256, 256), replace(SMALL_TILES, max_depth=max_depth), random.Random(0))
    with hooks() as placed:
        tile_unet(placed, unet, tiling, is_sdxl=is_sdxl)
        return sum(1 for m in unet.modules() if len(m._forward_pre_hooks) > 0)


def test_deeper_tiling_takes_in_more_layers_and_leaves_none_behind():
    sd1, sdxl = build_sd1(words=FEW_WORDS).unet, build_sdxl(words=FEW_WORDS).unet
    # one attention level: two layers down, three up; the middle is depth 3
    assert [tiles_seen(sd1, is_sdxl=False, max_depth=d) for d in (0, 2, 3)] == [5, 5, 6]
    # at the half resolution two layers each in five attentions; the middle is depth 2
    assert [tiles_seen(sdxl, is_sdxl=True, max_depth=d) for d in (0, 1, 2)] == [5, 10, 12]
    assert not any(m._forward_pre_hooks for u in (sd1, sdxl) for m in u.modules())


def test_tiles_of_a_vae_attend_among_themselves():
    vae = build_sd1(words=FEW_WORDS).vae
    layer = vae.decoder.mid_block.attentions[0]
    x = torch.randn(1, 64, 32, 32)
    with torch.inference_mode(), hooks() as placed:
        tile_vae(placed, vae, Tiling((256, 256), TileOptions(max_tile=128), FirstChoice()))
        whole = layer(x)
        quarter = layer(x[:, :, :16, :16])
    assert torch.allclose(whole[:, :, :16, :16], quarter, atol=1e-5)


@pytest.mark.parametrize("size", [(8, 64), (64, 8), (8, 16)])
def test_a_picture_one_token_wide_has_nothing_to_merge(
    engine: Engine, tiny: Job, size: tuple[int, int]
):
    plain = replace(tiny, width=size[0], height=size[1])
    merged = picture(engine, replace(plain, token_merging_ratio=0.5))
    assert np.array_equal(merged, picture(engine, plain))
