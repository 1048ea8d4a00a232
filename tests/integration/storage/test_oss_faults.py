"""Pictures reach the bucket though the store fails and goes away, and the server dies."""

import io
import os
import socket
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import requests
from PIL import Image

from tests.fakes import colour_of
from tests.oss.server import OssServer, oss_server
from tests.servers import ROOT, wait_ready

BUCKET = "examplebucket"
MOUNT = Path("/code/stable-diffusion-webui/data-oss")
CLIENTS = 8


@dataclass
class Program:
    """The server under test, which can be killed and started again at the same address."""

    data_dir: Path
    environ: dict[str, str]
    port: int
    process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def start(self) -> None:
        mount = f"{MOUNT}=oss://{BUCKET}/data-oss"
        command = [sys.executable, "-m", "tests.storage_server", str(self.port)]
        self.process = subprocess.Popen(
            [*command, str(self.data_dir), mount],
            cwd=ROOT,
            env=os.environ | self.environ,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        wait_ready(self._is_ready)

    def kill(self) -> None:
        assert self.process is not None
        self.process.kill()
        self.process.wait(timeout=30)

    def pending(self) -> int:
        return requests.get(f"{self.url}/readyz", timeout=10).json()["outbox"]["pending"]

    def _is_ready(self) -> bool:
        try:
            return requests.get(f"{self.url}/readyz", timeout=10).status_code == 200
        except requests.RequestException:
            return False


@dataclass
class Clients:
    """Ask for pictures until so many were acknowledged; each try has a seed of its own."""

    program: Program
    wanted: int
    #: path by seed
    acknowledged: dict[int, str] = field(default_factory=dict[int, str])
    pending: int = 0
    _next_seed: int = 1
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def run(self) -> None:
        while (seed := self._take()) is not None:
            body = {"width": 32, "height": 32, "steps": 1, "seed": seed}
            scripts = {"alwayson_scripts": {"save_dir": f"{MOUNT}/outputs"}}
            url = f"{self.program.url}/sdapi/v1/txt2img"
            try:
                answer = requests.post(url, json=body | scripts, timeout=60)
            except requests.RequestException:  # it was killed: nothing was promised
                time.sleep(0.2)
                continue
            assert answer.status_code in (200, 502), answer.text
            parameters = answer.json()["parameters"]
            assert parameters["seed"] == str(seed)
            with self._lock:
                self.acknowledged[seed] = parameters["image_url"]
                self.pending += answer.status_code == 502

    @property
    def tries(self) -> int:
        return self._next_seed - 1

    def _take(self) -> int | None:
        with self._lock:
            if len(self.acknowledged) >= self.wanted:
                return None
            self._next_seed += 1
            return self._next_seed


@pytest.mark.parametrize(
    ("count", "outage_s"),
    [
        pytest.param(40, 2.0, id="short"),
        pytest.param(
            500, 30.0, id="as it must hold", marks=[pytest.mark.slow, pytest.mark.timeout(1200)]
        ),
    ],
)
def test_every_acknowledged_picture_ends_up_in_the_bucket_once(
    tmp_path: Path, count: int, outage_s: float
):
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    with oss_server(tmp_path / "buckets") as oss:
        program = Program(tmp_path / "data", oss.environ(), port)
        folder = program.data_dir / "models" / "Stable-diffusion"
        folder.mkdir(parents=True)
        (folder / "one.safetensors").write_bytes(b"weights")
        program.start()
        oss.faults.rate = 0.2
        clients = Clients(program, count)
        try:
            _disturb(oss, program, clients, outage_s)
            wait_ready(lambda: program.pending() == 0)
        finally:
            program.kill()
        assert len(clients.acknowledged) >= count
        assert clients.pending > 0
        assert oss.faults.count > 0
        _check_bucket(oss, program, clients)
        print(
            f"{len(clients.acknowledged)} acknowledged, {clients.pending} of them pending; "
            f"{clients.tries - len(clients.acknowledged)} tries cut off by two kills; "
            f"{oss.faults.count} faults; {len(oss.objects.keys(BUCKET))} objects"
        )


def _disturb(oss: OssServer, program: Program, clients: Clients, outage_s: float) -> None:
    """Two kills, the second while the store is away."""

    def so_far(share: float) -> None:
        wait_ready(lambda: len(clients.acknowledged) >= share * clients.wanted, 300)

    with ThreadPoolExecutor(CLIENTS) as pool:
        running = [pool.submit(clients.run) for _ in range(CLIENTS)]
        so_far(0.2)
        program.kill()
        program.start()
        so_far(0.4)
        before = clients.pending
        oss.stop()
        began = time.monotonic()
        so_far(0.5)
        # On a busy machine those may all have had their answer from the store.
        wait_ready(lambda: clients.pending > before, 300)
        program.kill()
        program.start()
        time.sleep(max(0.0, outage_s - (time.monotonic() - began)))
        oss.start()
        for each in running:
            each.result()


def _check_bucket(oss: OssServer, program: Program, clients: Clients) -> None:
    keys = oss.objects.keys(BUCKET)
    seeds = [int(key.rpartition("-")[2].removesuffix(".png")) for key in keys]
    assert len(seeds) == len(set(seeds)), "a picture was uploaded under two names"
    on_disk = program.data_dir / "mounts" / MOUNT.relative_to("/")
    for seed, path in clients.acknowledged.items():
        data = oss.objects.data(BUCKET, path.replace(str(MOUNT), "data-oss"))
        assert data == (on_disk / Path(path).relative_to(MOUNT)).read_bytes()
        with Image.open(io.BytesIO(data)) as image:
            assert image.getpixel((0, 0)) == colour_of(seed)
