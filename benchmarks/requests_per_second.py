"""Requests a second at 1 and 8 clients, beside a naive server with a lock and a thread for each.

Both draw with the tiny checkpoint in this process. Then: how long each takes to tell its progress
while 200 requests wait.

usage: python -m benchmarks.requests_per_second [--models DIR] [--seconds N]
"""

import argparse
import base64
import io
import json
import statistics
import tempfile
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import httpx
import torch

from benchmarks.http_overhead import serve
from sdapi.engine.engine import Engine
from sdapi.engine.factory import make_engine
from sdapi.engine.jobs.job import Job, ModelFile
from sdapi.engine.jobs.monitor import Monitor
from sdapi.engine.sampling.sampler_names import resolve
from sdapi.settings import Settings

BODY = {"prompt": "a photo of a cat", "steps": 4, "width": 64, "height": 64, "seed": 1}
WAITING = 200


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--models", type=Path, default=Path("tests/golden/models"))
    parser.add_argument("--seconds", type=float, default=10.0)
    options = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        settings = Settings(
            data_dir=Path(folder), checkpoint_dirs=(options.models.resolve(),), ckpt="tinyA"
        )
        server, url = serve(settings)
        naive = NaiveServer(make_engine(settings, "cpu"), options.models)
        for clients in (1, 8):
            ours = rate(f"{url}/sdapi/v1/txt2img", clients, options.seconds)
            theirs = rate(naive.url, clients, options.seconds)
            print(
                f"{clients} clients: {ours:6.1f} requests/s, naive {theirs:6.1f}, "
                f"ratio {ours / theirs:.2f}"
            )
        ours, theirs = progress_latency(url), naive_latency(naive)
        print(
            f"/progress with {WAITING} waiting: {ours * 1000:.1f} ms, naive {theirs * 1000:.1f} "
            f"(medians), ratio {ours / theirs:.2f}"
        )
        naive.shutdown()
        server.should_exit = True


class NaiveServer(ThreadingHTTPServer):
    """What one writes in an afternoon: a thread for each request, and a lock around the engine."""

    daemon_threads = True
    #: connections that wait to be accepted; with the standard library's five some of 200 never are
    request_queue_size = 2 * WAITING

    def __init__(self, engine: Engine, models: Path) -> None:
        super().__init__(("127.0.0.1", 0), NaiveHandler)
        self.draw = drawing(engine, models)
        self.lock = threading.Lock()
        #: requests that have come and are not answered; one thread at a time changes it
        self.open = 0
        self.counting = threading.Lock()
        self.monitor = Monitor()
        threading.Thread(target=self.serve_forever, daemon=True).start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/"

    def answer(self, steps: int) -> bytes:
        """One picture, once all before it are drawn; none once the monitor says stop."""
        with self.counting:
            self.open += 1
        with self.lock:
            stops = self.monitor.interrupted.is_set()
            image = "" if stops else self.draw(steps, self.monitor)
        with self.counting:
            self.open -= 1
        return json.dumps({"images": [image]}).encode()


class NaiveHandler(BaseHTTPRequestHandler):
    """Draws at POST; at GET tells how many requests there are."""

    protocol_version = "HTTP/1.1"
    server: NaiveServer

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["content-length"])))
        self._send(self.server.answer(body["steps"]))

    def do_GET(self) -> None:
        self._send(json.dumps({"open": self.server.open}).encode())

    def _send(self, content: bytes) -> None:
        self.send_response(200)
        self.send_header("content-length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, format: str, *args: object) -> None:
        pass


def drawing(engine: Engine, models: Path) -> Callable[[int, Monitor], str]:
    """Draws the job of `BODY`, and encodes as Pillow does unless told otherwise."""
    sampler, scheduler = resolve("Euler", None)
    job = Job(
        id="benchmark",
        prompts=(str(BODY["prompt"]),),
        negative_prompts=("",),
        seeds=(1,),
        subseeds=(1,),
        checkpoint=ModelFile.of(models / "tinyA.safetensors", models / "tinyA.yaml"),
        sampler=sampler,
        scheduler=scheduler,
        steps=4,
        cfg_scale=7.0,
        width=64,
        height=64,
    )

    def draw(steps: int, monitor: Monitor) -> str:
        image = engine.run(replace(job, steps=steps), monitor).images[0].image
        file = io.BytesIO()
        image.save(file, "PNG")
        return base64.b64encode(file.getvalue()).decode()

    return draw


def rate(url: str, clients: int, seconds: float) -> float:
    """Answers a second that so many clients get, each asking again as soon as it has one."""
    with httpx.Client(timeout=120) as client:
        client.post(url, json=BODY).raise_for_status()
    end = time.perf_counter() + seconds

    def ask() -> int:
        count = 0
        with httpx.Client(timeout=120) as client:
            while time.perf_counter() < end:
                client.post(url, json=BODY).raise_for_status()
                count += 1
        return count

    started = time.perf_counter()
    with ThreadPoolExecutor(clients) as pool:
        done = sum(pool.map(lambda _: ask(), range(clients)))
    return done / (time.perf_counter() - started)


def progress_latency(url: str) -> float:
    """The median time of `/progress` while many requests wait; they are cancelled afterwards."""
    body = BODY | {"steps": 1000}
    with ThreadPoolExecutor(WAITING + 1) as pool, httpx.Client(timeout=120) as client:
        for number in range(WAITING + 1):
            pool.submit(
                httpx.post, f"{url}/sdapi/v1/txt2img", json=named(body, number), timeout=120
            )
        until(lambda: client.get(f"{url}/queue/status").json()["queue_size"] >= WAITING)
        times = [timed(lambda: client.get(f"{url}/sdapi/v1/progress")) for _ in range(50)]
        for number in reversed(range(WAITING + 1)):
            client.post(f"{url}/sdapi/v1/interrupt", params={"id_task": f"b{number}"})
    return statistics.median(times)


def naive_latency(naive: NaiveServer) -> float:
    """The same of the naive server; those that wait get no picture afterwards."""
    with ThreadPoolExecutor(WAITING + 1) as pool, httpx.Client(timeout=120) as client:
        for _ in range(WAITING + 1):
            pool.submit(httpx.post, naive.url, json=BODY | {"steps": 1000}, timeout=120)
        until(lambda: naive.open >= WAITING)
        times = [timed(lambda: client.get(naive.url)) for _ in range(50)]
        naive.monitor.interrupted.set()
    return statistics.median(times)


def until(is_true: Callable[[], bool]) -> None:
    end = time.perf_counter() + 100
    while not is_true():
        if time.perf_counter() > end:
            raise TimeoutError(f"the requests did not all come: {WAITING} should wait")
        time.sleep(0.1)


def named(body: dict[str, object], number: int) -> dict[str, object]:
    return body | {"force_task_id": f"b{number}"}


def timed(work: Callable[[], object]) -> float:
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


if __name__ == "__main__":
    main()
