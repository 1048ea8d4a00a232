"""The script X/Y/Z plot."""

from pathlib import Path
from typing import Any

import pytest
from starlette.testclient import TestClient

from sdapi.engine.jobs.job import Job
from sdapi.errors import BadRequest, OutOfMemory
from tests.contract.conftest import Serve
from tests.contract.scripts.asking import Answered, ask, plain, refusal, send
from tests.fakes import FakeEngine

NAME = "X/Y/Z plot"
Axis = tuple[object, str, list[str] | None]
NOTHING: Axis = (0, "", [])


def args(
    x: Axis = NOTHING,
    y: Axis = NOTHING,
    z: Axis = NOTHING,
    *,
    legend: bool = False,
    images: bool = False,
    grids: bool = False,
    keep: bool = False,
    vary: tuple[bool, bool, bool] = (False, False, False),
    margin: int = 0,
    as_text: bool = False,
) -> list[Any]:
    return [*x, *y, *z, legend, images, grids, keep, *vary, margin, as_text]


def values(engine: FakeEngine, field: str) -> list[Any]:
    return [getattr(job, field) for job in engine.jobs]


def test_columns_are_x_and_rows_are_y(client: TestClient):
    answer = ask(client, NAME, args(x=(1, "5,6,7", []), y=(4, "1,2", []), images=True))
    grid = answer.images[0]
    assert grid.size == (192, 128)
    assert [grid.getpixel((x, y))[0] for y in (0, 64) for x in (0, 64, 128)] == [5, 6, 7] * 2
    assert answer.seeds[1:] == [5, 6, 7] * 2


def test_each_z_has_a_grid_of_its_own(client: TestClient):
    answer = ask(client, NAME, args(x=(1, "5,6", []), z=(4, "1,2,3", []), grids=True))
    assert [image.size for image in answer.images] == [(384, 64)] + [(128, 64)] * 3
    assert answer.info["all_seeds"] == [5, 5, 5, 5, 6, 5, 6, 5, 6]
    assert len(answer.info["infotexts"]) == 1 + 3 + 6
    assert "Z Type: Steps" in answer.info["infotexts"][0]
    assert "Z Type" not in answer.info["infotexts"][1]


def test_legend_and_margin_belong_together(client: TestClient):
    bare = ask(client, NAME, args(x=(4, "1,2", []), margin=10)).images[0]
    with_legend = ask(client, NAME, args(x=(4, "1,2", []), legend=True, margin=10)).images[0]
    assert bare.size == (128, 64)
    assert with_legend.width == 128 + 10
    assert with_legend.height > 64


def test_axes_are_told_by_name_too(client: TestClient, engine: FakeEngine):
    ask(client, NAME, args(x=("Steps", "1-3", None)))
    assert values(engine, "steps") == [1, 2, 3]


def test_lists_are_taken_unless_texts_are_asked_for(client: TestClient, engine: FakeEngine):
    ask(client, NAME, args(x=(9, "DDIM", ["Heun", "LMS"])))
    ask(client, NAME, args(x=(9, "DDIM", ["Heun"]), as_text=True))
    ask(client, NAME, args(x=(9, "PLMS", None)))
    assert [job.sampler.name for job in engine.jobs] == ["Heun", "LMS", "DDIM", "PLMS"]


def test_no_values_make_no_pictures(client: TestClient):
    answer = ask(client, NAME, args(x=(9, "DDIM", [])))
    assert (answer.images, answer.info["infotexts"]) == ([], [])


def test_the_dearest_axis_changes_least_often(client: TestClient, engine: FakeEngine):
    checkpoints = (11, "", ["one", "one.safetensors"])
    ask(client, NAME, args(x=checkpoints, y=(4, "1,2", []), z=(5, "0,1", [])))
    assert values(engine, "steps") == [1, 2, 1, 2] * 2


def test_prompt_search_and_replace(client: TestClient):
    answer = ask(client, NAME, args(x=(7, "cat, dog", [])), negative_prompt="no cat")
    assert answer.info["all_prompts"] == ["a cat", "a dog"]
    assert "no dog" in answer.info["infotexts"][2]


def test_prompt_order(client: TestClient):
    answer = ask(client, NAME, args(x=(8, "cat,photo", [])), prompt="a photo of a cat")
    assert answer.info["all_prompts"] == ["a cat of a photo", "a photo of a cat"]


