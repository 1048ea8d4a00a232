"""A job of 1,000 steps on a real engine, stopped over HTTP."""

import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from starlette.testclient import TestClient

from sdapi.engine.jobs.monitor import Monitor
from tests.replay.golden_replay import replaying
from tests.servers import wait_ready

STEPS = 1000
REQUEST = {"prompt": "a cat", "steps": STEPS, "width": 64, "height": 64, "seed": 1}


@pytest.fixture
def client(golden: Path, tmp_path: Path) -> Iterator[TestClient]:
    with replaying(golden, data_dir=tmp_path / "data") as replay:
        yield replay.client


def test_a_job_of_a_thousand_steps_stops_within_one(
    client: TestClient, monkeypatch: pytest.MonkeyPatch
):
    answers: list[Any] = []
    steps: list[int] = []
    step_done = Monitor.step_done

    def noting(monitor: Monitor, index: int) -> None:
        steps.append(index)
        step_done(monitor, index)

    monkeypatch.setattr(Monitor, "step_done", noting)

    def ask(**body: Any) -> None:
        answers.append(client.post("/sdapi/v1/txt2img", json=REQUEST | body))

    running = threading.Thread(target=ask, kwargs={"force_task_id": "long"})
    waiting = threading.Thread(target=ask, kwargs={"force_task_id": "next", "steps": 1})
    running.start()
    wait_ready(lambda: step(client) > 2)
    waiting.start()
    wait_ready(lambda: client.get("/sdapi/v1/task?id_task=next").status_code == 200)
    client.post("/sdapi/v1/interrupt?id_task=long")
    told = max(steps)
    running.join(60)
    waiting.join(60)
    assert max(steps) <= told + 1 < STEPS - 1
    assert [answer.status_code for answer in answers] == [200, 200]
    assert [len(answer.json()["images"]) for answer in answers] == [1, 1]


def step(client: TestClient) -> int:
    """The step of the long job."""
    task = client.app.state.services.tasks.get("long")  # pyright: ignore
    return 0 if task is None else task.monitor.sampling_step
