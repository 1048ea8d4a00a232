import base64
import io
import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from starlette.testclient import TestClient

from tests.contract.conftest import Serve
from tests.fakes import FakeEngine, colour_of
from tests.servers import wait_ready

SMALL: dict[str, Any] = {"width": 64, "height": 64, "steps": 5, "seed": 0x102030}


def txt2img(client: TestClient, **body: Any) -> Any:
    response = client.post("/sdapi/v1/txt2img", json=SMALL | body)
    assert response.status_code == 200, response.text
    return response.json()


def picture(encoded: str) -> Image.Image:
    return Image.open(io.BytesIO(base64.b64decode(encoded, validate=True)))


@contextmanager
def beside(client: TestClient, engine: FakeEngine, **body: Any) -> Iterator[list[Any]]:
    """A request that runs while the block does; its answer is in the list afterwards."""
    answers: list[Any] = []

    def ask() -> None:
        answers.append(client.post("/sdapi/v1/txt2img", json=SMALL | body))

    thread = threading.Thread(target=ask)
    thread.start()
    assert engine.is_running.wait(10)
    yield answers
    thread.join(20)
    assert answers


def test_picture_is_that_of_its_seed_and_tells_it(client: TestClient):
    answer = txt2img(client, prompt="a cat")
    image = picture(answer["images"][0])
    assert image.size == (64, 64)
    assert image.getpixel((5, 5)) == colour_of(SMALL["seed"])
    info = json.loads(answer["info"])
    assert info["seed"] == SMALL["seed"]
    assert info["infotexts"] == [image.info["parameters"]]
    assert "warnings" not in answer


def test_request_is_echoed_with_its_defaults(client: TestClient):
    parameters = txt2img(client, prompt="a cat")["parameters"]
    assert parameters["prompt"] == "a cat"
    assert (parameters["cfg_scale"], parameters["sampler_index"]) == (7.0, "Euler")


def test_missing_lora_is_a_warning_beside_the_pictures(client: TestClient):
    assert txt2img(client, prompt="<lora:gone:1>")["warnings"] == ["lora not found: gone"]


def test_png_info_reads_back_what_txt2img_wrote(client: TestClient):
    answer = txt2img(client, prompt="a cat", negative_prompt="dog")
    body = {"image": "data:image/png;base64," + answer["images"][0]}
    read = client.post("/sdapi/v1/png-info", json=body).json()
    assert read["info"] == json.loads(answer["info"])["infotexts"][0]
    assert read["parameters"]["Prompt"] == "a cat"
    assert read["parameters"]["Seed"] == str(SMALL["seed"])


def test_infotext_fills_what_the_request_leaves_out(client: TestClient):
    text = "a cat\nNegative prompt: dog\nSteps: 3, Sampler: Euler a, CFG scale: 4, Seed: 77"
    body = {"infotext": text, "width": 64, "height": 64, "steps": 2}
    info = json.loads(client.post("/sdapi/v1/txt2img", json=body).json()["info"])
    assert (info["prompt"], info["seed"], info["steps"]) == ("a cat", 77, 2)
    assert info["sampler_name"] == "Euler a"


def test_init_image_may_be_base64_or_a_data_uri(client: TestClient):
    out = io.BytesIO()
    Image.new("RGB", (32, 32)).save(out, "PNG")
    encoded = base64.b64encode(out.getvalue()).decode()
    for text in (encoded, "data:image/png;base64," + encoded):
        body = SMALL | {"init_images": [text]}
        response = client.post("/sdapi/v1/img2img", json=body)
        assert response.status_code == 200
        assert response.json()["parameters"]["init_images"] is None


def test_overrides_last_only_when_asked_to(client: TestClient, data_dir: Path):
    once = {"override_settings": {"samples_format": "jpg"}, "save_images": True}
    assert picture(txt2img(client, **once)["images"][0]).format == "PNG"
    assert len(list((data_dir / "outputs").rglob("*.jpg"))) == 1
    txt2img(client, **once, override_settings_restore_afterwards=False)
    assert picture(txt2img(client)["images"][0]).format == "JPEG"


def test_progress_of_a_running_job_and_of_none(client: TestClient, engine: FakeEngine):
    idle = client.get("/sdapi/v1/progress").json()
    assert (idle["progress"], idle["state"]["job_count"]) == (0.0, 0)
    engine.delay_s = 0.5
    body = {"alwayson_scripts": {"id_task": "mine"}}
    with beside(client, engine, **body):
        wait_ready(lambda: client.get("/sdapi/v1/progress").json()["progress"] > 0, 5)
        mine = client.get("/sdapi/v1/progress", params={"id_task": "mine"}).json()
        assert mine["progress"] > 0
        assert mine["textinfo"] is None
        other = client.get("/sdapi/v1/progress", params={"id_task": "other"}).json()
        assert (other["progress"], other["textinfo"]) == (0.0, "there is no task 'other'")
    assert client.get("/sdapi/v1/progress").json()["progress"] == 0.0


