"""The recorded section `async`: several calls at once, whose timing is nobody's to repeat."""

import json
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from starlette.testclient import TestClient

from tests.replay.golden_replay import replaying
from tests.servers import wait_ready

RECORDED = Path(__file__).parents[1] / "golden"
REQUEST = {
    "prompt": "a photo of a cat",
    "seed": 1,
    "steps": 30,
    "width": 256,
    "height": 256,
    "sampler_name": "Euler",
    "n_iter": 2,
    "force_task_id": "task(abc)",
}
KEYS = {"progress", "eta_relative", "state", "current_image", "textinfo"}
pytestmark = pytest.mark.slow


@pytest.fixture
def client(tmp_path: Path) -> Iterator[TestClient]:
    with replaying(RECORDED, data_dir=tmp_path / "data") as replay:
        yield replay.client


def drawing(client: TestClient) -> tuple[threading.Thread, list[Any]]:
    answers: list[Any] = []
    thread = threading.Thread(
        target=lambda: answers.append(client.post("/sdapi/v1/txt2img", json=REQUEST))
    )
    thread.start()
    wait_ready(lambda: progress(client)["state"]["sampling_step"] > 0)
    return thread, answers


def progress(client: TestClient, **params: str) -> dict[str, Any]:
    return client.get("/sdapi/v1/progress", params=params).json()


def test_running_job_is_told_and_interrupted(client: TestClient):
    thread, answers = drawing(client)
    told = progress(client, skip_current_image="true")
    assert told.keys() == KEYS
    state = told["state"]
    assert (state["job"], state["job_count"], state["sampling_steps"]) == (
        "Batch 1 out of 2",
        2,
        30,
    )
    share = 0.01 + (state["job_no"] + state["sampling_step"] / 30) / 2
    assert told["progress"] == pytest.approx(share)
    assert told["eta_relative"] > 0
    assert client.get("/sdapi/v1/samplers").status_code == 200
    for method, path in (("POST", "/internal/progress"), ("GET", "/internal/pending-tasks")):
        assert client.request(method, path, json={}).json() == {"detail": "Not Found"}
    assert client.post("/sdapi/v1/interrupt").json() == {}
    thread.join()
    answer = answers[0].json()
    assert len(answer["images"]) == 1
    assert_info(answer, pictures=1)
    idle = progress(client)
    assert (idle["progress"], idle["state"]["job_count"]) == (0.0, 0)
    assert idle["state"]["interrupted"]


def test_skip_ends_one_batch(client: TestClient):
    thread, answers = drawing(client)
    assert client.post("/sdapi/v1/skip").json() is None
    thread.join()
    assert len(answers[0].json()["images"]) == 2
    assert_info(answers[0].json(), pictures=2)


def assert_info(answer: dict[str, Any], *, pictures: int) -> None:
    """All seeds are told, and the texts of the pictures that there are."""
    info = json.loads(answer["info"])
    assert info["all_seeds"] == [1, 2]
    assert [f"Seed: {n}," in text for n, text in enumerate(info["infotexts"], 1)] == [
        True
    ] * pictures
