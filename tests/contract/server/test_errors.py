import json
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from starlette.testclient import TestClient

from sdapi.app import build_app
from sdapi.images import encode_png, to_base64
from sdapi.services.jobs.worker import JobRunner
from sdapi.settings import Settings
from tests.contract.conftest import Serve
from tests.fakes import FakeEngine, FakeEngines

PNG = to_base64(encode_png(Image.new("RGB", (64, 64)), {}))
FIRST_PASS = {"enable_hr": True, "denoising_strength": 0.5, "width": 64, "height": 64}
KEYS = {"error", "detail", "body", "errors", "code", "request_id"}


def txt2img(client: TestClient, **body: Any) -> Any:
    return client.post("/sdapi/v1/txt2img", json={"width": 64, "height": 64, "steps": 1} | body)


def test_field_of_the_wrong_type_is_told_as_pydantic_1_did(client: TestClient):
    response = txt2img(client, steps="many")
    assert response.status_code == 422
    assert response.json() == {
        "detail": [
            {
                "loc": ["body", "steps"],
                "msg": "value is not a valid integer",
                "type": "type_error.integer",
            }
        ]
    }


def test_body_that_is_no_json_is_told_with_its_place(client: TestClient):
    response = client.post(
        "/sdapi/v1/txt2img", content=b'{"a": ', headers={"content-type": "application/json"}
    )
    (detail,) = response.json()["detail"]
    assert response.status_code == 422
    assert detail["type"] == "value_error.jsondecode"
    assert detail["loc"][0] == "body"


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b'{"prompt":"\xff"}', "it is not UTF-8 at byte 11"),
        (b'{"styles":' + b"[" * 100_000, "its brackets are nested too deeply"),
        (b'{"seed":' + b"9" * 5_000 + b"}", "it has a number with too many digits"),
    ],
    ids=["no UTF-8", "too deep", "too many digits"],
)
def test_body_that_cannot_be_read_is_told_with_the_reason(
    client: TestClient, content: bytes, reason: str
):
    headers = {"content-type": "application/json"}
    response = client.post("/sdapi/v1/txt2img", content=content, headers=headers)
    answer = response.json()
    assert response.status_code == 400
    assert answer.keys() == KEYS
    assert (answer["error"], answer["code"]) == ("HTTPException", "unreadable_body")
    assert answer["detail"] == f"There was an error parsing the body: {reason}"
    assert answer["request_id"] == response.headers["x-request-id"]


def test_unknown_path_and_method_have_the_frameworks_shape(client: TestClient):
    unknown, wrong = client.get("/sdapi/v1/nowhere"), client.get("/sdapi/v1/txt2img")
    assert (unknown.status_code, unknown.json()) == (404, {"detail": "Not Found"})
    assert (wrong.status_code, wrong.json()) == (405, {"detail": "Method Not Allowed"})


