"""A server of queues alone, as a program: python -m tests.queue_server PORT DATA_DIR URL|- FILE…

Its services' programs are others' (service files with ports), so it needs no model, and tests can
start and kill it often.
"""

import sys
from pathlib import Path

from sdapi.app import build_app
from sdapi.cli import bind
from sdapi.serving import Server
from sdapi.settings import Settings
from tests.fakes import FakeEngine, FakeEngines


def main(port: str, data_dir: str, queue_url: str, *files: str) -> None:
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
