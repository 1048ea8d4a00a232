"""A thousand requests that share nothing: memory stays flat, no picture shows in another."""

import itertools
import os
import statistics
from pathlib import Path
from typing import Any

import psutil
import pytest
from starlette.testclient import TestClient

from sdapi.app import build_app
from sdapi.settings import Settings
from tests.servers import in_process

pytestmark = [pytest.mark.slow, pytest.mark.timeout(3600)]

REQUESTS = int(os.environ.get("SDAPI_SOAK_REQUESTS", "1000"))
#: what is loaded and cached for the first time does not count
WARM_UP = REQUESTS // 4
MB = 1 << 20
SLOPE_MB_PER_100 = 1.0
CHECKPOINTS = ("tinyA", "tinyB")
NETWORKS = ("tinylora", "tinylocon", "tinyloha", "tinylokr")
SIZES = ((64, 64), (96, 64))
PLAIN = {
    "prompt": "a cat",
    "steps": 2,
    "seed": 1,
    "subseed": 2,
    "width": 64,
    "height": 64,
    "override_settings": {"sd_model_checkpoint": "tinyA"},
}


def drawn(client: TestClient, body: dict[str, Any]) -> str:
    response = client.post("/sdapi/v1/txt2img", json=body)
    assert response.status_code == 200, response.text
    assert "warnings" not in response.json()
    return response.json()["images"][0]


def slope(points: list[tuple[int, float]]) -> float:
    """Growth for each request, by the median of the slopes of all pairs (Theil and Sen)."""
    pairs = itertools.combinations(points, 2)
    return statistics.median((b - a) / (j - i) for (i, a), (j, b) in pairs)


def test_a_thousand_alternating_requests_leave_memory_and_pictures_as_they_were(
    tiny_data_dir: Path,
):
    process, points = psutil.Process(), []
    with in_process(build_app(Settings(data_dir=tiny_data_dir))) as client:
        first = drawn(client, PLAIN)
        for number in range(REQUESTS):
            width, height = SIZES[number // 2 % 2]
            body = PLAIN | {
                "prompt": f"a cat <lora:{NETWORKS[number % 4]}:0.7>",
                "seed": number,
                "width": width,
                "height": height,
                "override_settings": {"sd_model_checkpoint": CHECKPOINTS[number % 2]},
            }
            drawn(client, body)
            if number >= WARM_UP and number % 10 == 0:
                points.append((number, process.memory_info().rss / MB))
        last = drawn(client, PLAIN)

    grown = 100 * slope(points)
    print(
        f"{REQUESTS} requests: {points[0][1]:.1f} -> {points[-1][1]:.1f} MB, "
        f"{grown:+.3f} MB for 100 requests"
    )
    assert last == first
    assert grown <= SLOPE_MB_PER_100
