"""Tasks in face processes; each is a function at this module's top."""

import asyncio
import os
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from sdapi.errors import ShuttingDown
from sdapi.portrait.faces.processes import FaceProcesses, FaceTaskFailed
from sdapi.portrait.faces.providers import Choices, Providers

pytestmark = pytest.mark.anyio


@pytest.fixture
async def processes() -> AsyncIterator[FaceProcesses]:
    made = FaceProcesses(Choices.make(Path("/nowhere"), {}), 1, timeout_s=20.0)
    yield made
    made.close()


async def test_a_task_runs_in_another_process_that_is_kept(processes: FaceProcesses):
    one, other = await processes.run(pid_of), await processes.run(pid_of)
    assert one == other != os.getpid()


async def test_a_process_that_dies_or_hangs_is_replaced(processes: FaceProcesses):
    one = await processes.run(pid_of)
    with pytest.raises(FaceTaskFailed, match="ended its process"):
        await processes.run(die)
    other = await processes.run(pid_of)
    assert other != one
    hasty = FaceProcesses(Choices.make(Path("/nowhere"), {}), 1, timeout_s=0.3)
    with pytest.raises(FaceTaskFailed, match="took too long"):
        await hasty.run(sleep)
    hasty.close()


async def test_what_a_task_raises_is_told(processes: FaceProcesses):
    with pytest.raises(FaceTaskFailed, match="ZeroDivisionError: division by zero"):
        await processes.run(divide, 0)
    assert await processes.run(divide, 2) == 0.5


async def test_nothing_runs_after_the_end(processes: FaceProcesses):
    processes.close()
    with pytest.raises(ShuttingDown, match="shutting down"):
        await processes.run(pid_of)


async def test_callers_that_leave_start_no_further_processes(tmp_path: Path):
    """Each process leaves its number when it begins with a task."""
    processes = FaceProcesses(Choices.make(Path("/nowhere"), {}), 2, timeout_s=20.0)
    try:
        for _ in range(8):
            caller = asyncio.create_task(processes.run(note, str(tmp_path), 0.5))
            await asyncio.sleep(0.02)
            caller.cancel()
            with pytest.raises(asyncio.CancelledError):
                await caller
        await asyncio.gather(*(processes.run(note, str(tmp_path), 0.0) for _ in range(4)))
        assert 1 <= len(list(tmp_path.iterdir())) <= 2
    finally:
        processes.close()


async def test_a_place_whose_caller_left_serves_the_next(processes: FaceProcesses, tmp_path: Path):
    caller = asyncio.create_task(processes.run(note, str(tmp_path), 0.2))
    async with asyncio.timeout(20):
        while not list(tmp_path.iterdir()):
            await asyncio.sleep(0.01)
    caller.cancel()
    with pytest.raises(asyncio.CancelledError):
        await caller
    assert [str(await processes.run(pid_of))] == [path.name for path in tmp_path.iterdir()]


def note(_: Providers, folder: str, for_s: float) -> None:
    (Path(folder) / str(os.getpid())).touch()
    time.sleep(for_s)


def pid_of(_: Providers) -> int:
    return os.getpid()


def die(_: Providers) -> None:
    os._exit(3)


def sleep(_: Providers) -> None:
    time.sleep(30)


def divide(_: Providers, by: int) -> float:
    return 1 / by
