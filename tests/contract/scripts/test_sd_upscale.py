"""The script SD upscale."""

from typing import Any

import pytest
from starlette.testclient import TestClient

from tests.contract.scripts.asking import ask, plain, refusal
from tests.fakes import FakeEngine

NAME = "SD upscale"


def upscale(client: TestClient, args: list[object], **body: Any) -> Any:
    return ask(client, NAME, args, **{"init_images": [plain(96, 64)]} | body)


@pytest.mark.parametrize("upscaler", [1, "lanczos", "Lanczos"])
def test_picture_is_enlarged_and_drawn_in_tiles(
    client: TestClient, engine: FakeEngine, upscaler: object
):
    answer = upscale(client, ["", 16, upscaler, 2.0])
    assert [image.size for image in answer.images] == [(192, 128)]
    assert [job.seeds for job in engine.jobs] == [(10 + i,) for i in range(12)]
    assert list(answer.info["extra_generation_params"]) == [
        *("SD upscale overlap", "SD upscale upscaler", "Denoising strength")
    ]


def test_without_an_upscaler_the_size_stays(client: TestClient):
    (image,) = upscale(client, ["", 16, 0, 4.0]).images
    assert image.size == (96, 64)


def test_tiles_are_drawn_in_groups_of_a_batch(client: TestClient, engine: FakeEngine):
    # 3 x 1 tiles in groups of two: the last one is drawn twice and shown once.
    answer = upscale(client, ["", 0, 0], init_images=[plain(192, 64)], batch_size=2)
    assert [job.seeds for job in engine.jobs] == [(10, 11), (11, 12)]
    image = answer.images[0]
    assert [image.getpixel((x, 0))[0] for x in (0, 64, 128)] == [10, 11, 11]


def test_each_iteration_begins_one_seed_further(client: TestClient, engine: FakeEngine):
    answer = upscale(client, ["", 0, "None"], init_images=[plain(128, 64)], n_iter=2)
    assert [job.seeds[0] for job in engine.jobs] == [10, 11, 11, 12]
    assert len(answer.images) == 2
    assert answer.info["seed"] == 10


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (["", 16, "best"], "'best' is not in list"),
        (["", 16, 99], "99 is no index"),
        (["", 64, 0], "tile overlap"),
        (["", 16, 1, 0.01], "scale factor"),
        (["", 16, 1, -1], "script_args.scale"),
        (["", 0, 1, 100.0], "tiles"),
    ],
)
def test_what_cannot_be_is_named(client: TestClient, args: list[object], words: str):
    assert words in refusal(client, NAME, args, init_images=[plain(64, 64)])
