"""From process start to an open port, a ready worker and the first picture, over a bare Python.

usage: python -m benchmarks.start [--models DIR] [--rounds N]
"""

import argparse
import socket
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from pathlib import Path

BODY = b'{"prompt": "a photo of a cat", "steps": 4, "width": 128, "height": 128}'


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--models", type=Path, default=Path("tests/golden/models"))
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    rows = [one_start(options.models.resolve()) for _ in range(options.rounds)]
    bare = statistics.median(bare_python() for _ in range(5))
    names = ("healthz", "readyz", "first picture")
    for name, values in zip(names, zip(*rows, strict=True), strict=True):
        seconds = statistics.median(values)
        print(f"{name:14} {seconds:6.2f} s   {seconds / bare:6.0f} x python -c pass")


def bare_python() -> float:
    started = time.perf_counter()
    subprocess.run([sys.executable, "-c", "pass"], check=True)
    return time.perf_counter() - started


def one_start(models: Path) -> tuple[float, float, float]:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    url = f"http://127.0.0.1:{port}"
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "launch.py", "--skip-install", "--port", str(port)]
        command += ["--data-dir", folder, "--ckpt-dir", str(models), "--ckpt", "tinyA"]
        started = time.perf_counter()
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        try:
            healthy = wait_for(f"{url}/healthz") - started
            request = urllib.request.Request(
                f"{url}/sdapi/v1/txt2img", BODY, {"content-type": "application/json"}
            )
            urllib.request.urlopen(request, timeout=300).read()
            drawn = time.perf_counter() - started
            ready = wait_for(f"{url}/readyz") - started
        finally:
            process.terminate()
            process.wait(60)
    return healthy, min(ready, drawn), drawn


def wait_for(url: str) -> float:
    for _ in range(6000):
        try:
            urllib.request.urlopen(url, timeout=5).read()
            return time.perf_counter()
        except (urllib.error.URLError, ConnectionError):
            time.sleep(0.02)
    raise TimeoutError(url)


if __name__ == "__main__":
    main()
