"""Tasks in face processes; each is a function at this module's top."""

import asyncio
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from multiprocessing.connection import Connection
from pathlib import Path

import pytest

from sdapi.errors import NoProcess, ShuttingDown
from sdapi.portrait.faces.processes import FaceProcesses, FaceTaskFailed
from sdapi.portrait.faces.providers import Choices, Providers
from sdapi.portrait.faults import PASSING

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


async def test_a_process_that_outlives_its_kill_holds_up_no_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
):
    processes = FaceProcesses(Choices.make(Path("/nowhere"), {}), 3, timeout_s=20.0)
    await asyncio.gather(*(processes.run(note, str(tmp_path), 0.5) for _ in range(3)))
    stuck, *others = (int(path.name) for path in tmp_path.iterdir())
    kill, kept = subprocess.Popen[bytes].kill, list[subprocess.Popen[bytes]]()

    def kill_others(process: subprocess.Popen[bytes]) -> None:
        if process.pid == stuck:
            kept.append(process)
        else:
            kill(process)

    monkeypatch.setattr(subprocess.Popen, "kill", kill_others)
    monkeypatch.setattr("sdapi.portrait.faces.processes._STOP_TIMEOUT_S", 0.3)
    os.kill(stuck, signal.SIGSTOP)
    processes.close()
    assert f"face process {stuck} is still there" in caplog.text
    assert not any(is_worker(pid) for pid in others)
    kill(kept[0])
    kept[0].wait(20)


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


async def test_a_stop_of_the_whole_group_leaves_the_answer_to_the_server(
    processes: FaceProcesses, tmp_path: Path
):
    answer = asyncio.create_task(processes.run(note, str(tmp_path), 0.3))
    async with asyncio.timeout(20):
        while not (noted := list(tmp_path.iterdir())):
            await asyncio.sleep(0.01)
    for number in (signal.SIGTERM, signal.SIGINT):
        os.kill(int(noted[0].name), number)
    await answer
    assert str(await processes.run(pid_of)) == noted[0].name


@pytest.mark.parametrize("is_busy", [False, True])
def test_processes_end_with_a_server_that_is_killed(is_busy: bool):
    program = f"""
import anyio, pathlib
from sdapi.portrait.faces.processes import FaceProcesses
from sdapi.portrait.faces.providers import Choices
from tests.unit.portrait.faces.test_processes import pid_of, sleep_a_little
async def main():
    processes = FaceProcesses(Choices.make(pathlib.Path("/nowhere"), {{}}), 1)
    print(await processes.run(pid_of), flush=True)
    await processes.run(sleep_a_little) if {is_busy} else await anyio.sleep(60)
anyio.run(main)
"""
    with subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE) as server:
        assert server.stdout is not None
        child = int(server.stdout.readline())
        server.kill()
    end = time.monotonic() + 20
    while is_worker(child):
        assert time.monotonic() < end, "the process is left"
        time.sleep(0.02)


def test_a_task_that_never_ends_is_ended_without_a_server():
    ours, theirs = socket.socketpair()
    command = [sys.executable, "-m", "sdapi.portrait.faces.worker", str(theirs.fileno()), "1"]
    with subprocess.Popen(command, pass_fds=[theirs.fileno()]) as worker:
        theirs.close()
        with Connection(ours.detach()) as connection:
            connection.send(Choices.make(Path("/nowhere"), {}))
            connection.send((sleep, ()))
            assert worker.wait(30) == -signal.SIGALRM


@pytest.mark.parametrize("broken", ["subprocess.Popen", "Connection.send"])
async def test_a_process_that_cannot_be_started_costs_the_task_alone(
    processes: FaceProcesses, monkeypatch: pytest.MonkeyPatch, broken: str
):
    def refuse(*_: object, **__: object) -> None:
        raise BlockingIOError(11, "Resource temporarily unavailable")

    with monkeypatch.context() as patch:
        patch.setattr(f"sdapi.portrait.faces.processes.{broken}", refuse)
        with pytest.raises(NoProcess, match="temporarily unavailable") as failed:
            await processes.run(pid_of)
        assert isinstance(failed.value, PASSING)
        assert failed.value.retry_after_s
    assert await processes.run(pid_of)


def is_worker(pid: int) -> bool:
    """A zombie that nobody has waited for has no command line, and no other program this one."""
    try:
        return b"sdapi.portrait.faces.worker" in Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return False


def note(_: Providers, folder: str, for_s: float) -> None:
    (Path(folder) / str(os.getpid())).touch()
    time.sleep(for_s)


def pid_of(_: Providers) -> int:
    return os.getpid()


def die(_: Providers) -> None:
    os._exit(3)


def sleep(_: Providers) -> None:
    time.sleep(30)


def sleep_a_little(_: Providers) -> None:
    time.sleep(1)


def divide(_: Providers, by: int) -> float:
    return 1 / by