@pytest.mark.parametrize(
    ("path", "body", "status", "code", "detail"),
    [
        ("txt2img", {"sampler_name": "no"}, 400, "sampler_not_found", "Sampler not found"),
        ("txt2img", {"scheduler": "no"}, 422, "unknown_name", "Scheduler 'no' not found"),
        ("txt2img", {"script_name": "no"}, 422, "script_not_found", "Script 'no' not found"),
        (
            "txt2img",
            {"alwayson_scripts": {"no": {"args": []}}},
            422,
            "script_not_found",
            "Script 'no' not found",
        ),
        (
            "txt2img",
            {"alwayson_scripts": {"X/Y/Z plot": {"args": []}}},
            422,
            "script_not_found",
            "Cannot have a selectable script in the always on scripts params",
        ),
        ("txt2img", {"override_settings": {"no": 1}}, 422, "unknown_name", "'no' is not an option"),
        ("img2img", {}, 404, "not_found", "Init image not found"),
        ("img2img", {"init_images": ["!"]}, 422, "invalid_image", "Invalid encoded image"),
        ("txt2img", {"enable_hr": True}, 422, "bad_request", "denoising_strength: null"),
        (
            *("txt2img", {"enable_hr": True, "hr_upscaler": "Lanzos"}),
            *(422, "unknown_name", "could not find upscaler named Lanzos; there are 'Lanczos'"),
        ),
        (
            *("txt2img", {"enable_hr": True, "hr_sampler_name": "Eule"}),
            *(400, "sampler_not_found", "bad sampler name: Eule; there are 'Euler'"),
        ),
        (
            *("txt2img", {"enable_hr": True, "hr_checkpoint_name": "other"}),
            *(422, "unknown_name", "Could not find checkpoint with name other; there are 'one"),
        ),
        (
            *("txt2img", {"refiner_checkpoint": "other", "refiner_switch_at": 0.5}),
            *(422, "unknown_name", "Could not find checkpoint with name other; there are 'one"),
        ),
        ("txt2img", {"steps": 0}, 422, "bad_request", "steps"),
        ("png-info", {"image": ""}, 422, "invalid_image", "Invalid encoded image"),
    ],
)
def test_refusal_has_the_four_keys_and_ours(
    client: TestClient, path: str, body: dict[str, Any], status: int, code: str, detail: str
):
    response = client.post(f"/sdapi/v1/{path}", json=body)
    answer = response.json()
    assert (response.status_code, answer["code"]) == (status, code)
    assert answer.keys() - {"hint"} == KEYS
    assert answer["error"] == "HTTPException"
    assert answer["detail"].startswith(detail)
    assert (answer["body"], answer["errors"]) == ("", "")
    assert answer["request_id"] == response.headers["x-request-id"]


@pytest.mark.parametrize(
    ("path", "body", "place"),
    [
        ("sdapi/v1/img2img", {}, "init_images"),
        ("sdapi/v1/img2img", {"init_images": [PNG, "!"], "batch_size": 2}, "init_images.1"),
        ("sdapi/v1/img2img", {"init_images": [PNG], "mask": "!"}, "mask"),
        ("sdapi/v1/txt2img", FIRST_PASS | {"firstpass_image": "!"}, "firstpass_image"),
        ("sdapi/v1/extra-single-image", {"image": "!"}, "image"),
        (
            "sdapi/v1/extra-batch-images",
            {"imageList": [{"data": PNG, "name": "a"}, {"data": "!", "name": "b"}]},
            "imageList.1.data",
        ),
        ("sdapi/v1/png-info", {"image": "!"}, "image"),
        ("sdapi/v1/interrogate", {"image": "!"}, "image"),
        ("controlnet/detect", {}, "controlnet_input_images"),
        (
            "sdapi/v1/txt2img",
            {"sampler_name": "Eulr"},
            "sampler 'Eulr' (the nearest are 'Euler', 'Euler a', ",
        ),
        (
            *("sdapi/v1/txt2img", {"script_name": "X/Y plot"}),
            "script_name 'X/Y plot' (the nearest are 'x/y/z plot', ",
        ),
        (
            *("sdapi/v1/txt2img", {"alwayson_scripts": {"ControlNets": {"args": []}}}),
            "alwayson_scripts 'ControlNets' (the nearest are 'controlnet', ",
        ),
        (
            *("sdapi/v1/txt2img", {"alwayson_scripts": {"X/Y/Z plot": {"args": []}}}),
            "alwayson_scripts.X/Y/Z plot",
        ),
        ("sdapi/v1/txt2img", {"steps": 0}, None),
    ],
)
def test_a_key_tells_the_field_that_the_webuis_text_does_not(
    client: TestClient, path: str, body: dict[str, Any], place: str | None
):
    answer = client.post(f"/{path}", json=body).json()
    assert answer["errors"] == ""
    if place is None:
        assert "hint" not in answer
    else:
        assert answer["hint"].startswith(place)
        assert answer["hint"].endswith(f": {answer['detail']}")


def test_tasks_and_url_mode_tell_it_in_their_sentence(client: TestClient):
    eas = {"save_dir": "out", "id_task": "x"}
    body = {"init_images": ["!"], "alwayson_scripts": eas}
    told = client.post("/sdapi/v1/img2img", json=body).json()["parameters"]["error_msg"]
    assert told == "init_images.0: Invalid encoded image"
    status = client.get("/sdapi/v1/task", params={"id_task": "x"}).json()
    assert status["error"] == told


