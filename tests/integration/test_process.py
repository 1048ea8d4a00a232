import os
import re
import select
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from http.client import HTTPConnection, HTTPException
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

#: stands in for the application: /slow takes a second, new requests are refused while it stops
APP = """
import asyncio, sys, types
from fastapi import FastAPI
from fastapi.responses import JSONResponse

def build_app(settings, engines):
    app = FastAPI()
    stopping = []
    app.state.begin_shutdown = lambda: stopping.append(True)

    @app.get("/quick")
    async def quick():
        return JSONResponse({}, 503 if stopping else 200)

    @app.get("/slow")
    async def slow(seconds: float = 1.0):
        await asyncio.sleep(seconds)
        return "done"

    @app.get("/stop")
    async def stop():
        app.state.request_stop()

    return app

module = types.ModuleType("sdapi.app")
module.build_app = build_app
sys.modules["sdapi.app"] = module
from sdapi.cli import main
sys.exit(main(sys.argv[1:]))
"""


class Process:
    """A server process on a free port."""

    def __init__(self, process: subprocess.Popen[str], port: int) -> None:
        self.process = process
        self.port = port

    def get(self, path: str) -> int:
        connection = HTTPConnection("127.0.0.1", self.port, timeout=10)
        try:
            connection.request("GET", path)
            return connection.getresponse().status
        finally:
            connection.close()

    def get_beside(self, path: str) -> "tuple[threading.Thread, list[int]]":
        """A request in a thread, and the list that its status goes to when it gets one."""
        statuses: list[int] = []

        def ask() -> None:
            with suppress(OSError, HTTPException):
                statuses.append(self.get(path))

        thread = threading.Thread(target=ask)
        thread.start()
        time.sleep(0.2)  # so that the request is under way
        return thread, statuses

    def stop(self, how: signal.Signals = signal.SIGTERM) -> None:
        self.process.send_signal(how)

    def exit_code(self) -> int:
        return self.process.wait(timeout=20)


