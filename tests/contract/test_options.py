import json
from pathlib import Path

import pytest
from starlette.testclient import TestClient

from tests.contract.conftest import Serve
from tests.fakes import FakeEngine
from tests.servers import wait_ready

OPTIONS = "/sdapi/v1/options"


def test_options_are_shown_as_the_webui_types_them(client: TestClient):
    options = client.get(OPTIONS).json()
    assert options["sd_model_checkpoint"].startswith("one.safetensors")
    assert isinstance(options["jpeg_quality"], float)  # a whole default that is not 0
    assert isinstance(options["eta_noise_seed_delta"], int)
    assert options["samples_save"] is True


def test_change_is_answered_with_null_shown_and_kept_on_disk(client: TestClient, data_dir: Path):
    response = client.post(OPTIONS, json={"CLIP_stop_at_last_layers": "2", "samples_format": "jpg"})
    assert (response.status_code, response.json()) == (200, None)
    assert client.get(OPTIONS).json()["CLIP_stop_at_last_layers"] == 2.0
    kept = json.loads((data_dir / "config.json").read_text("utf-8"))
    assert kept["samples_format"] == "jpg"


@pytest.mark.parametrize(
    ("key", "value", "shown"),
    [
        ("samples_save", "false", False),
        ("samples_save", 0, False),
        ("samples_save", "no", False),
        ("samples_save", "perhaps", "perhaps"),
        ("samples_filename_pattern", 5, 5),  # no type where a default is empty
        ("save_txt", "true", "true"),
        ("samples_format", 5, "5"),
        ("jpeg_quality", "75", 75.0),
        ("code_former_weight", "0.25", 0.25),
    ],
)
def test_a_value_is_shown_in_the_type_of_its_default(
    client: TestClient, key: str, value: object, shown: object
):
    assert client.post(OPTIONS, json={key: value}).status_code == 200
    answered = client.get(OPTIONS).json()[key]
    assert (answered, type(answered)) == (shown, type(shown))


def test_unknown_key_changes_nothing(client: TestClient):
    response = client.post(OPTIONS, json={"samples_format": "jpg", "sample_format": "jpg"})
    assert response.status_code == 422
    assert "'sample_format' is not an option" in response.json()["detail"]
    assert "'samples_format'" in response.json()["detail"]
    assert client.get(OPTIONS).json()["samples_format"] == "png"


@pytest.mark.parametrize(
    ("key", "words"), [("sd_model_checkpoint", "model 'no' not found"), ("sd_vae", "VAE 'no'")]
)
def test_model_that_is_not_there_is_refused(client: TestClient, key: str, words: str):
    response = client.post(OPTIONS, json={key: "no"})
    assert response.status_code == 422
    assert words in response.json()["detail"]


@pytest.mark.parametrize(
    ("values", "status", "words"),
    [
        ({"CLIP_stop_at_last_layers": 99}, 422, "CLIP_stop_at_last_layers: 99"),
        ({"randn_source": "TPU"}, 422, "randn_source"),
        ({"token_merging_ratio": 5}, 422, "token_merging_ratio"),
        ({"fp8_storage": "Enable"}, 501, "fp8_storage"),
        ({"outdir_txt2img_samples": "/etc/x"}, 403, "outdir_txt2img_samples"),
    ],
)
def test_a_value_that_would_stop_every_request_is_refused(
    client: TestClient, values: dict[str, object], status: int, words: str
):
    before = client.get(OPTIONS).json()
    response = client.post(OPTIONS, json={"eta_ddim": 0.5} | values)
    assert (response.status_code, words in response.text) == (status, True), response.text
    assert client.get(OPTIONS).json() == before


def test_file_format_that_is_none_is_kept_and_refused_when_it_is_needed(client: TestClient):
    assert client.post(OPTIONS, json={"samples_format": "gif"}).status_code == 200
    assert client.get(OPTIONS).json()["samples_format"] == "gif"
    response = client.post("/sdapi/v1/txt2img", json={"width": 64, "height": 64, "steps": 1})
    assert (response.status_code, response.json()["detail"]) == (422, "Invalid image format")


def test_other_options_may_change_while_one_in_the_file_is_no_good(serve: Serve, data_dir: Path):
    (data_dir / "config.json").write_text('{"CLIP_stop_at_last_layers": 99}')
    client = serve()
    assert client.post(OPTIONS, json={"eta_ddim": 0.5}).status_code == 200
    assert client.post(OPTIONS, json={"CLIP_stop_at_last_layers": 1}).status_code == 200


def test_body_that_is_no_object_is_told_as_pydantic_1_did(client: TestClient):
    response = client.post(OPTIONS, json=[1])
    assert response.json()["detail"][0]["msg"] == "value is not a valid dict"


def test_other_checkpoint_is_loaded_and_shown_with_its_hash(
    serve: Serve, data_dir: Path, engine: FakeEngine
):
    (data_dir / "models/Stable-diffusion/two.safetensors").write_bytes(b"other weights")
    client = serve()
    assert client.post(OPTIONS, json={"sd_model_checkpoint": "two"}).status_code == 200
    assert client.get(OPTIONS).json()["sd_model_checkpoint"].startswith("two.safetensors [")
    wait_ready(lambda: any(file.path.stem == "two" for file in engine.loaded), 5)


def test_checkpoint_of_the_command_line_comes_first(serve: Serve, data_dir: Path):
    (data_dir / "models/Stable-diffusion/two.safetensors").write_bytes(b"other weights")
    (data_dir / "config.json").write_text('{"sd_model_checkpoint": "one.safetensors"}')
    shown = serve(ckpt="two").get(OPTIONS).json()["sd_model_checkpoint"]
    assert shown.startswith("two.safetensors")


def test_frozen_settings_refuse_every_change(serve: Serve):
    response = serve(freeze_settings=True).post(OPTIONS, json={"samples_format": "jpg"})
    assert (response.status_code, response.json()["detail"]) == (
        422,
        "changing settings is disabled",
    )


@pytest.mark.parametrize(
    "settings",
    [
        {"freeze_settings_in_sections": ("saving-images",)},
        {"freeze_specific_settings": ("samples_format",)},
    ],
)
def test_fixed_options_are_passed_over_without_a_word(serve: Serve, settings: dict):
    client = serve(**settings)
    client.post(OPTIONS, json={"samples_format": "jpg", "api_useragent": "x", "eta_ddim": 0.5})
    options = client.get(OPTIONS).json()
    assert (options["samples_format"], options["api_useragent"], options["eta_ddim"]) == (
        "png",
        "",
        0.5,
    )


def test_folders_stay_when_their_settings_are_hidden(serve: Serve):
    client = serve(hide_ui_dir_config=True)
    client.post(OPTIONS, json={"outdir_txt2img_samples": "elsewhere"})
    assert client.get(OPTIONS).json()["outdir_txt2img_samples"] != "elsewhere"


def test_options_file_that_cannot_be_written_leaves_the_options(client: TestClient, data_dir: Path):
    (data_dir / "config.json").mkdir()
    response = client.post(OPTIONS, json={"samples_format": "jpg"})
    assert response.status_code == 507
    assert client.get(OPTIONS).json()["samples_format"] == "png"


def test_flags_are_shown_without_credentials(serve: Serve):
    client = serve(flag_values={"api_auth": "a:b"}, api_auth=(("a", "b"),))
    flags = client.get("/sdapi/v1/cmd-flags", auth=("a", "b")).json()
    assert flags["api_auth"] == "***"
    assert flags["data_dir"].endswith("data")
