"""A server that paints into a bucket, as a program.

    python -m tests.storage_server PORT DATA_DIR MOUNT=oss://bucket/prefix

Its engine is a fake, so tests can start and kill it often; keys come from the environment.
"""

import sys
from pathlib import Path

from sdapi.app import build_app
from sdapi.cli import bind
from sdapi.serving.server import Server
from sdapi.settings import Mount, Settings
from tests.fakes import FakeEngine, FakeEngines


def main(port: str, data_dir: str, mount: str) -> None:
    path, _, prefix = mount.partition("=")
    settings = Settings(
        data_dir=Path(data_dir),
        mounts=(Mount(Path(path), prefix),),
        upload_timeout_s=5.0,
        portrait=False,
    )
    app = build_app(settings, FakeEngines(FakeEngine()))
    with bind("127.0.0.1", int(port)) as bound:
        Server(app, settings, lambda: print("ready", flush=True)).serve_until_stopped(bound)


if __name__ == "__main__":
    main(*sys.argv[1:])
