"""The scripts Prompt matrix and Prompts from file or textbox."""

from pathlib import Path

import pytest
from starlette.testclient import TestClient

from tests.contract.scripts.asking import ask, refusal, send
from tests.fakes import FakeEngine

MATRIX, LINES = "Prompt matrix", "Prompts from file or textbox"


def test_matrix_draws_every_combination(client: TestClient):
    answer = ask(client, MATRIX, [], prompt="a cat| red,|old ")
    assert answer.info["all_prompts"] == ["a cat", "a cat, red", "a cat, old", "a cat, red, old"]
    assert answer.info["all_seeds"] == [10] * 4
    assert answer.info["all_subseeds"] == [1, 2, 3, 4]
    assert answer.info["index_of_first_image"] == 1
    assert [image.size for image in answer.images[1:]] == [(64, 64)] * 4
    assert answer.images[0].width > 128
    assert answer.images[0].height > 128


def test_matrix_may_put_parts_first_and_join_with_spaces(client: TestClient):
    answer = ask(client, MATRIX, [True, True, "positive", "space", 4], prompt="a cat|red|old")
    assert answer.info["all_prompts"][3] == "red old a cat"
    assert answer.info["all_seeds"] == [10, 11, 12, 13]


def test_matrix_of_negative_prompts_keeps_the_prompt(client: TestClient):
    answer = ask(client, MATRIX, [False, False, "negative"], negative_prompt="dog|blurry")
    assert answer.info["all_negative_prompts"] == ["dog", "dog, blurry"]
    assert answer.info["all_prompts"] == ["a cat", "a cat"]


def test_matrix_fills_batches_as_far_as_there_are_prompts(client: TestClient, engine: FakeEngine):
    answer = ask(client, MATRIX, [], prompt="a cat|red|old", batch_size=3)
    assert (engine.jobs[0].batch_size, engine.jobs[0].n_iter) == (3, 2)
    assert len(answer.images) == 5


def test_matrix_reaches_the_second_pass(client: TestClient, engine: FakeEngine):
    hires = {"enable_hr": True, "denoising_strength": 0.5, "hr_scale": 1.0}
    ask(client, MATRIX, [], prompt="a cat|red", **hires)
    assert engine.jobs[0].hires is not None
    assert engine.jobs[0].hires.prompts == ("a cat", "a cat, red")


def test_matrix_is_saved_beside_its_pictures(client: TestClient, data_dir: Path):
    ask(client, MATRIX, [], prompt="a cat|red", save_images=True)
    names = sorted(path.name for path in (data_dir / "outputs").rglob("*.png"))
    assert names == ["00000-10.png", "00001-10.png", "prompt_matrix-0000-10.png"]


def test_nothing_is_saved_unasked(client: TestClient, data_dir: Path):
    ask(client, MATRIX, [], prompt="a cat|red")
    assert not list((data_dir / "outputs").rglob("*.png"))


@pytest.mark.parametrize(
    ("args", "words"),
    [
        ([False, False, "both"], "script_args.prompt"),
        ([False, False, "positive", "semicolon"], "script_args.joining"),
    ],
)
def test_matrix_names_arguments_that_cannot_be(client: TestClient, args: list[object], words: str):
    assert words in refusal(client, MATRIX, args)


def test_matrix_of_too_many_parts_is_refused(client: TestClient):
    assert "1024 pictures" in refusal(client, MATRIX, [], prompt="a|b" + "|c" * 9)


def test_colour_that_is_none_is_refused(client: TestClient):
    options = {"grid_text_active_color": "cat"}
    words = refusal(client, MATRIX, [], prompt="a|b", override_settings=options)
    assert "grid_text_active_color" in words


@pytest.mark.parametrize("font", ["/no/font.ttf", "/dev/zero"])
def test_font_that_is_none_is_refused_before_anything_is_drawn(
    client: TestClient, engine: FakeEngine, font: str
):
    words = refusal(client, MATRIX, [], prompt="a|b", override_settings={"font": font})
    assert "font" in words
    assert engine.jobs == []


def test_lines_are_joined_with_the_prompt(client: TestClient):
    start = ask(client, LINES, [False, False, "start", "red\n\n blue \n"])
    assert start.info["all_prompts"] == ["red a cat", "blue a cat"]
    end = ask(client, LINES, [False, False, "end", "red"])
    assert end.info["all_prompts"] == ["a cat red"]


def test_lines_may_be_commands(client: TestClient, engine: FakeEngine):
    line = '--prompt a dog --negative_prompt "very bad" --steps 3 --seed 7 --sampler_name heun'
    answer = ask(client, LINES, [False, False, "start", line], negative_prompt="blurry")
    job = engine.jobs[0]
    assert (job.steps, job.seeds, job.sampler.name) == (3, (7,), "Heun")
    assert (job.prompts[0], job.negative_prompts[0]) == ("a dog a cat", "very bad blurry")
    assert answer.info["all_negative_prompts"] == ["blurry"]


def test_seeds_of_lines_go_on_when_asked(client: TestClient):
    answer = ask(client, LINES, [True, False, "start", "a\nb\nc"], batch_size=2)
    assert answer.seeds == [10, 11, 12, 13, 14, 15]
    assert (answer.info["seed"], answer.info["all_seeds"]) == (16, [16])
    assert (answer.info["subseed"], answer.info["all_subseeds"]) == (-1, [-1])


def test_lines_share_one_random_seed_when_asked(client: TestClient, engine: FakeEngine):
    ask(client, LINES, [False, True, "start", "a\nb"], seed=-1)
    assert engine.jobs[0].seeds == engine.jobs[1].seeds
    ask(client, LINES, [False, False, "start", "a\nb"], seed=-1)
    assert engine.jobs[2].seeds != engine.jobs[3].seeds


def test_a_line_that_is_no_command_is_a_prompt_with_a_warning(client: TestClient):
    answer = ask(client, LINES, [False, False, "start", "--sd_model nothing --steps 2"])
    assert answer.info["all_prompts"] == ["--sd_model nothing --steps 2 a cat"]
    assert "nothing" in answer.body["warnings"][0]


def test_no_lines_make_no_pictures(client: TestClient):
    answer = ask(client, LINES, [])
    assert (answer.images, answer.info["infotexts"]) == ([], [])


def test_an_impossible_line_is_named_before_anything_is_drawn(
    client: TestClient, engine: FakeEngine
):
    words = refusal(client, LINES, [False, False, "start", "a dog\n--prompt b --steps 0"])
    assert "line 2" in words
    assert "steps" in words
    assert engine.jobs == []


def test_a_request_that_no_answer_could_tell_of_is_refused_before_it_is_drawn(
    client: TestClient, engine: FakeEngine
):
    lines = [False, False, "start", "--prompt a --sampler_name Heun"]
    assert send(client, LINES, lines, sampler_name="none").status_code == 400
    assert engine.jobs == []


def test_unknown_sampler_of_a_line_is_a_400(client: TestClient):
    response = send(client, LINES, [False, False, "start", "--prompt a --sampler_name none"])
    assert response.status_code == 400


def test_a_lines_folder_must_be_allowed(client: TestClient):
    line = "--prompt a --outpath_samples /etc"
    response = send(client, LINES, [False, False, "start", line], save_images=True)
    assert response.status_code == 403
