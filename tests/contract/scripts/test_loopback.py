"""The script Loopback."""

from pathlib import Path

import pytest
from starlette.testclient import TestClient

from tests.contract.scripts.asking import ask, plain, refusal
from tests.fakes import FakeEngine


def strengths(engine: FakeEngine) -> list[float]:
    return [round(job.init.denoising_strength, 3) for job in engine.jobs if job.init]


@pytest.mark.parametrize(
    ("curve", "expected"),
    [
        ("Linear", [0.6, 0.45, 0.3]),
        ("Aggressive", [0.6, 0.388, 0.3]),
        ("Lazy", [0.6, 0.512, 0.3]),
    ],
)
def test_strength_moves_from_first_to_final(
    client: TestClient, engine: FakeEngine, curve: str, expected: list[float]
):
    ask(client, "Loopback", [3, 0.3, curve], init_images=[plain()], denoising_strength=0.6)
    assert strengths(engine) == expected


def test_each_picture_is_the_next_init_image(client: TestClient, engine: FakeEngine):
    ask(client, "loopback", [3], init_images=[plain()])
    starts = [job.init.images[0].getpixel((0, 0)) for job in engine.jobs if job.init]
    assert starts == [(255, 0, 0), (10, 0, 0), (11, 0, 0)]


def test_answer_begins_with_one_row_and_tells_the_first_text(client: TestClient):
    answer = ask(client, "loopback", [2], init_images=[plain()], denoising_strength=0.6)
    assert [image.size for image in answer.images] == [(128, 64), (64, 64), (64, 64)]
    assert len(set(answer.info["infotexts"])) == 1
    assert (answer.info["seed"], answer.info["all_seeds"]) == (10, [11])
    assert answer.info["index_of_first_image"] == 0


def test_of_several_batches_the_last_pictures_are_shown(client: TestClient):
    options = {"return_grid": False}
    answer = ask(
        client, "loopback", [2], init_images=[plain()], n_iter=3, override_settings=options
    )
    assert answer.seeds == [11, 13, 15]


def test_masked_content_is_the_original_after_the_first(client: TestClient, engine: FakeEngine):
    mask = plain(colour="white")
    fill = {"inpainting_fill": 2, "inpaint_full_res": False}
    ask(client, "loopback", [2], init_images=[plain()], mask=mask, n_iter=2, **fill)
    contents = [job.init.mask.content.value for job in engine.jobs if job.init and job.init.mask]
    assert contents == ["noise", "picture"] * 2


def test_pictures_and_their_grid_are_saved(client: TestClient, data_dir: Path):
    ask(client, "loopback", [2], init_images=[plain()], save_images=True)
    names = sorted(path.name for path in (data_dir / "outputs").rglob("*.png"))
    assert names == ["00000-10.png", "00001-11.png", "grid-0000.png"]


@pytest.mark.parametrize(
    ("args", "place"),
    [
        ([0], "script_args.loops"),
        (["many"], "script_args.loops"),
        ([2, 0.5, "Sudden"], "script_args.curve"),
        ([2, 0.5, "Linear", "GPT"], "script_args.interrogate"),
        ([1001], "script_args.loops"),
    ],
)
def test_arguments_that_cannot_be_are_named(client: TestClient, args: list[object], place: str):
    assert place in refusal(client, "loopback", args, init_images=[plain()])


def test_interrogation_without_its_model_names_the_file(client: TestClient):
    body = {"init_images": [plain()], "script_name": "loopback"}
    response = client.post(
        "/sdapi/v1/img2img", json=body | {"script_args": [2, 0.5, "Linear", "CLIP"]}
    )
    assert response.status_code == 503
    assert "BLIP" in response.json()["detail"]


def test_it_is_no_script_of_txt2img(client: TestClient):
    assert refusal(client, "Loopback", [2]) == "Script 'Loopback' not found"
