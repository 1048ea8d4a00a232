"""Services without queues: calls of their programs, whatever these are."""

import json
import socket
import ssl
from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest
import requests
from starlette.testclient import TestClient

from sdapi.app import build_app
from sdapi.queue.dispatching import on_port
from sdapi.settings import Settings
from tests.contract.conftest import Serve
from tests.contract.queue.calls import service_file
from tests.contract.queue.programs import BROKEN, OK, UNAVAILABLE, RawProgram
from tests.contract.queue.test_slow_readers import begin_to_read
from tests.fakes import FakeEngine, FakeEngines
from tests.servers import listening, wait_ready

U = "/api/predict/direct"

Start = Callable[..., TestClient]


@pytest.fixture
def program() -> RawProgram:
    return RawProgram()


def direct(folder: Path, program: RawProgram, keepalive_ms: int = 5000) -> Path:
    """The file of the service `direct`, which is the program."""
    return service_file(
        folder,
        metadata={"name": "direct", "rpc": {"keepalive": keepalive_ms}},
        containers=[{"image": "registry/own:1", "port": program.port}],
    )


@pytest.fixture
def start(serve: Serve, program: RawProgram, tmp_path: Path) -> Start:
    def start(keepalive_ms: int = 5000) -> TestClient:
        return serve(service_files=(direct(tmp_path, program, keepalive_ms),))

    return start


@pytest.fixture
def url(program: RawProgram, data_dir: Path, tmp_path: Path) -> Iterator[str]:
    """The service of a server that listens, for what a client of HTTP would add or take away."""
    settings = Settings(data_dir=data_dir, service_files=(direct(tmp_path, program, 60_000),))
    with listening(build_app(settings, FakeEngines(FakeEngine())), settings) as server:
        yield f"{server}{U}/a"


def head_of_answer(url: str, method: str = "GET", head: bytes = b"host: x\r\n") -> list[str]:
    """The status line and headers, in lower case."""
    address = urlsplit(url)
    assert address.port is not None
    with socket.create_connection(("127.0.0.1", address.port), timeout=10) as peer:
        peer.sendall(f"{method} {address.path} HTTP/1.1\r\n".encode() + head + b"\r\n")
        answer = b""
        while b"\r\n\r\n" not in answer:
            part = peer.recv(1 << 16)
            assert part, "the server closed the connection"
            answer += part
    return answer.partition(b"\r\n\r\n")[0].decode().lower().split("\r\n")


PATHS = ["/a%20b/c%3Fd/e%23f", "/%25", "//evil/x", "/a%00b", "/%E4%B8%AD", "/a%2Fb"]


def test_a_path_reaches_the_program_as_it_was_sent(start: Start, program: RawProgram):
    with program.running():
        client = start()
        for path in PATHS:
            assert client.post(f"{U}{path}?k=%20v").content == b"done"
    assert program.asked == [f"POST {path}?k=%20v" for path in PATHS]


def test_headers_reach_the_program_as_they_were_sent_and_no_others_do(
    url: str, program: RawProgram
):
    sent = b"Host: studio.example\r\nX-Name: J\xfcrgen\r\nCookie: n=\xe9\r\n"
    hop = b"Connection: close, x-hop\r\nX-Hop: 1\r\nTE: trailers\r\n"
    with program.running():
        assert head_of_answer(url, head=sent + hop)[0] == "http/1.1 200 ok"
    [head] = program.heads
    lines = {line.lower() for line in head.rstrip().split("\r\n")[1:]}
    assert lines == {"host: studio.example", "x-name: jürgen", "cookie: n=é"}


def test_headers_that_http_does_not_allow_are_the_callers_mistake(url: str, program: RawProgram):
    with program.running():
        answer = head_of_answer(url, head=b"Host: a\r\nHost: b\r\n")
    assert (answer[0], program.asked) == ("http/1.1 400 bad request", [])


def test_an_answer_keeps_its_cookies_and_loses_retry_after(start: Start, program: RawProgram):
    cookies = b"set-cookie: a=1; Path=/\r\nset-cookie: b=2, 3\r\n"
    program.answer = lambda line: UNAVAILABLE.replace(b"retry-after", cookies + b"retry-after")
    with program.running():
        answer = start().get(f"{U}/a")
    assert (answer.status_code, answer.content) == (503, b"busy")
    assert answer.headers.get_list("set-cookie") == ["a=1; Path=/", "b=2, 3"]
    assert "retry-after" not in answer.headers


