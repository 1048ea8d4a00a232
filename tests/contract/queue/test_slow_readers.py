"""Readers that stop in the middle of what they asked for, over real connections."""

import json
import socket
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest
import requests
from websockets.sync.client import connect

from sdapi.app import build_app
from sdapi.routes.queue import watching
from sdapi.settings import Settings
from tests.contract.queue.calls import SINK
from tests.fakes import FakeEngine, FakeEngines
from tests.servers import listening, wait_ready

MEGABYTE = 1 << 20
#: of a WebSocket's client, with four bytes of data, masked
PING = b"\x89\x84" + bytes(4) + b"ping"


@pytest.fixture
def url(tmp_path: Path) -> Iterator[str]:
    """The output queue of a server that listens."""
    settings = Settings(data_dir=tmp_path, services=("svc",))
    with listening(build_app(settings, FakeEngines(FakeEngine())), settings) as server:
        yield server + SINK


def count(url: str) -> int:
    return int(requests.get(f"{url}?_count_=true", timeout=10).text)


def consumer(url: str) -> str:
    """What is told of the first consumer."""
    told = requests.get(f"{url}?_attrs_=true", timeout=10).json()
    return told.get("consumers.list.[0]", "")


def put(url: str, data: bytes) -> None:
    assert requests.post(url, data=data, timeout=10).status_code == 200


def dial(url: str) -> socket.socket:
    """A connection whose system holds little for its reader, however large its buffers may grow."""
    host, port = url.removeprefix("http://").partition("/")[0].split(":")
    peer = socket.socket()
    peer.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 16)
    peer.settimeout(10)
    peer.connect((host, int(port)))
    return peer


def begin_to_read(url: str, bytes_to_read: int, query: str = "", head: str = "") -> socket.socket:
    port = url.removeprefix("http://").partition("/")[0].split(":")[1]
    peer = dial(url)
    path = url.partition(f":{port}")[2]
    peer.sendall(f"GET {path}?{query} HTTP/1.1\r\nHost: x\r\n{head}\r\n".encode())
    left = bytes_to_read
    while left:
        part = peer.recv(min(left, 1 << 16))
        assert part, "the server closed the connection"
        left -= len(part)
    return peer


@pytest.mark.parametrize("size", [300_000, 15 * MEGABYTE])
def test_a_reader_that_stops_and_goes_loses_no_item(url: str, size: int):
    put(url, b"x" * size)
    reader = begin_to_read(url, 16_000)
    time.sleep(0.3)
    reader.close()
    answer = requests.get(f"{url}?_timeout_=5s", timeout=10)
    assert (answer.status_code, len(answer.content)) == (200, size)
    assert requests.get(url, timeout=10).status_code == 204


def test_a_list_that_is_read_in_part_stays_whole(url: str):
    for _ in range(4):
        put(url, b"x" * 4 * MEGABYTE)
    begin_to_read(url, MEGABYTE, "_length_=4&_raw_=false").close()
    wait_ready(lambda: count(url) == 4, 10)


def test_a_slow_reader_that_reads_all_deletes(url: str):
    put(url, b"x" * MEGABYTE)
    reader = begin_to_read(url, MEGABYTE // 2)
    time.sleep(0.2)
    assert requests.get(url, timeout=10).status_code == 204  # it is on its way to the other
    left = MEGABYTE // 2
    while left > 0 and (part := reader.recv(1 << 16)):
        left -= len(part)
    wait_ready(lambda: requests.get(f"{url}?_search_=true&_index_=1").status_code == 404, 10)
    reader.close()


def test_auto_commit_deletes_what_a_stopped_watcher_took_and_no_more(url: str):
    for _ in range(20):
        put(url, b"x" * MEGABYTE)
    query = "_watch_=true&_auto_commit_=true"
    options = {"max_size": None, "max_queue": 1, "sock": dial(url)}
    with connect(f"ws{url[4:]}?{query}", **options) as watcher:
        received = [json.loads(watcher.recv(timeout=10))["index"]]
        time.sleep(0.5)
        watcher.socket.close()
    assert received == [1]
    assert count(url) >= 10  # the server's system holds some megabytes


@pytest.mark.parametrize("form", ["websocket", "http"])
@pytest.mark.parametrize(("size", "number"), [(MEGABYTE, 20), (10 * MEGABYTE, 2), (60_000, 250)])
def test_a_watcher_that_takes_nothing_any_more_gives_its_place_to_others(
    url: str, monkeypatch: pytest.MonkeyPatch, form: str, size: int, number: int
):
    monkeypatch.setattr(watching, "STALL_S", 0.5)
    for _ in range(number):
        put(url, b"x" * size)
    head = ""
    if form == "websocket":
        head = (
            "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"
            "Sec-WebSocket-Key: MTIzNDU2Nzg5MDEyMzQ1Ng==\r\n"
        )
    reader = begin_to_read(url, 1000, "_watch_=true&_auto_commit_=true", head)

    def has_left() -> bool:
        if form == "websocket":
            with suppress(OSError):  # the answers it does not read are no movement
                reader.sendall(PING)
        return "Status: Leaving" in consumer(url)

    wait_ready(has_left, 20)
    left = count(url)
    assert left >= number - 12 * MEGABYTE // size  # systems of both sides hold some megabytes
    with connect(f"ws{url[4:]}?_watch_=true&_auto_commit_=true", max_size=None) as socket:
        taken = [json.loads(socket.recv(timeout=10))["index"] for _ in range(left)]
    assert taken == list(range(number - left + 1, number + 1))
    reader.close()


@pytest.mark.parametrize("form", ["websocket", "http"])
def test_auto_commit_takes_everything_of_a_reader_that_reads_on(url: str, form: str):
    sizes = [1, MEGABYTE, 10, 70_000, 5, 200_000]
    for size in sizes:
        put(url, b"x" * size)
    query = "_watch_=true&_auto_commit_=true&_window_=0"
    if form == "websocket":
        with connect(f"ws{url[4:]}?{query}", max_size=None) as socket:
            for index in range(1, len(sizes) + 1):
                assert json.loads(socket.recv(timeout=10))["index"] == index
            wait_ready(lambda: count(url) == 0, 10)
        return
    with requests.get(f"{url}?{query}", stream=True, timeout=10) as answer:
        for size in sizes:
            length = int.from_bytes(answer.raw.read(4), "big")
            assert length > size
            assert len(answer.raw.read(length)) == length
        wait_ready(lambda: count(url) == 0, 10)
