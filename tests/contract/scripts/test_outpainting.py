"""The scripts Outpainting mk2 and Poor man's outpainting."""

from pathlib import Path
from typing import Any

import pytest
from starlette.testclient import TestClient

from tests.contract.scripts.asking import ask, plain, refusal
from tests.fakes import FakeEngine

MK2, POOR = "Outpainting mk2", "Poor man's outpainting"
LARGE = {"width": 128, "height": 128}


def mk2(client: TestClient, pixels: int, blur: int, sides: list[str], **body: Any) -> Any:
    body = {"init_images": [plain(128, 128)], **LARGE} | body
    return ask(client, MK2, ["", pixels, blur, sides, 1.0, 0.05], **body)


@pytest.mark.parametrize(
    ("sides", "size"),
    [
        (["left"], (192, 128)),
        (["up", "down"], (128, 256)),
        (["left", "right", "up", "down"], (256, 256)),
    ],
)
def test_mk2_extends_the_chosen_sides(client: TestClient, sides: list[str], size: tuple[int, int]):
    (image,) = mk2(client, 64, 4, sides).images
    assert image.size == size


def test_mk2_draws_side_by_side_with_masks_for_latents(client: TestClient, engine: FakeEngine):
    mk2(client, 64, 4, ["up", "right"])
    assert [(job.width, job.height) for job in engine.jobs] == [(128, 128), (192, 128)]
    right, up = [job.init.mask.latent_image for job in engine.jobs if job.init and job.init.mask]
    assert right is not None
    assert up is not None
    # What is new and twice the blur is white; corners of the rest belong to it.
    assert [right.getpixel((x, 60)) for x in (56, 57)] == [0, 255]
    assert [up.getpixel((60, y)) for y in (71, 72)] == [255, 0]


def test_mk2_keeps_the_original_where_nothing_is_new(client: TestClient):
    (image,) = mk2(client, 64, 0, ["right"], seed=10).images
    assert image.getpixel((127, 64)) == (255, 0, 0)
    assert image.getpixel((130, 64)) == (10, 0, 0)


def test_mk2_shares_what_lacks_to_a_multiple_of_64(client: TestClient):
    (image,) = mk2(client, 8, 0, ["left", "right"]).images
    assert image.size == (192, 128)


def test_mk2_answers_batches_with_a_grid(client: TestClient):
    answer = mk2(client, 64, 4, ["left"], batch_size=2, n_iter=2)
    assert [image.size for image in answer.images] == [(384, 256)] + [(192, 128)] * 4
    assert (answer.info["seed"], answer.info["all_seeds"]) == (10, [10, 11])
    assert len(answer.info["infotexts"]) == 5


def test_mk2_writes_only_what_is_whole(client: TestClient, data_dir: Path):
    mk2(client, 64, 4, ["left", "right"], n_iter=2, save_images=True)
    names = sorted(path.name for path in (data_dir / "outputs").rglob("*.png"))
    assert names == ["00000-10.png", "00001-10.png", "grid-0000.png"]


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (["", 64, 60, ["left", "right"]], "x1 must be greater than or equal to x0"),
        (["", 0, 4, ["left"]], "pixels to expand"),
        (["", 64, 4, []], "outpainting direction"),
        (["", 64, 4, ["north"]], "direction"),
        (["", 300_000, 4, ["left"]], "megapixels"),
        (["", 64, -1, ["left"]], "mask_blur"),
    ],
)
def test_mk2_refuses_what_cannot_be(client: TestClient, args: list[object], words: str):
    assert words in refusal(client, MK2, args, init_images=[plain(64, 64)])


def poor(client: TestClient, args: list[object], **body: Any) -> Any:
    return ask(client, POOR, args, **{"init_images": [plain(128, 128)], **LARGE} | body)


def test_poor_mans_draws_the_tiles_that_are_not_the_original(
    client: TestClient, engine: FakeEngine
):
    answer = poor(client, [64, 4, 0, ["right"]])
    assert [image.size for image in answer.images] == [(192, 128)]
    assert [job.seeds[0] for job in engine.jobs] == [10]
    assert answer.info["extra_generation_params"]["Masked content"] == "fill"
    assert answer.info["extra_generation_params"]["Mask blur"] == 8


def test_poor_mans_counts_seeds_up_from_tile_to_tile(client: TestClient, engine: FakeEngine):
    answer = poor(client, [64, 4, 1, ["left", "right", "up", "down"]], n_iter=2, batch_size=2)
    assert [image.size for image in answer.images] == [(256, 256)]
    assert [job.seeds for job in engine.jobs] == [(10 + i,) for i in range(8)]  # not the middle
    assert (answer.info["seed"], answer.info["all_seeds"]) == (10, [17])


@pytest.mark.parametrize("content", [2, "latent noise"])
def test_poor_mans_content_is_an_index_or_a_name(
    client: TestClient, engine: FakeEngine, content: object
):
    poor(client, [64, 4, content, ["right"]])
    assert engine.jobs[0].init is not None
    assert engine.jobs[0].init.mask is not None
    assert engine.jobs[0].init.mask.content.value == "noise"


@pytest.mark.parametrize(
    ("args", "words"),
    [
        ([128, 4, 0, ["left"]], "less than width and height"),
        ([64, 4, 7, ["left"]], "content"),
        ([64, 4, 0, []], "outpainting direction"),
    ],
)
def test_poor_mans_refuses_what_cannot_be(client: TestClient, args: list[object], words: str):
    assert words in refusal(client, POOR, args, init_images=[plain()], **LARGE)
