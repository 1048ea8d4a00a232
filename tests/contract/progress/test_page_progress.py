"""What the webui's page asks about tasks."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from starlette.testclient import TestClient

from tests.fakes import FakeEngine
from tests.servers import wait_ready

SMALL = {"width": 64, "height": 64, "steps": 10}


@contextmanager
def drawing(client: TestClient, *ids: str) -> Iterator[None]:
    """Requests under these ids, the first of which runs; they end with the block."""
    threads = [
        threading.Thread(
            target=client.post,
            args=("/sdapi/v1/txt2img",),
            kwargs={"json": SMALL | {"force_task_id": id_task}},
        )
        for id_task in ids
    ]
    try:
        for place, thread in enumerate(threads):
            thread.start()
            count = place  # those that wait behind the one that runs
            wait_ready(lambda: _pending(client) == count and _runs(client), 10)  # noqa: B023
        yield
    finally:
        for id_task in ids:
            client.post("/sdapi/v1/interrupt", params={"id_task": id_task})
        for thread in threads:
            thread.join()


def _pending(client: TestClient) -> int:
    return client.get("/internal/pending-tasks").json()["size"]


def _runs(client: TestClient) -> bool:
    return client.get("/sdapi/v1/progress").json()["state"]["job_count"] > 0


def page_progress(client: TestClient, **body: object) -> dict:
    return client.post("/internal/progress", json=body).json()


@pytest.fixture
def slow(engine: FakeEngine) -> None:
    engine.delay_s = 30


@pytest.mark.usefixtures("slow")
def test_running_and_waiting_tasks_are_told_apart(client: TestClient):
    with drawing(client, "task(a)", "task(b)", "task(c)"):
        assert client.get("/internal/pending-tasks").json() == {
            "size": 2,
            "tasks": ["task(b)", "task(c)"],
        }
        running = page_progress(client, id_task="task(a)")
        assert (running["active"], running["progress"], running["eta"]) == (True, 0.0, None)
        waiting = page_progress(client, id_task="task(c)")
        assert (waiting["queued"], waiting["textinfo"]) == (True, "In queue: 2/2")
        assert page_progress(client)["active"]  # of whatever runs


def test_unknown_and_finished_tasks_are_told_apart(client: TestClient):
    client.post("/sdapi/v1/txt2img", json=SMALL | {"force_task_id": "task(a)"})
    done, unknown = page_progress(client, id_task="task(a)"), page_progress(client, id_task="x")
    assert (done["completed"], unknown["completed"]) == (True, False)
    assert unknown["textinfo"] == "Waiting..."
    assert unknown["id_live_preview"] == -1