@pytest.mark.parametrize("action", ["interrupt", "skip"])
def test_stopping_a_task_that_is_not_there_names_it(client: TestClient, action: str):
    response = client.post(f"/sdapi/v1/{action}", params={"id_task": "typo"})
    answer = response.json()
    assert (response.status_code, answer["code"]) == (404, "not_found")
    assert answer.keys() == KEYS
    assert "'typo'" in answer["detail"]
    assert client.post(f"/sdapi/v1/{action}").status_code == 200


def test_unexpected_exception_shows_its_class_name_only(client: TestClient, engine: FakeEngine):
    engine.failure = lambda job: ZeroDivisionError("a secret /path")
    response = txt2img(client)
    answer = response.json()
    assert response.status_code == 500
    assert answer.keys() == KEYS
    assert (answer["error"], answer["detail"], answer["errors"]) == ("ZeroDivisionError", "", "")
    assert "secret" not in response.text
    engine.failure = lambda job: None
    assert txt2img(client).status_code == 200


def test_queue_over_its_limit_says_when_to_come_again(serve: Serve):
    client = serve(queue_limit=0)
    response = txt2img(client)
    assert response.status_code == 429
    assert int(response.headers["retry-after"]) > 0


def test_body_over_the_limit_is_refused_before_it_is_read(serve: Serve):
    client = serve(max_body_bytes=1000)
    response = txt2img(client, prompt="x" * 2000)
    assert response.status_code == 413
    assert "--max-body-mb" in response.json()["detail"]


@pytest.mark.parametrize("path", ["/sdapi/v1/txt2img", "/sdapi/v1/png-info"])
def test_body_of_no_declared_length_is_refused_once_it_is_over_the_limit(serve: Serve, path: str):
    client = serve(max_body_bytes=1000)
    response = client.post(path, content=iter([b'{"prompt": "', b"x" * 600, b"x" * 600, b'"}']))
    answer = response.json()
    assert (response.status_code, answer["code"]) == (413, "body_too_large")
    assert answer.keys() == KEYS
    assert "--max-body-mb" in answer["detail"]
    assert response.headers["connection"] == "close"
    assert answer["request_id"] == response.headers["x-request-id"]


@pytest.mark.parametrize("value", ["\ud800", "a\u0000b", "🦊" * 500])
def test_odd_letters_are_answered(client: TestClient, value: str):
    body = json.dumps({"prompt": value, "steps": 1, "width": 64, "height": 64}).encode()
    headers = {"content-type": "application/json"}
    assert client.post("/sdapi/v1/txt2img", content=body, headers=headers).status_code == 200


@pytest.mark.parametrize("value", ["NaN", "Infinity", "1e30"])
def test_number_that_no_arithmetic_survives_is_the_clients_mistake(client: TestClient, value: str):
    body = f'{{"prompt": "a", "cfg_scale": {value}}}'
    headers = {"content-type": "application/json"}
    answer = client.post("/sdapi/v1/txt2img", content=body, headers=headers)
    assert answer.status_code == 422
    assert "cfg_scale" in answer.text


def test_integers_beyond_64_bits_are_echoed(client: TestClient):
    answer = client.post("/sdapi/v1/txt2img", json={"script_args": [2**70], "steps": 1})
    assert answer.status_code == 200
    assert answer.json()["parameters"]["script_args"] == [2**70]


class NoEngines(FakeEngines):
    """A machine on which no device works."""

    def make(self, settings: Settings, name: str) -> JobRunner:
        raise OSError("no driver")


def test_server_without_a_working_device_says_so(data_dir: Path):
    app = build_app(Settings(data_dir=data_dir), NoEngines(FakeEngine()))
    with TestClient(app, raise_server_exceptions=False) as client:
        answer = client.post("/sdapi/v1/txt2img", json={"steps": 1})
        assert (answer.status_code, answer.json()["code"]) == (503, "no_device")
        assert client.get("/readyz").status_code == 503
        assert client.get("/healthz").status_code == 200