def test_interrupt_ends_the_running_job_early_with_what_it_has(
    client: TestClient, engine: FakeEngine
):
    engine.delay_s = 8
    began = time.monotonic()
    with beside(client, engine, n_iter=3) as answers:
        assert client.post("/sdapi/v1/interrupt").json() == {}
    assert time.monotonic() - began < 5
    assert answers[0].status_code == 200
    assert len(answers[0].json()["images"]) < 3


def test_interrupt_of_another_task_leaves_the_running_one_alone(
    client: TestClient, engine: FakeEngine
):
    engine.delay_s = 0.3
    with beside(client, engine, n_iter=2) as answers:
        client.post("/sdapi/v1/interrupt", params={"id_task": "other"})
    assert len(answers[0].json()["images"]) >= 2


def test_skip_cuts_the_running_batch_and_answers_null(client: TestClient, engine: FakeEngine):
    engine.delay_s = 8
    with beside(client, engine) as answers:
        assert client.post("/sdapi/v1/skip").json() is None
    assert answers[0].status_code == 200


def test_task_id_in_use_is_a_conflict(client: TestClient, engine: FakeEngine):
    engine.delay_s = 0.5
    body = {"alwayson_scripts": {"id_task": "mine"}}
    with beside(client, engine, **body) as answers:
        second = client.post("/sdapi/v1/txt2img", json=SMALL | body)
        assert (second.status_code, second.json()["code"]) == (409, "conflict")
    assert answers[0].json()["parameters"]["id_task"] == "mine"
    assert txt2img(client, **body)["parameters"]["id_task"] == "mine"


def test_task_id_of_a_refused_request_is_free_again(client: TestClient):
    body = {"alwayson_scripts": {"id_task": "mine"}}
    bad = client.post("/sdapi/v1/txt2img", json=SMALL | body | {"steps": 0})
    assert bad.status_code == 422
    assert txt2img(client, **body)["images"]


def test_cancelled_waiting_task_is_told_so(client: TestClient, engine: FakeEngine):
    engine.delay_s = 0.6
    body = SMALL | {"alwayson_scripts": {"id_task": "waits"}}
    answers: list[Any] = []
    with beside(client, engine):
        thread = threading.Thread(
            target=lambda: answers.append(client.post("/sdapi/v1/txt2img", json=body))
        )
        thread.start()
        tasks = client.app.state.services.tasks  # type: ignore[attr-defined]
        wait_ready(lambda: tasks.get("waits") is not None, 5)
        client.post("/sdapi/v1/interrupt", params={"id_task": "waits"})
        thread.join(5)
    assert (answers[0].status_code, answers[0].json()["code"]) == (409, "cancelled")
    assert len(engine.jobs) == 1


def test_health_tells_that_the_loop_lives_and_readiness_that_a_worker_does(client: TestClient):
    assert client.get("/healthz").json()["status"] == "ok"
    ready = client.get("/readyz").json()
    assert ready == {"status": "ready", "workers": {"fake": "ready"}}


def test_a_server_that_stops_is_not_ready(client: TestClient):
    client.app.state.begin_shutdown()  # type: ignore[attr-defined]
    answer = client.get("/readyz")
    assert (answer.status_code, answer.json()["status"]) == (503, "stopping")
    assert client.get("/healthz").status_code == 200


def test_listings_name_what_is_there(client: TestClient, data_dir: Path):
    (model,) = client.get("/sdapi/v1/sd-models").json()
    assert model["filename"] == str(data_dir / "models/Stable-diffusion/one.safetensors")
    assert model["model_name"] == "one"
    (data_dir / "models/Stable-diffusion/two.ckpt").write_bytes(b"x")
    assert client.post("/sdapi/v1/refresh-checkpoints").json() is None
    assert len(client.get("/sdapi/v1/sd-models").json()) == 2
    assert len(client.get("/sdapi/v1/samplers").json()) == 20
    assert client.get("/sdapi/v1/schedulers").json()[0]["label"] == "Automatic"
    assert client.get("/sdapi/v1/sd-vae").json() == []


@pytest.mark.parametrize("path", ["/", "/docs"])
def test_pages_load_nothing_from_other_hosts(client: TestClient, path: str):
    page = client.get(path)
    assert page.status_code == 200
    assert "http://" not in page.text
    assert "https://" not in page.text
    for name in ("swagger-ui-bundle.js", "swagger-ui.css", "redoc.standalone.js"):
        assert client.get(f"/docs-assets/{name}").status_code == 200


def test_page_is_left_out_with_nowebui(serve: Serve):
    assert serve().get("/").status_code == 200
    assert serve(webui=False).get("/").status_code == 404
