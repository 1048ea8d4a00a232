"""A server of queues alone: python -m tests.queues.queue_server PORT DATA_DIR URL|- FILE…

Its services' programs are others' (service files with ports), so it needs no model, and tests can
start and kill it often. `TEST_CLOCK` in the environment names a file with the seconds by which the
wall clock is wrong.
"""

import os
import sys
import time
from pathlib import Path

from sdapi.app import build_app
from sdapi.cli import bind
from sdapi.serving.server import Server
from sdapi.settings import Settings
from tests.fakes import FakeEngine, FakeEngines


def _let_the_clock_be_wrong(file: Path) -> None:
    right, right_ns = time.time, time.time_ns

    def offset_s() -> float:
        return float(file.read_text() or 0)

    time.time = lambda: right() + offset_s()
    time.time_ns = lambda: right_ns() + int(offset_s() * 1e9)


def main(port: str, data_dir: str, queue_url: str, *files: str) -> None:
    if clock := os.environ.get("TEST_CLOCK"):
        _let_the_clock_be_wrong(Path(clock))
    settings = Settings(
        data_dir=Path(data_dir),
        queue_url=None if queue_url == "-" else queue_url,
        service_files=tuple(Path(file) for file in files),
        portrait=False,
    )
    app = build_app(settings, FakeEngines(FakeEngine()))
    with bind("127.0.0.1", int(port)) as bound:
        Server(app, settings, lambda: print("ready", flush=True)).serve_until_stopped(bound)


if __name__ == "__main__":
    main(*sys.argv[1:])
