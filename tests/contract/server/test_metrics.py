import re

from starlette.testclient import TestClient

from tests.contract.conftest import Serve
from tests.fakes import FakeEngine

SMALL = {"width": 64, "height": 64, "steps": 1}


def figure(text: str, name: str) -> float:
    found = re.search(rf"^{re.escape(name)} (\S+)$", text, re.M)
    assert found, name
    return float(found[1])


def test_figures_tell_of_requests_jobs_and_phases(client: TestClient):
    assert client.post("/sdapi/v1/txt2img", json=SMALL).status_code == 200
    client.get("/sdapi/v1/made-up-by-the-caller")
    response = client.get("/metrics")
    assert response.headers["content-type"].startswith("text/plain; version=")
    text = response.text
    route = '{method="POST",route="/sdapi/v1/txt2img",status="200"}'
    assert figure(text, f"sdapi_requests_total{route}") == 1
    assert figure(text, 'sdapi_jobs_total{state="done"}') == 1
    assert figure(text, 'sdapi_phase_seconds_count{phase="sample"}') == 1
    assert figure(text, 'sdapi_phase_seconds_count{phase="deliver"}') == 1
    assert figure(text, "sdapi_queue_wait_seconds_count") == 1
    assert figure(text, "sdapi_queue_depth") == 0
    assert figure(text, 'sdapi_worker_ready{device="fake"}') == 1
    assert figure(text, 'sdapi_memory_bytes{kind="ram"}') > 0
    assert "made-up" not in text


def test_failures_are_told_by_kind(client: TestClient, engine: FakeEngine):
    engine.failure = lambda job: KeyError("broken")
    assert client.post("/sdapi/v1/txt2img", json=SMALL).status_code == 500
    text = client.get("/metrics").text
    assert figure(text, 'sdapi_failures_total{kind="KeyError"}') == 1
    assert figure(text, 'sdapi_jobs_total{state="failed"}') == 1


def test_times_are_logged_with_the_task_when_asked(serve: Serve, caplog):
    client = serve(time_log=True)
    body = SMALL | {"alwayson_scripts": {"id_task": "t1", "uid": "ann"}}
    with caplog.at_level("INFO"):
        client.post("/sdapi/v1/txt2img", json=body)
    (record,) = [record for record in caplog.records if record.message == "request timed"]
    assert record.total_s >= record.queue_s >= 0
    assert {"load_s", "sample_s", "decode_s", "deliver_s"} <= vars(record).keys()
