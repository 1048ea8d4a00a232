"""What uploading adds to a request, over a plain `oss2` put of the same bytes.

    python -m benchmarks.storage [--pictures 4] [--side 512] [--rounds 20] [--delay-ms 20]

Everything runs in one process against the tests' server of the OSS protocol, which takes
`--delay-ms` for each call, as a store in the same region does. The engine only paints, so a request
is nearly all writing; what counts is the time that uploading adds.
"""

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import oss2
from PIL import Image
from starlette.testclient import TestClient

from sdapi.app import build_app
from sdapi.engine.jobs.job import GeneratedImage, Job, Result
from sdapi.engine.jobs.monitor import Monitor
from sdapi.settings import Mount, Settings
from tests.fakes import FakeEngine, FakeEngines
from tests.oss.faults import Fault
from tests.oss.server import KEY, OssServer, oss_server
from tests.servers import in_process

BUCKET = "examplebucket"
MOUNT = Path("/code/stable-diffusion-webui/data-oss")


class NoiseEngine(FakeEngine):
    """Paints noise, so that files have the size of pictures."""

    def run(self, job: Job, monitor: Monitor) -> Result:
        random = np.random.default_rng(job.seeds[0])
        shape = (job.height // 4, job.width // 4, 3)
        return Result(
            tuple(
                GeneratedImage(
                    index,
                    Image.fromarray(random.integers(0, 255, shape, np.uint8)).resize(
                        (job.width, job.height)
                    ),
                )
                for index in range(len(job.seeds))
            ),
            {},
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--pictures", type=int, default=4)
    parser.add_argument("--side", type=int, default=512)
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--delay-ms", type=float, default=20.0)
    options = parser.parse_args()
    with (
        tempfile.TemporaryDirectory() as folder,
        oss_server(Path(folder) / "oss", checksum=fast_crc64) as oss,
    ):
        oss.faults.rate, oss.faults.kinds = 1.0, (Fault.SLOW,)
        oss.faults.slow_s = options.delay_ms / 1000
        with serving(Path(folder), oss) as client:
            compare(client, oss, options)


def fast_crc64(data: bytes) -> int:
    crc = oss2.utils.Crc64()
    crc.update(data)
    return crc.crc


@contextmanager
def serving(folder: Path, oss: OssServer) -> Iterator[TestClient]:
    models = folder / "data" / "models" / "Stable-diffusion"
    models.mkdir(parents=True)
    (models / "one.safetensors").write_bytes(b"weights")
    mount = Mount(MOUNT, f"oss://{BUCKET}/data-oss")
    settings = Settings(data_dir=folder / "data", mounts=(mount,), portrait=False)
    app = build_app(settings, FakeEngines(NoiseEngine()), oss.environ())
    with in_process(app) as client:
        yield client


def compare(client: TestClient, oss: OssServer, options: argparse.Namespace) -> None:
    bucket = oss2.Bucket(oss2.Auth(KEY.id, KEY.secret), oss.endpoint, BUCKET)

    def request(save_dir: str) -> list[str]:
        body = {
            "width": options.side,
            "height": options.side,
            "steps": 1,
            "seed": 1,
            "batch_size": options.pictures,
            "alwayson_scripts": {"save_dir": save_dir},
        }
        answer = client.post("/sdapi/v1/txt2img", json=body)
        assert answer.status_code == 200, answer.text
        return answer.json()["parameters"]["image_url"].split(",")

    paths = request(str(MOUNT))
    keys = [path.replace(str(MOUNT), "data-oss") for path in paths]
    files = [oss.objects.data(BUCKET, key) for key in keys]

    def put() -> None:
        for number, data in enumerate(files):
            bucket.put_object(f"plain/{number}", data)

    works: dict[str, Callable[[], Any]] = {
        "without": lambda: request("local"),
        "with": lambda: request(str(MOUNT)),
        "put": put,
    }
    times: dict[str, list[float]] = {name: [] for name in works}
    for _ in range(options.rounds):
        for name, work in works.items():  # in turns, so that a busy machine slows all of them
            began = time.perf_counter()
            work()
            times[name].append(time.perf_counter() - began)
    report({name: statistics.median(each) for name, each in times.items()}, files)


def report(median_s: dict[str, float], files: list[bytes]) -> None:
    size = sum(map(len, files)) / (1 << 20)
    added = median_s["with"] - median_s["without"]
    print(f"{len(files)} files, {size:.1f} MiB in all; medians")
    print(f"a request without upload   {median_s['without'] * 1000:8.1f} ms")
    print(f"the same with upload       {median_s['with'] * 1000:8.1f} ms")
    print(f"plain puts, one by one     {median_s['put'] * 1000:8.1f} ms")
    print(f"with over without          {median_s['with'] / median_s['without']:8.2f}")
    print(f"added time over plain puts {added / median_s['put']:8.2f}")


if __name__ == "__main__":
    main()
