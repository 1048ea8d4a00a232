"""The price of HTTP: a request against a real server, over the same job run directly in the engine.

usage: python -m benchmarks.http_overhead [--models DIR] [--rounds N]
"""

import argparse
import base64
import io
import statistics
import tempfile
import threading
import time
from pathlib import Path

import httpx
import torch
import uvicorn
from PIL import Image

from sdapi import images
from sdapi.app import build_app
from sdapi.engine.engine import Engine
from sdapi.engine.factory import make_engine
from sdapi.engine.jobs.job import Job, ModelFile
from sdapi.engine.jobs.monitor import Monitor
from sdapi.engine.sampling.sampler_names import resolve
from sdapi.settings import Settings

BODY = {"prompt": "a photo of a cat", "steps": 4, "width": 128, "height": 128, "seed": 1}


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--models", type=Path, default=Path("tests/golden/models"))
    parser.add_argument("--rounds", type=int, default=20)
    options = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        settings = Settings(
            data_dir=Path(folder), checkpoint_dirs=(options.models.resolve(),), ckpt="tinyA"
        )
        server, url = serve(settings)
        engine = make_engine(settings, "cpu")
        over_http, direct, encoding = measure(url, engine, options.models, options.rounds)
        server.should_exit = True
    print(f"over HTTP      {over_http * 1000:8.1f} ms")
    print(f"engine alone   {direct * 1000:8.1f} ms")
    print(f"encoding alone {encoding * 1000:8.1f} ms")
    print(f"ratio HTTP / engine            {over_http / direct:.2f}")
    print(f"overhead besides encoding      {(over_http - direct - encoding) * 1000:.1f} ms")


def serve(settings: Settings) -> tuple[uvicorn.Server, str]:
    """Start a server on a free port and wait until it can draw."""
    server = uvicorn.Server(uvicorn.Config(build_app(settings), port=0, log_level="warning"))
    threading.Thread(target=server.run, daemon=True).start()
    while not server.started:
        time.sleep(0.05)
    port = server.servers[0].sockets[0].getsockname()[1]
    url = f"http://127.0.0.1:{port}"
    while httpx.get(f"{url}/readyz").status_code != 200:
        time.sleep(0.2)
    return server, url


def measure(url: str, engine: Engine, models: Path, rounds: int) -> tuple[float, float, float]:
    """Medians in seconds: over HTTP, in the engine, encoding; the three take turns."""
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
        width=128,
        height=128,
    )
    times: dict[str, list[float]] = {"http": [], "engine": [], "encode": []}
    with httpx.Client(timeout=60) as client:
        for _ in range(rounds + 2):
            started = time.perf_counter()
            answer = client.post(f"{url}/sdapi/v1/txt2img", json=BODY).json()
            times["http"].append(time.perf_counter() - started)
            started = time.perf_counter()
            engine.run(job, Monitor())
            times["engine"].append(time.perf_counter() - started)
            picture = Image.open(io.BytesIO(base64.b64decode(answer["images"][0])))
            picture.load()
            started = time.perf_counter()
            images.to_base64(images.encode_png(picture, {"parameters": "x"}))
            times["encode"].append(time.perf_counter() - started)
    medians = {name: statistics.median(values[2:]) for name, values in times.items()}
    return medians["http"], medians["engine"], medians["encode"]


if __name__ == "__main__":
    main()