def test_seeds_vary_by_place_when_asked(client: TestClient, engine: FakeEngine):
    ask(client, NAME, args(x=(4, "1,2", []), y=(6, "1,2,3", []), vary=(True, True, False)))
    assert [job.seeds[0] for job in engine.jobs] == [10, 11, 12, 13, 14, 15]


def test_random_seeds_are_fixed_unless_kept(client: TestClient, engine: FakeEngine):
    ask(client, NAME, args(x=(4, "1,2", [])), seed=-1)
    assert engine.jobs[0].seeds == engine.jobs[1].seeds
    answer = ask(client, NAME, args(x=(1, "-1,-1", [])))
    assert engine.jobs[2].seeds != engine.jobs[3].seeds
    assert f'Fixed X Values: "{engine.jobs[2].seeds[0]}, ' in answer.info["infotexts"][0]
    ask(client, NAME, args(x=(4, "1,2", []), keep=True), seed=-1)
    assert engine.jobs[4].seeds != engine.jobs[5].seeds


@pytest.mark.parametrize(
    ("axis", "text", "read", "expected"),
    [
        ("CFG Scale", "1-2 [3]", lambda job: job.cfg_scale, [1.0, 1.5, 2.0]),
        ("Clip skip", "1,2", lambda job: job.options.clip_skip, [1, 2]),
        ("Schedule rho", "1.5", lambda job: job.options.rho, [1.5]),
        ("Sigma Churn", "0.5", lambda job: job.churn.churn, [0.5]),
        ("Size", "64x128", lambda job: (job.width, job.height), [(64, 128)]),
        ("RNG source", "CPU", lambda job: job.options.randn_source, ["CPU"]),
        ("SGM noise multiplier", "TRUE", lambda job: job.options.sgm_noise_multiplier, [True]),
        ("UniPC Order", "3", lambda job: job.options.unipc.order, [2]),
        ("[Hypertile] Unet Max Depth", "2", lambda job: job.hypertile.unet.max_depth, [2]),
    ],
)
def test_axes_act(
    client: TestClient, engine: FakeEngine, axis: str, text: str, read: Any, expected: list[Any]
):
    body = {"steps": 3, "sampler_name": "UniPC"}
    options = {"hypertile_enable_unet": True}
    ask(client, NAME, args(x=(axis, text, None)), override_settings=options, **body)
    assert [read(job) for job in engine.jobs] == expected


def test_img2img_has_axes_of_its_own(client: TestClient, engine: FakeEngine):
    ask(client, NAME, args(x=(24, "0.3,0.6", [])), init_images=[plain()])
    assert [job.init.denoising_strength for job in engine.jobs if job.init] == [0.3, 0.6]


def test_a_cell_that_fails_is_black_and_told(client: TestClient, engine: FakeEngine):
    def fails(job: Job) -> BaseException | None:
        return OutOfMemory("no room") if job.steps == 2 else None

    engine.failure = fails
    answer = ask(client, NAME, args(x=(4, "1,2,3", [])))
    grid = answer.images[0]
    assert [grid.getpixel((x, 0))[0] for x in (0, 64, 128)] == [10, 0, 10]
    assert answer.info["infotexts"][2] is None
    assert answer.info["all_seeds"] == [10, None, 10]
    assert "Steps 2" in answer.body["warnings"][0]


def test_where_every_cell_fails_the_request_does(client: TestClient, engine: FakeEngine):
    engine.failure = lambda job: BadRequest("cannot be")
    assert refusal(client, NAME, args(x=(4, "1,2", []))) == "cannot be"


def test_a_defect_in_a_cell_is_the_requests(client: TestClient, engine: FakeEngine):
    engine.failure = lambda job: RuntimeError("broken")
    assert send(client, NAME, args(x=(4, "1,2", []))).status_code == 500


