"""A job of 1,000 steps on a real engine, stopped over HTTP."""

import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from starlette.testclient import TestClient

from tests.replay.golden_replay import replaying
from tests.servers import wait_ready

STEPS = 1000
REQUEST = {"prompt": "a cat", "steps": STEPS, "width": 64, "height": 64, "seed": 1}


@pytest.fixture
def client(golden: Path, tmp_path: Path) -> Iterator[TestClient]:
    with replaying(golden, data_dir=tmp_path / "data") as replay:
        yield replay.client


def test_a_job_of_a_thousand_steps_stops_within_one(client: TestClient):
    answers: list[Any] = []

    def ask(**body: Any) -> None:
        answers.append(client.post("/sdapi/v1/txt2img", json=REQUEST | body))

    running = threading.Thread(target=ask, kwargs={"force_task_id": "long"})
    waiting = threading.Thread(target=ask, kwargs={"force_task_id": "next", "steps": 1})
    running.start()
    wait_ready(lambda: step(client) > 2)
    waiting.start()
    wait_ready(lambda: client.get("/sdapi/v1/task?id_task=next").status_code == 200)
    client.post("/sdapi/v1/interrupt?id_task=long")
    told = step(client)
    running.join(60)
    waiting.join(60)
    tasks = client.app.state.services.tasks  # pyright: ignore
    assert tasks.get("long").monitor.sampling_step <= told + 1 < STEPS
    assert [answer.status_code for answer in answers] == [200, 200]
    assert [len(answer.json()["images"]) for answer in answers] == [1, 1]


def step(client: TestClient) -> int:
    """The step of the long job."""
    task = client.app.state.services.tasks.get("long")  # pyright: ignore
    return 0 if task is None else task.monitor.sampling_step
