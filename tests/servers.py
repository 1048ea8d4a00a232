"""The application under test: in this process, or as a program of its own."""

import os
import re
import select
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import requests
from fastapi import FastAPI
from starlette.testclient import TestClient

from sdapi.cli import bind
from sdapi.serving.server import Server
from sdapi.settings import Settings
from tests.replay.golden_models import complete

ROOT = Path(__file__).parents[1]
GOLDEN = Path(__file__).parent / "golden"
#: a busy machine is no defect
START_S = 180.0

_PLACES = (
    ("models/VAE", ("*.vae.safetensors",)),
    ("models/ControlNet", ("control_*",)),
    ("models/Lora", ("tinylo*",)),
    ("models/hypernetworks", ("tinyhyper*",)),
    ("models/ESRGAN", ("*.pth",)),
    ("embeddings", ("tinyti*", "wrongdim*")),
    ("models/Stable-diffusion", ("*.safetensors", "*.yaml")),
)


def golden_data_dir(path: Path, golden: Path = GOLDEN) -> Path:
    """Lay the golden models out as a data directory; links, so that nothing is copied."""
    complete(golden)
    placed: set[str] = set()
    for folder, patterns in _PLACES:
        (path / folder).mkdir(parents=True, exist_ok=True)
        for source in (file for pattern in patterns for file in golden.glob(f"models/{pattern}")):
            if source.name not in placed:
                placed.add(source.name)
                (path / folder / source.name).symlink_to(source.resolve())
    for name in ("config.json", "styles.csv"):
        shutil.copyfile(golden / name, path / name)
    return path


@contextmanager
def in_process(app: FastAPI, *, timeout_s: float = START_S, **options: Any) -> Iterator[TestClient]:
    """A client of an application that runs in this process, once it can draw."""
    with TestClient(app, **options) as client:
        wait_ready(lambda: client.get("/readyz").status_code == 200, timeout_s)
        yield client


def wait_ready(is_ready: Any, timeout_s: float = START_S) -> None:
    """Poll until true; fail after the time limit."""
    end = time.monotonic() + timeout_s
    while not is_ready():
        assert time.monotonic() < end, f"not ready within {timeout_s:g} s"
        time.sleep(0.02)


@contextmanager
def listening(app: FastAPI, settings: Settings) -> Iterator[str]:
    """The URL of an application that listens on a free port, in a thread of this process."""
    started = threading.Event()
    with bind("127.0.0.1", 0) as bound:
        server = Server(app, settings, started.set)
        thread = threading.Thread(target=server.serve_until_stopped, args=(bound,))
        thread.start()
        try:
            assert started.wait(START_S), "the server did not start"
            yield f"http://127.0.0.1:{bound.getsockname()[1]}"
        finally:
            server.should_exit = True
            thread.join(START_S)


class ServerProcess:
    """A server as users start it."""

    def __init__(self, process: subprocess.Popen[bytes], url: str, log: Path) -> None:
        self.process = process
        self.url = url
        self._log = log

    @property
    def log(self) -> str:
        """What it has written to stderr so far."""
        return self._log.read_text(encoding="utf-8")

    def terminate(self) -> None:
        self.process.send_signal(signal.SIGTERM)

    def exit_code(self, timeout_s: float = 40) -> int:
        return self.process.wait(timeout=timeout_s)


@contextmanager
def server_process(
    data_dir: Path, *arguments: str | Path, python: str | Path = sys.executable
) -> Iterator[ServerProcess]:
    """`python -m sdapi.cli` on a free port, once it can draw."""
    command: Sequence[str] = [
        *(str(python), "-m", "sdapi.cli", "--port=0", "--data-dir", str(data_dir)),
        *(str(argument) for argument in arguments),
    ]
    environ = {k: v for k, v in os.environ.items() if k not in ("COMMANDLINE_ARGS", "SDAPI_TOKEN")}
    data_dir.mkdir(parents=True, exist_ok=True)
    log = data_dir.with_name(f"{data_dir.name}.log")
    with (
        log.open("wb") as errors,
        subprocess.Popen(
            command, cwd=ROOT, env=environ, stdout=subprocess.PIPE, stderr=errors
        ) as process,
    ):
        try:
            assert process.stdout is not None
            assert select.select([process.stdout], [], [], START_S)[0], "no banner in time"
            banner = process.stdout.readline().decode()
            found = re.search(r" is ready at (http://\S+:\d+)", banner)
            assert found, banner + log.read_text(encoding="utf-8")
            url = found[1]
            wait_ready(lambda: requests.get(f"{url}/readyz", timeout=10).status_code == 200)
            yield ServerProcess(process, url, log)
        finally:
            process.kill()
