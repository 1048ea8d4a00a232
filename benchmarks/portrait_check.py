"""A check's time per photo over the bare calls of its face providers.

    python -m benchmarks.portrait_check [photos]

Photos of 1024 pixels lie on a loopback server. The bare calls detect, locate and embed pixels that
are decoded already; the check fetches, decodes and hands over to a face process. Both sides take
turns, so that what else the machine does hits both. Then ten checks run at once.
"""

import io
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import anyio
import numpy as np
from PIL import Image

from sdapi.portrait.checking import Checker, CheckResult
from sdapi.portrait.faces.face import Pixels
from sdapi.portrait.faces.processes import FaceProcesses
from sdapi.portrait.faces.providers import Choices, Providers
from sdapi.portrait.photos import PhotoFetcher, decode_photo
from sdapi.services.fetching.fetcher import Fetcher
from sdapi.settings import Settings
from tests.photo_server import photo_server
from tests.portraits.people import PERSON, photo

_SIDE = 1024
_TURNS = 5
_AT_ONCE = 10


def main(count: int) -> None:
    """Print milliseconds and their ratio."""
    files = {name: _enlarged(photo(name)) for name in PERSON}
    names = [PERSON[i % len(PERSON)] for i in range(count)]
    providers = Providers(Choices.make(Path("models"), {}))
    with photo_server() as server, tempfile.TemporaryDirectory() as folder:
        server.files.update(files)
        settings = Settings(data_dir=Path(folder), allow_private_urls=True)
        processes = FaceProcesses(Choices.make(Path("models"), {}), 1)
        checker = Checker(PhotoFetcher(Fetcher(settings)), processes)
        urls = server.of(*names)
        pixels = [decode_photo(files[name]) for name in names]

        def check() -> CheckResult:
            return anyio.run(_check, checker, urls)

        _bare(providers, pixels)  # both sides warm
        check()
        ratios: list[float] = []
        for _ in range(_TURNS):
            bare_s, checked_s = _timed(lambda: _bare(providers, pixels)), _timed(check)
            ratios.append(checked_s / bare_s)
            each = f"{1000 * bare_s / count:.1f} ms bare, {1000 * checked_s / count:.1f} ms checked"
            print(f"a photo: {each}, ratio {ratios[-1]:.2f}")
        print(f"median ratio {statistics.median(ratios):.2f}")
        at_once_s = _timed(lambda: anyio.run(_many, checker, urls))
        print(f"{_AT_ONCE} checks at once: {1000 * at_once_s / count / _AT_ONCE:.1f} ms a photo")
        processes.close()


def _enlarged(data: bytes) -> bytes:
    large = Image.open(io.BytesIO(data)).resize((_SIDE, _SIDE), Image.Resampling.LANCZOS)
    out = io.BytesIO()
    large.save(out, "JPEG", quality=90)
    return out.getvalue()


def _bare(providers: Providers, pictures: list[Pixels]) -> None:
    for rgb in pictures:
        (face,) = providers.detector.detect(np.ascontiguousarray(rgb))
        providers.embedder.embed(rgb, providers.landmarks.locate(rgb, face))


async def _check(checker: Checker, urls: list[str]) -> CheckResult:
    result = await checker.check(urls, same_person=True)
    assert all(one.code == 1 for one in result.photos), result
    return result


async def _many(checker: Checker, urls: list[str]) -> None:
    async with anyio.create_task_group() as group:
        for _ in range(_AT_ONCE):
            group.start_soon(_check, checker, urls)


def _timed(work: Callable[[], object]) -> float:
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 10)