@pytest.mark.parametrize("method", ["HEAD", "GET"])
def test_an_answer_keeps_its_length_and_has_one_date(url: str, program: RawProgram, method: str):
    answer = OK.replace(b"content-length", b"date: yesterday\r\ncontent-length")
    program.answer = lambda line: answer.removesuffix(b"done" if method == "HEAD" else b"")
    with program.running():
        head = head_of_answer(url, method)
    names = [line.partition(":")[0] for line in head]
    assert "content-length: 4" in head
    assert (names.count("date"), "date: yesterday" in head) == (1, False)
    assert "transfer-encoding" not in names


def test_a_program_that_is_away_is_503_and_one_that_breaks_off_502(
    start: Start, program: RawProgram
):
    client = start()
    assert client.get(f"{U}/a").status_code == 503
    program.answer = lambda line: b"no HTTP"
    with program.running():
        assert client.get(f"{U}/a").status_code == 502


def test_an_answer_that_stalls_is_cut_off(
    start: Start, program: RawProgram, caplog: pytest.LogCaptureFixture
):
    program.answer, program.stalls = lambda line: BROKEN, True
    with program.running():
        start(keepalive_ms=300).get(f"{U}/a")
        assert "service direct: an answer broke off: TimeoutError" in caplog.text


def test_a_call_that_takes_too_long_is_408_and_its_program_is_left(
    start: Start, program: RawProgram
):
    program.answer, program.stalls = lambda line: b"", True
    with program.running():
        answer = start(keepalive_ms=300).post(f"{U}/a", content=b"x")
        assert (answer.status_code, answer.text) == (408, "not done within 0.3 s")
        wait_ready(lambda: program.left == ["POST /a"], 10)


def test_a_caller_who_goes_is_not_worked_for(url: str, program: RawProgram):
    program.answer, program.stalls = lambda line: b"", True
    with program.running():
        caller = begin_to_read(url, 0)
        wait_ready(lambda: len(program.asked) == 1, 10)
        caller.close()
        wait_ready(lambda: len(program.left) == 1, 10)


def test_a_caller_who_reads_no_more_keeps_no_place(
    program: RawProgram, data_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(on_port, "_SYNC_CALLS", 1)
    size = 30 << 20  # systems of both sides hold some megabytes
    head = b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n" % size
    program.answer = lambda line: head + bytes(size)
    settings = Settings(data_dir=data_dir, service_files=(direct(tmp_path, program, 1000),))
    app = build_app(settings, FakeEngines(FakeEngine()))
    with program.running(), listening(app, settings) as server:
        url = f"{server}{U}/a"
        with begin_to_read(url, 1000):
            assert requests.get(url, timeout=10).status_code == 408
            wait_ready(lambda: requests.get(url, timeout=10).status_code == 200, 15)


def test_a_call_reads_no_certificates(
    start: Start, program: RawProgram, monkeypatch: pytest.MonkeyPatch
):
    with program.running():
        client = start()
        made = list[object]()
        real = ssl.create_default_context
        monkeypatch.setattr(
            ssl, "create_default_context", lambda **given: (made.append(given), real(**given))[1]
        )
        assert client.get(f"{U}/a").content == b"done"
    assert made == []


@pytest.mark.parametrize("times", [1, 2000])
def test_no_service_is_called_through_another(serve: Serve, times: int):
    answer = serve(services=("svc:sync",)).get("/api/predict/svc" * times + "/api/predict/svc/a")
    assert (answer.status_code, answer.text) == (404, "no service is called through another")


CHECK = {"image": "x/photog_pub:check.1.0.0.pub", "port": 7861}


@pytest.fixture
def check_file(tmp_path: Path) -> Path:
    """A synchronous service that looks at photos."""
    return service_file(tmp_path, metadata={"name": "check"}, containers=[CHECK])


def test_a_service_of_a_portrait_image_is_its_program_and_nothing_else(
    serve: Serve, check_file: Path
):
    client = serve(service_files=(check_file,), token="all", service_tokens={"check": "own"})
    headers = {"authorization": "own"}
    body = json.dumps({"request_id": 1, "images": ["no URL"], "configure": {}})
    answer = client.post("/api/predict/check", content=body, headers=headers)
    assert (answer.status_code, answer.json()["request_id"]) == (200, "1")
    assert len(answer.json()["data"]["check_results"]) == 1
    other = client.get("/api/predict/check/sdapi/v1/samplers", headers=headers)
    assert other.status_code == 404


def test_a_service_whose_program_this_server_does_not_have_is_503(serve: Serve, check_file: Path):
    answer = serve(service_files=(check_file,), portrait=False).post("/api/predict/check")
    assert (answer.status_code, answer.text) == (503, "this server has no program portrait-check")