@pytest.mark.parametrize(
    ("axes", "words"),
    [
        (args(x=(99, "", [])), "X type: 99 is unknown"),
        (args(x=("Stepz", "", [])), "'Steps'"),
        (args(y=(4, "many", [])), "Y values: 'many'"),
        (args(x=(4, "1-2 (+0)", [])), "X values"),
        (args(x=(4, "1-100000", [])), "more than 1000 values"),
        (args(x=(6, "0-100000", [])), "at most 1000"),
        (args(x=(4, "1-100", []), y=(1, "1-100", [])), "10000 cells"),
        (args(x=(7, "dog,bird", [])), "Prompt S/R did not find dog in prompt or negative prompt."),
        (args(x=(8, "dog", [])), "is not in the prompt"),
        (args(x=(8, "a,b,c,d,e,f,g,h", [])), "orders"),
        (args(x=(11, "", ["none"])), "Unknown checkpoint: none"),
        (args(x=(29, "", ["none.vae"])), "VAE"),
        (args(x=(17, "", ["Karas"])), "Karras"),
        (args(x=(41, "large", [])), "Size: 'large'"),
        (args(x=(4, "5,0", [])), "steps"),
        (args(x=("[Hypertile] Unet Swap Size", "65", [])), "out of range [0, 64]"),
        (["x", 1, 2], "script_args"),
    ],
)
def test_what_cannot_be_is_named_before_anything_is_drawn(
    client: TestClient, engine: FakeEngine, axes: list[Any], words: str
):
    assert words in refusal(client, NAME, axes)
    assert engine.jobs == []


def test_unknown_sampler_is_a_400(client: TestClient):
    response = send(client, NAME, args(x=(9, "", ["none"])))
    assert response.status_code == 400
    assert "Unknown sampler: none" in response.json()["detail"]


def test_too_large_a_grid_is_refused(client: TestClient):
    options = {"img_max_size_mp": 1}
    words = refusal(client, NAME, args(x=(4, "1-300", [])), override_settings=options)
    assert "Resulting grid would be too large (1 MPixels)" in words


def test_a_request_cannot_lift_the_servers_limit_of_a_grid(client: TestClient, engine: FakeEngine):
    client.post("/sdapi/v1/options", json={"img_max_size_mp": 1})
    options = {"img_max_size_mp": 100_000}
    words = refusal(client, NAME, args(x=(4, "1-300", [])), override_settings=options)
    assert "max configured size is 1 MPixels" in words
    client.post("/sdapi/v1/options", json=options)
    words = refusal(client, NAME, args(x=(4, "1-600", [])), width=2048, height=2048)
    assert "megapixels in all; at most 1000" in words
    assert engine.jobs == []


def test_left_out_arguments_have_defaults(client: TestClient):
    answer = ask(client, NAME, [4, "1,2"])
    assert answer.images[0].height > 64  # with a legend


def test_grids_and_cells_are_saved(client: TestClient, data_dir: Path):
    ask(
        client,
        NAME,
        args(x=(1, "5,6", []), z=(4, "1,2", []), grids=True),
        save_images=True,
        batch_size=2,
    )
    names = sorted(path.name for path in (data_dir / "outputs").rglob("xyz_grid*"))
    assert names == ["xyz_grid-0000-5.png", "xyz_grid-0001-5.png", "xyz_grid-0002-5.png"]


def test_in_url_mode_grids_come_first_and_nothing_is_saved_twice(
    client: TestClient, data_dir: Path
):
    scripts = {"save_dir": str(data_dir / "outputs" / "mine")}
    answer = Answered(
        send(
            client,
            NAME,
            args(x=(1, "5,6", []), images=True),
            alwayson_scripts=scripts,
            save_images=True,
        ).json()
    )
    urls = answer.body["parameters"]["image_url"].split(",")
    assert ["txt2img-grids" in url for url in urls] == [True, False, False]
    assert answer.body["parameters"]["seed"] == "5,6"
    assert len(list((data_dir / "outputs").rglob("*.png"))) == 3


def test_eas_checkpoint_gives_way_to_the_axis(serve: Serve, data_dir: Path, engine: FakeEngine):
    (data_dir / "models/Stable-diffusion/two.safetensors").write_bytes(b"others")
    client = serve()
    eas = {"sd_model_checkpoint": "two"}
    ask(client, NAME, args(x=(4, "1", [])), alwayson_scripts=eas)
    ask(client, NAME, args(x=(11, "", ["one"])), alwayson_scripts=eas)
    assert [job.checkpoint.path.stem for job in engine.jobs] == ["two", "one"]


def test_script_info_names_the_axes(client: TestClient):
    listed = client.get("/sdapi/v1/script-info").json()
    plots = [each for each in listed if each["name"] == "x/y/z plot"]
    assert plots[0]["args"][0]["choices"][5] == "Hires steps"
    assert plots[1]["args"][0]["choices"][5] == "CFG Scale"
