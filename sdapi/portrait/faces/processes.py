"""Face analysis in processes of its own.

dlib's embedding and CNN hold Python's interpreter lock, for 80 ms and for seconds: in this process
the server would stand still meanwhile. A process also keeps what hostile files do to a decoder
away from the server, and can be ended when a picture takes too long. About 200 MB each.
"""

import logging
import os
import socket
import subprocess
import sys
import threading
from collections import deque
from collections.abc import Callable
from math import ceil
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, Concatenate, Final, ParamSpec, TypeVar

import anyio
import anyio.to_thread

import sdapi
from sdapi.errors import NoProcess, ShuttingDown
from sdapi.portrait.faces.providers import Choices, Providers
from sdapi.services.unbroken import unbroken

P = ParamSpec("P")
R = TypeVar("R")

TIMEOUT_S: Final = 60.0
_STOP_TIMEOUT_S: Final = 5.0
#: a task of a server that was killed ends so long after the server would have ended it
_ORPHANED_S: Final = 30
_CLOSED: Final = "the server is shutting down"
logger = logging.getLogger(__name__)


class FaceTaskFailed(Exception):
    """A task raised, took too long, or its process died."""


class FaceProcesses:
    """Runs tasks on the providers of a few processes, which start when first needed."""

    def __init__(self, choices: Choices, count: int, timeout_s: float = TIMEOUT_S) -> None:
        self._choices = choices
        self._timeout_s = timeout_s
        #: as many tasks as processes: a place is free when its thread is, whoever waits for it
        self._places = anyio.Semaphore(count)
        self._threads = anyio.CapacityLimiter(count)
        #: guards the two below; processes in use are in `_all` only
        self._lock = threading.Lock()
        self._free: deque[_Process] = deque()
        self._all: set[_Process] = set()
        self._is_closed = False

    async def run(
        self, task: Callable[Concatenate[Providers, P], R], *args: P.args, **kwargs: P.kwargs
    ) -> R:
        """The result of `task(providers, *args)`, which must be a function at a module's top.

        A caller that is cancelled goes at once; what it asked for keeps its process until it ends.
        Raises FaceTaskFailed; a process that died or hung is replaced for the next task. Raises
        NoProcess where none can be started, and ShuttingDown once these are closed.
        """
        assert not kwargs, "tasks take positional arguments"
        await self._places.acquire()
        return await unbroken(self._run_in_place(task, args))

    def run_blocking(
        self, task: Callable[Concatenate[Providers, P], R], *args: P.args, **kwargs: P.kwargs
    ) -> R:
        """`run` for a thread that may wait; the caller bounds how many do so at once."""
        assert not kwargs, "tasks take positional arguments"
        return self._run(task, args)

    def close(self) -> None:
        """End every process; later tasks fail."""
        with self._lock:
            self._is_closed = True
            processes = list(self._all)
        for process in processes:
            process.end()

    async def _run_in_place(self, task: Any, arguments: tuple[Any, ...]) -> Any:
        try:
            return await anyio.to_thread.run_sync(self._run, task, arguments, limiter=self._threads)
        finally:
            self._places.release()

    def _run(self, task: Any, arguments: tuple[Any, ...]) -> Any:
        process = self._take()
        try:
            kind, answer = process.ask((task, arguments), self._timeout_s)
        except (EOFError, OSError, TimeoutError) as error:
            self._drop(process)
            if self._is_closed:
                raise ShuttingDown(_CLOSED) from error
            what = "took too long" if isinstance(error, TimeoutError) else "ended its process"
            logger.warning("a face task %s; the next one gets a new process", what)
            raise FaceTaskFailed(f"the task {what}") from error
        with self._lock:
            self._free.append(process)
        if kind == "failed":
            raise FaceTaskFailed(answer)
        return answer

    def _take(self) -> "_Process":
        with self._lock:
            if self._is_closed:
                raise ShuttingDown(_CLOSED)
            if self._free:
                return self._free.pop()
            try:
                process = _Process(self._choices, self._timeout_s)
            except OSError as error:
                logger.warning("no face process can be started: %s", error)
                reason = error.strerror or type(error).__name__
                raise NoProcess(f"no process for faces can be started: {reason}") from error
            self._all.add(process)
            return process

    def _drop(self, process: "_Process") -> None:
        process.end()
        with self._lock:
            self._all.discard(process)


class _Process:
    """One child and the pipe to it; used by one thread at a time."""

    def __init__(self, choices: Choices, timeout_s: float) -> None:
        """Start it; raises OSError."""
        ours, theirs = socket.socketpair()
        package_folder = str(Path(sdapi.__file__).resolve().parents[1])
        path = os.pathsep.join(filter(None, [package_folder, os.environ.get("PYTHONPATH")]))
        descriptor, limit_s = str(theirs.fileno()), str(ceil(timeout_s) + _ORPHANED_S)
        # Closed with it where the child cannot be started.
        self._connection = Connection(ours.detach())
        with theirs:
            self._child = subprocess.Popen(
                [sys.executable, "-m", "sdapi.portrait.faces.worker", descriptor, limit_s],
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
                env={**os.environ, "PYTHONPATH": path},
            )
        try:
            self._connection.send(choices)
        except OSError:
            self.end()
            raise

    def ask(self, message: Any, timeout_s: float) -> tuple[str, Any]:
        """Send a task and wait for its answer; raises TimeoutError, EOFError, OSError."""
        self._connection.send(message)
        if not self._connection.poll(timeout_s):
            raise TimeoutError
        return self._connection.recv()

    def end(self) -> None:
        """Kill the child and wait for it; one that the kernel holds up is left, and logged."""
        self._child.kill()
        try:
            self._child.wait(_STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            logger.warning("face process %d is still there after it was killed", self._child.pid)
        self._connection.close()
