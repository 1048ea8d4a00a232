"""Front ends without models and workers behind them, as programs of their own on one Redis."""

import base64
import io
import json
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import requests
from PIL import Image

from tests.queues.queue_stores import RedisServer, redis_server, redis_servers
from tests.servers import golden_data_dir, server_process

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]
JOBS = 12
BODY = {"prompt": "a cat", "steps": 2, "width": 64, "height": 64}


@pytest.fixture(params=list(redis_servers()))
def redis(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[RedisServer]:
    with redis_server(redis_servers()[request.param], tmp_path / "redis") as server:
        yield server


def ask(url: str, seed: int) -> str:
    """Put a job; its request id."""
    answer = requests.post(
        f"{url}/api/predict/sd_async/sdapi/v1/txt2img", json=BODY | {"seed": seed}, timeout=30
    )
    assert answer.status_code == 200, answer.text
    return answer.headers["X-EAS-QueueService-Request-Id"]


def result(url: str, request_id: str, within_s: float = 240) -> bytes | None:
    """The pixels of a job's result, which is taken out; None where it is a failure."""
    end = time.monotonic() + within_s
    params = {"requestId": request_id, "_timeout_": "5s", "_auto_delete_": "true"}
    while True:
        answer = requests.get(f"{url}/api/predict/sd_async/sink", params=params, timeout=30)
        if answer.status_code == 200:
            break
        assert time.monotonic() < end, f"no result: {answer.status_code} {answer.text}"
    try:
        (picture,) = json.loads(answer.content)["images"]
    except (ValueError, KeyError):
        return None
    with Image.open(io.BytesIO(base64.b64decode(picture))) as image:
        assert image.size == (64, 64)
        return image.tobytes()


def test_a_front_end_takes_what_workers_draw_and_another_worker_goes_on_for_a_dead_one(
    redis: RedisServer, tmp_path: Path
):
    # Without portraits, whose files would have to be in one folder of both.
    shared = (f"--queue-url={redis.url}", "--no-portrait")
    models = golden_data_dir(tmp_path / "worker")
    with server_process(tmp_path / "api", *shared, "--role=api") as front:
        waiting = [ask(front.url, seed) for seed in range(JOBS)]
        with server_process(models, *shared, "--role=worker") as worker:
            assert requests.get(f"{worker.url}/healthz", timeout=10).ok
            first = [result(front.url, request_id) for request_id in waiting]
            assert None not in first
            left = [ask(front.url, seed) for seed in range(JOBS)]
            worker.process.kill()
        with server_process(models, *shared, "--role=worker"):
            second = [result(front.url, request_id) for request_id in left]
    # What the dead one worked on is told as a failure: a service without a file delivers once.
    lost = [seed for seed in range(JOBS) if second[seed] is None]
    assert len(lost) <= 1
    assert [first[seed] for seed in range(JOBS) if seed not in lost] == [
        second[seed] for seed in range(JOBS) if seed not in lost
    ]
    print(f"{2 * JOBS} jobs by two workers, {len(lost)} told as lost with the first")
