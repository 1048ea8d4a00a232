"""What goes wrong around the queue: readers that vanish, a full disk, a clock that jumps."""

import asyncio
import base64
import json
import random
import subprocess
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import AsyncExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest
import requests
from websockets.asyncio.client import connect as connect_async
from websockets.exceptions import WebSocketException
from websockets.sync.client import ClientConnection, connect

from tests.queues.queue_faults import Program, Servers, check, put_all, results
from tests.queues.queue_stores import RedisServer, free_port, redis_server, redis_servers

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]
KINDS = ["sqlite", *list(redis_servers())[:1]]
ITEMS = 500


@pytest.fixture(params=KINDS)
def redis(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[RedisServer | None]:
    if request.param == "sqlite":
        yield None
    else:
        with redis_server(redis_servers()[request.param], tmp_path / "redis") as server:
            yield server


@contextmanager
def serving(
    folder: Path, redis: RedisServer | None, program: Program, max_delivery: int = 0
) -> Iterator[tuple[Servers, int]]:
    """One server on a store; `max_delivery` is that of both of its queues."""
    servers, port = Servers(folder, redis.url if redis else "-", program.port, max_delivery), 0
    try:
        port = free_port()
        servers.start(port)
        yield servers, port
    finally:
        servers.close()


def sink(port: int) -> str:
    return f"127.0.0.1:{port}/api/predict/svc/sink"


def watcher(port: int, window: int, name: str = "one") -> ClientConnection:
    return connect(
        f"ws://{sink(port)}?_watch_=true&_window_={window}",
        additional_headers={"X-EAS-QueueService-Uid": name},
        open_timeout=20,
        ping_interval=None,
    )


def wait_for_sink(port: int, count: int) -> None:
    end = time.monotonic() + 240
    while (have := requests.get(f"http://{sink(port)}?_count_=true", timeout=20).text) != str(
        count
    ):
        assert time.monotonic() < end, f"{have} of {count} results"
        time.sleep(0.2)


def name_of(item: dict[str, Any]) -> str:
    return base64.b64decode(item["data"]).decode()


def test_a_watcher_that_loses_its_connection_gets_what_it_has_not_committed(
    redis: RedisServer | None, tmp_path: Path
):
    acknowledged: set[str] = set()
    got: Counter[str] = Counter()
    committed: set[str] = set()
    lost = 0
    with serving(tmp_path, redis, Program()) as (_, port):
        put_all([port], ITEMS, acknowledged)
        wait_for_sink(port, ITEMS)
        while committed != acknowledged:
            try:
                with watcher(port, window=10) as socket:
                    for _ in range(random.randrange(5, 45)):
                        item = json.loads(socket.recv(timeout=20))
                        got[name_of(item)] += 1
                        answer = requests.put(
                            f"http://{sink(port)}?_indexes_={item['index']}", timeout=20
                        )
                        assert answer.status_code == 200, answer.text
                        assert name_of(item) not in committed
                        committed.add(name_of(item))
                        if committed == acknowledged:
                            break
                    else:
                        lost += 1
                        socket.socket.close()  # no farewell
            except (WebSocketException, OSError):
                continue
        assert requests.get(f"http://{sink(port)}?_count_=true", timeout=20).text == "0"
    print(f"{lost} connections lost: {len(committed)} committed once, {sum(got.values())} received")
    assert lost > 5


def test_what_a_consumer_never_commits_goes_to_the_next_one(
    redis: RedisServer | None, tmp_path: Path
):
    acknowledged: set[str] = set()
    with serving(tmp_path, redis, Program()) as (_, port):
        put_all([port], ITEMS, acknowledged)
        wait_for_sink(port, ITEMS)
        with watcher(port, window=ITEMS) as silent:
            held = {name_of(json.loads(silent.recv(timeout=20))) for _ in range(ITEMS)}
        taken: list[str] = []
        with watcher(port, window=ITEMS, name="two") as other:
            for _ in range(ITEMS):
                item = json.loads(other.recv(timeout=30))
                taken.append(name_of(item))
                requests.put(f"http://{sink(port)}?_indexes_={item['index']}", timeout=20)
        assert requests.get(f"http://{sink(port)}?_count_=true", timeout=20).text == "0"
    assert held == acknowledged
    assert Counter(taken) == Counter(acknowledged)
    print(f"{len(held)} held and never committed, {len(taken)} delivered to the next")


@contextmanager
def small_disk(folder: Path, megabytes: int) -> Iterator[Path]:
    """A file system of its own."""
    folder.mkdir(parents=True)
    command = ["mount", "-t", "tmpfs", "-o", f"size={megabytes}m", "tmpfs", str(folder)]
    if subprocess.run(command, capture_output=True, check=False).returncode != 0:
        pytest.skip("mounting a small file system needs privileges")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


@pytest.mark.parametrize("kind", KINDS)
def test_a_full_disk_refuses_puts_and_loses_none_that_it_took(kind: str, tmp_path: Path):
    acknowledged: set[str] = set()
    refused: Counter[int] = Counter()
    program = Program(0.005)
    with small_disk(tmp_path / "disk", 24) as disk:
        ballast = disk / "ballast"
        if kind == "sqlite":
            (tmp_path / "data").symlink_to(disk)
            store = None
        else:
            store = RedisServer(redis_servers()[kind], disk)
            store.start()
        try:
            with serving(tmp_path, store, program) as (_, port):
                put_all([port], ITEMS // 2, acknowledged)
                _fill(ballast)
                url = f"http://127.0.0.1:{port}/api/predict/svc"
                for number in range(200):
                    name = f"full-{number}"
                    answer = requests.post(
                        url, params={"requestId": name}, data=name + "x" * 4000, timeout=30
                    )
                    if answer.status_code == 200:
                        acknowledged.add(name)
                    else:
                        refused[answer.status_code] += 1
                assert requests.get(f"http://127.0.0.1:{port}/healthz", timeout=10).ok
                ballast.unlink()
                if store is not None and store.has_ended:
                    store.start()  # with `appendfsync always` a Redis that cannot write ends
                put_all([port], ITEMS + len(acknowledged), acknowledged, prefix="after")
                failures = check(results(port), acknowledged)
        finally:
            if store is not None:
                store.kill()
    print(f"{kind}: {dict(refused)} refused, {len(acknowledged)} acknowledged and delivered")
    assert failures == 0
    assert refused.keys() <= {503, 507}
    assert refused


def _fill(path: Path) -> None:
    """Take what there is left of a disk."""
    with path.open("wb", buffering=0) as file:
        for size in (1 << 20, 1 << 12):
            try:
                while True:
                    file.write(b"\0" * size)
            except OSError:
                continue


def test_a_clock_that_jumps_loses_and_doubles_nothing(redis: RedisServer | None, tmp_path: Path):
    offset = tmp_path / "clock"
    offset.write_text("0")
    program, port = Program(0.02), free_port()
    servers = Servers(tmp_path, redis.url if redis else "-", program.port, 1)
    acknowledged: set[str] = set()
    jumps = 0
    servers.start(port, TEST_CLOCK=str(offset))
    putting = threading.Thread(target=put_all, args=([port], ITEMS, acknowledged))
    putting.start()
    try:
        while putting.is_alive():
            offset.write_text(str(random.choice([-1, 1]) * random.uniform(60, 86_400)))
            jumps += 1
            time.sleep(0.2)
        assert check(results(port), acknowledged) == 0
    finally:
        putting.join()
        servers.close()
    assert max(program.calls.values()) == 1
    print(f"{jumps} jumps of up to a day: {len(acknowledged)} delivered once")


async def _idle_watchers(url: str, count: int, are_there: threading.Event, end: threading.Event):
    """Hold so many connections until told to end."""
    async with AsyncExitStack() as held:
        for number in range(count):
            name = {"X-EAS-QueueService-Uid": f"idle-{number}"}
            connecting = connect_async(
                url, additional_headers=name, open_timeout=60, ping_interval=None
            )
            await held.enter_async_context(connecting)
        are_there.set()
        await asyncio.to_thread(end.wait, 300)


def test_a_thousand_idle_watchers_cost_no_item(redis: RedisServer | None, tmp_path: Path):
    acknowledged: set[str] = set()
    are_there, end = threading.Event(), threading.Event()
    with serving(tmp_path, redis, Program()) as (_, port):
        url = f"ws://{sink(port)}?_watch_=true&_window_=1&never=there"
        idle = threading.Thread(
            target=asyncio.run, args=(_idle_watchers(url, 1000, are_there, end),)
        )
        idle.start()
        try:
            assert are_there.wait(240)
            began = time.monotonic()
            put_all([port], 100, acknowledged)
            with watcher(port, window=100) as socket:
                received = {name_of(json.loads(socket.recv(timeout=60))) for _ in range(100)}
            took_s = time.monotonic() - began
            assert requests.get(f"http://127.0.0.1:{port}/healthz", timeout=10).ok
        finally:
            end.set()
            idle.join(60)
    assert received == acknowledged
    print(f"100 items put, worked on and received beside 1,000 idle watchers in {took_s:.1f} s")
