"""Queue servers that tests kill, what they call, and how their results are counted."""

import itertools
import json
import os
import subprocess
import sys
import threading
import time
from collections import Counter
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import requests

from tests.servers import ROOT


class Program:
    """An inference program that counts how often it was asked for each request."""

    def __init__(self, delay_s: float = 0.0) -> None:
        self.calls: Counter[str] = Counter()
        program = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                length = int(self.headers["content-length"])
                body = self.rfile.read(length)
                if len(body) < length:  # its sender was killed in the middle: nothing was asked
                    return
                program.calls[body.decode()] += 1
                time.sleep(delay_s)
                with suppress(OSError):
                    self.send_response(200)
                    self.send_header("content-length", str(len(body)))
                    self.end_headers()
                    self.wfile.write(body)

            def log_message(self, format: str, *args: Any) -> None:
                return

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.port = self.server.server_address[1]
        threading.Thread(target=self.server.serve_forever, args=(0.05,), daemon=True).start()


class Servers:
    """Queue servers on one store, which tests kill and start again."""

    def __init__(self, folder: Path, queue_url: str, port: int, max_delivery: int) -> None:
        self.folder, self.queue_url = folder, queue_url
        self.file = folder / "svc.json"
        content = {
            "metadata": {"name": "svc", "type": "Async", "rpc": {"worker_threads": 4}},
            "queue": {"memory": 4000, "max_delivery": max_delivery},
            "containers": [{"image": "registry/echo:1", "port": port}],
        }
        self.file.write_text(json.dumps(content))
        self.running: dict[int, subprocess.Popen[bytes]] = {}

    def start(self, port: int, **environ: str) -> None:
        """Start one and wait for it; `environ` comes over this process's environment."""
        command = [sys.executable, "-m", "tests.queues.queue_server", str(port)]
        data_dir = self.folder / (f"data-{port}" if self.queue_url != "-" else "data")
        data_dir.mkdir(exist_ok=True)
        with (self.folder / "log").open("ab") as log:
            process = subprocess.Popen(
                [*command, str(data_dir), self.queue_url, str(self.file)],
                cwd=ROOT,
                env=os.environ | environ,
                stdout=subprocess.PIPE,
                stderr=log,
            )
        assert process.stdout is not None
        assert process.stdout.readline() == b"ready\n", (self.folder / "log").read_text()[-3000:]
        self.running[port] = process

    def kill(self, port: int) -> None:
        process = self.running.pop(port)
        process.kill()
        process.wait()
        assert process.stdout is not None
        process.stdout.close()

    def close(self) -> None:
        for port in list(self.running):
            self.kill(port)


def put_all(ports: list[int], count: int, acknowledged: set[str], prefix: str = "item") -> None:
    """Put until so many are acknowledged, each try under a name of its own.

    A try that was cut off may have been stored all the same, and nobody can know.
    """
    for number in itertools.count():
        if len(acknowledged) == count:
            return
        name, port = f"{prefix}-{number}", ports[number % len(ports)]
        url = f"http://127.0.0.1:{port}/api/predict/svc"
        try:
            answer = requests.post(url, params={"requestId": name}, data=name, timeout=10)
        except requests.RequestException:
            time.sleep(0.05)
            continue
        if answer.status_code == 200:
            acknowledged.add(name)


def results(port: int, timeout_s: float = 180) -> list[dict[str, Any]]:
    """What is in the sink once the input queue is empty."""
    end, url = time.monotonic() + timeout_s, f"http://127.0.0.1:{port}/api/predict/svc"
    while requests.get(f"{url}?_count_=true", timeout=10).text != "0":
        assert time.monotonic() < end, "the input queue does not empty"
        time.sleep(0.2)
    params = {"_length_": "10000", "_raw_": "false"}
    answer = requests.get(f"{url}/sink", params=params, timeout=30)
    return answer.json() if answer.status_code == 200 else []


def check(found: list[dict[str, Any]], acknowledged: set[str]) -> int:
    """Each acknowledged put is one item; returns how many of them tell a failure."""
    ids = Counter(item["tags"]["requestId"] for item in found)
    assert acknowledged - ids.keys() == set()
    assert max(ids.values()) == 1
    failures = [item for item in found if "lastCode" in item["tags"]]
    assert {item["tags"]["lastCode"] for item in failures} <= {"502"}
    return len(failures)
