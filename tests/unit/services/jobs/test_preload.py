import logging
from pathlib import Path

import pytest

from sdapi.engine.weights.model_file import ModelFile
from sdapi.errors import ModelUnreadable, ModelUnusable, OutOfMemory
from sdapi.services.jobs.preload import RETRY_S, Preload
from tests.fakes import FakeEngine

PASSING = [OutOfMemory("full"), OSError(5, "I/O"), ModelUnreadable("a.safetensors: cannot be read")]


class Bench:
    """A checkpoint on disk, whose loads fail until the engine's failure is taken away."""

    def __init__(self, path: Path, error: Exception) -> None:
        path.write_bytes(b"weights")
        self.path, self.now, self.tries = path, 0.0, 0
        self.error: Exception | None = error
        self.engine = FakeEngine()
        self.preload = Preload(lambda: ModelFile.of(path), lambda: self.now)

    def load(self, checkpoint: ModelFile) -> None:
        self.tries += 1
        if self.error is not None:
            raise self.error
        self.engine.load(checkpoint)

    def look(self, *, after_s: float = 0.0, is_idle: bool = True) -> int:
        """Loads that were tried so far."""
        self.now += after_s
        self.preload.look(self, is_idle=is_idle)
        return self.tries


@pytest.mark.parametrize("error", PASSING)
def test_what_may_pass_is_tried_again_while_no_job_waits(tmp_path: Path, error: Exception):
    bench = Bench(tmp_path / "a.safetensors", error)
    assert [bench.look(), bench.look(after_s=RETRY_S - 1)] == [1, 1]
    assert bench.look(after_s=1, is_idle=False) == 1
    assert bench.look() == 2
    assert bench.preload.fault is not None
    bench.error = None
    assert [bench.look(after_s=1), bench.look(after_s=RETRY_S)] == [2, 3]
    assert bench.preload.fault is None
    assert bench.engine.loaded == [ModelFile.of(bench.path)]


def test_a_broken_file_is_read_again_only_when_it_has_changed(tmp_path: Path):
    bench = Bench(tmp_path / "a.safetensors", ModelUnusable("a.safetensors: it is cut off"))
    assert [bench.look(), bench.look(after_s=10 * RETRY_S), bench.look()] == [1, 1, 1]
    bench.error = None
    bench.path.write_bytes(b"the whole file")
    assert [bench.look(), bench.look()] == [1, 2]  # at rest only
    assert bench.preload.fault is None


def test_a_file_that_was_away_is_loaded_though_it_comes_back_as_it_was(tmp_path: Path):
    bench = Bench(tmp_path / "a.safetensors", ModelUnreadable("a.safetensors: the file is gone"))
    bench.look()
    elsewhere = bench.path.rename(tmp_path / "away")
    assert bench.look(after_s=RETRY_S) == 1
    elsewhere.rename(bench.path)
    bench.error = None
    assert bench.look() == 2
    assert bench.preload.fault is None


def test_a_failure_that_stays_is_logged_once(tmp_path: Path, caplog: pytest.LogCaptureFixture):
    bench = Bench(tmp_path / "a.safetensors", OutOfMemory("full"))
    with caplog.at_level(logging.WARNING):
        assert [bench.look(after_s=RETRY_S) for _ in range(3)] == [1, 2, 3]
    assert len(caplog.records) == 1