@contextmanager
def started(
    tmp_path: Path, *arguments: str, program: str = APP, state: str = "is ready"
) -> Iterator[Process]:
    command = [sys.executable, "-c", program, "--port=0", "--data-dir", str(tmp_path), *arguments]
    environ = {name: value for name, value in os.environ.items() if name != "COMMANDLINE_ARGS"}
    with subprocess.Popen(
        command, cwd=ROOT, env=environ, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        try:
            assert process.stdout is not None
            assert select.select([process.stdout], [], [], 20)[0], "not ready within 20 s"
            line = process.stdout.readline()
            port = re.search(rf" {state} at http://127\.0\.0\.1:(\d+)", line)
            assert port, line
            yield Process(process, int(port[1]))
        finally:
            process.kill()


READINESS = """
    from sdapi.services.system.readiness import Readiness, Status
    mended, looks = [], []

    async def readiness():
        looks.append(True)
        if FIRST_FAILS and len(looks) == 1:
            raise OSError("the disk is away")
        if mended:
            return Readiness(Status.READY, {})
        return Readiness(Status.UNUSABLE, {}, ("the checkpoint a is broken",))

    app.state.readiness = readiness

    @app.get("/mend")
    async def mend():
        mended.append(True)

    @app.get("/few-looks")
    async def few_looks():
        return JSONResponse({}, 200 if len(looks) <= 3 else 400)

    return app
"""


def watched(*, first_fails: bool) -> str:
    return APP.replace("\n    return app\n", READINESS.replace("FIRST_FAILS", str(first_fails)))


def test_a_look_that_fails_is_logged_and_not_the_last(tmp_path: Path):
    program = watched(first_fails=True)
    with started(tmp_path, program=program, state="cannot draw, and answers") as server:
        assert server.get("/mend") == 200
        assert server.process.stdout is not None
        assert server.process.stdout.readline() == "sdapi: the checkpoint a is broken\n"
        assert " is ready at " in server.process.stdout.readline()
        server.stop()
        assert server.exit_code() == 0
        assert server.process.stderr is not None
        text = server.process.stderr.read()
    assert text.count("whether the application is ready cannot be told") == 1
    assert "the disk is away" in text


def test_the_console_says_ready_when_it_is_and_before_that_what_is_wrong(tmp_path: Path):
    program = watched(first_fails=False)
    with started(tmp_path, program=program, state="cannot draw, and answers") as server:
        assert server.process.stdout is not None
        assert server.process.stdout.readline() == "sdapi: the checkpoint a is broken\n"
        time.sleep(1.5)
        assert server.get("/few-looks") == 200
        assert server.get("/mend") == 200
        assert f" is ready at http://127.0.0.1:{server.port}" in server.process.stdout.readline()


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_the_server_with_zero(tmp_path: Path, how: signal.Signals):
    with started(tmp_path) as server:
        assert server.get("/quick") == 200
        server.stop(how)
        assert server.exit_code() == 0


@pytest.mark.parametrize("is_busy", [True, False])
def test_a_stop_promises_time_to_a_job_only_when_one_runs(tmp_path: Path, is_busy: bool):
    program = APP.replace("stopping = []", f"stopping = []; app.state.is_busy = lambda: {is_busy}")
    with started(tmp_path, program=program) as server:
        server.stop()
        assert server.exit_code() == 0
        assert server.process.stderr is not None
        text = server.process.stderr.read()
    assert "stopping" in text
    assert ("the running job may take 30 s more" in text) == is_busy


def test_while_stopping_the_running_request_ends_and_new_ones_are_refused(tmp_path: Path):
    with started(tmp_path) as server:
        thread, statuses = server.get_beside("/slow")
        server.stop()
        time.sleep(0.2)
        assert server.get("/quick") == 503
        thread.join()
        assert statuses == [200]
        assert server.exit_code() == 0


def test_a_request_that_does_not_end_is_cut_at_the_time_limit(tmp_path: Path):
    with started(tmp_path, "--shutdown-timeout", "0.2") as server:
        thread, _ = server.get_beside("/slow?seconds=8")
        began = time.monotonic()
        server.stop()
        assert server.exit_code() == 0
        assert time.monotonic() - began < 7.5
        thread.join()


def test_the_application_says_when_its_work_is_done(tmp_path: Path):
    slow_end = APP.replace(
        "stopping = []",
        "stopping = []; app.state.drain = lambda: asyncio.sleep(0.6)",
    )
    with started(tmp_path, program=slow_end) as server:
        began = time.monotonic()
        server.stop()
        time.sleep(0.2)
        assert server.get("/quick") == 503
        assert server.exit_code() == 0
        assert time.monotonic() - began > 0.6


def test_a_second_ctrl_c_ends_at_once(tmp_path: Path):
    with started(tmp_path) as server:
        thread, _ = server.get_beside("/slow?seconds=8")
        server.stop(signal.SIGINT)
        time.sleep(0.2)
        server.stop(signal.SIGINT)
        began = time.monotonic()
        assert server.exit_code() == 130
        assert time.monotonic() - began < 2
        thread.join()


def test_the_application_can_stop_the_server(tmp_path: Path):
    with started(tmp_path) as server:
        assert server.get("/stop") == 200
        assert server.exit_code() == 0


def test_the_banner_and_warning_say_when_the_server_is_open(tmp_path: Path):
    with started(tmp_path, "--listen") as server:
        server.stop()
        _, errors = server.process.communicate(timeout=20)
    assert "everyone who reaches this port may use the server" in errors
    with started(tmp_path, "--listen", "--token", "T") as server:
        server.stop()
        _, errors = server.process.communicate(timeout=20)
    assert "everyone" not in errors


def test_an_application_that_does_not_start_is_exit_code_one(tmp_path: Path):
    broken = APP.replace("app = FastAPI()", "raise RuntimeError('broken')")
    command = [sys.executable, "-c", broken, "--port=0", "--data-dir", str(tmp_path)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=30)
    assert done.returncode == 1
    assert "RuntimeError: broken" in done.stderr


def test_a_bad_certificate_is_named(tmp_path: Path):
    (tmp_path / "key").write_text("no key")
    command = [sys.executable, "-c", APP, "--port=0", "--data-dir", str(tmp_path)]
    tls = ["--tls-keyfile", str(tmp_path / "key"), "--tls-certfile", str(tmp_path / "key")]
    done = subprocess.run([*command, *tls], cwd=ROOT, capture_output=True, text=True, timeout=30)
    assert done.returncode == 1
    assert "--tls-keyfile" in done.stderr
    assert "Traceback" not in done.stderr
