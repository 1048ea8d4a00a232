"""Acknowledged puts over HTTP against plain inserts into the same kind of store.

    python -m benchmarks.queue_puts [--redis PROGRAM] [--seconds 2]

16 writers on both sides, the same durability: SQLite with `synchronous=FULL`, each plain insert its
own commit; Redis with `appendfsync always`, each plain insert one XADD. A writer sends its next put
when the one before was acknowledged. The HTTP writers are connections of one small loop, so that
they leave the processor to the server. Also the server's processor time for a put, the time from a
put to its watcher, and of attributes at 100,000 items.
"""

import argparse
import asyncio
import http.client
import os
import re
import selectors
import socket
import sqlite3
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import redis

from sdapi.queue.stores.sqlite.store import SqliteStore
from sdapi.queue.stores.store import NewItem, QueueName
from tests.queues.queue_stores import free_port, redis_server

WRITERS = 16
ROUNDS = 5
DATA = b"x" * 1000
PATH = "/api/predict/svc/sink"
LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)", re.IGNORECASE)


def rate(write: Callable[[], Callable[[], None]], seconds: float) -> float:
    """Writes per second of all writers; `write` makes what one of them repeats."""
    counts = [0] * WRITERS
    end = time.monotonic() + seconds

    def work(number: int) -> None:
        one = write()
        while time.monotonic() < end:
            one()
            counts[number] += 1

    threads = [threading.Thread(target=work, args=(number,)) for number in range(WRITERS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return sum(counts) / seconds


class HttpWriter:
    """A keep-alive connection that puts, waits for the whole answer, and puts again."""

    def __init__(self, port: int) -> None:
        head = f"POST {PATH} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nContent-Length: {len(DATA)}\r\n"
        self._request = head.encode() + b"\r\n" + DATA
        self.socket = socket.create_connection(("127.0.0.1", port), timeout=30)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._answer = b""

    def put(self) -> None:
        self.socket.sendall(self._request)

    def is_acknowledged(self) -> bool:
        """Read what has come; whether the answer is whole."""
        part = self.socket.recv(1 << 16)
        assert part, "the server has closed the connection"
        self._answer += part
        head, end, body = self._answer.partition(b"\r\n\r\n")
        if not end or len(body) < int(LENGTH.findall(head)[0]):
            return False
        assert head.startswith(b"HTTP/1.1 200 "), head
        self._answer = b""
        return True


def http_rate(port: int, seconds: float) -> float:
    """Acknowledged puts per second of all writers."""
    count, end = 0, time.monotonic() + seconds
    with selectors.DefaultSelector() as selector:
        for _ in range(WRITERS):
            writer = HttpWriter(port)
            selector.register(writer.socket, selectors.EVENT_READ, writer)
            writer.put()
        while time.monotonic() < end:
            for key, _ in selector.select(timeout=1):
                writer = key.data
                if writer.is_acknowledged():
                    count += 1
                    writer.put()
        for key in list(selector.get_map().values()):
            key.data.socket.close()
    return count / seconds


def http_writer(port: int) -> Callable[[], None]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)

    def put() -> None:
        connection.request("POST", PATH, body=DATA)
        answer = connection.getresponse()
        assert answer.status == 200
        answer.read()

    return put


def sqlite_writer(path: Path) -> Callable[[], None]:
    db = sqlite3.connect(path, isolation_level=None, timeout=60)
    db.execute("PRAGMA synchronous=FULL")
    return lambda: db.execute("INSERT INTO plain (data) VALUES (?)", (DATA,)) and None


def redis_writer(url: str) -> Callable[[], None]:
    client = redis.Redis.from_url(url)
    return lambda: client.xadd("plain", {"data": DATA}) and None


def cpu_s(pid: int) -> float:
    """Processor time that a process has used."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def served(folder: Path, queue_url: str, measure: Callable[[int, int], None]) -> None:
    port = free_port()
    file = folder / "svc.json"
    file.write_text(
        '{"metadata": {"name": "svc", "type": "Async"}, "queue": {"memory": 64000},'
        ' "containers": [{"image": "x/none:1", "port": 9}]}'
    )
    command = [sys.executable, "-m", "tests.queues.queue_server", str(port), str(folder), queue_url]
    with subprocess.Popen([*command, str(file)], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        try:
            measure(port, process.pid)
        finally:
            process.kill()


def latency(port: int, count: int = 200) -> None:
    """From the beginning of a put to its frame at a watcher."""
    from websockets.sync.client import connect

    put, times = http_writer(port), list[float]()
    url = f"ws://127.0.0.1:{port}/api/predict/svc/sink?_watch_=true&_index_=-1&_auto_commit_=true"
    with connect(url, compression=None) as socket:
        time.sleep(0.3)
        for _ in range(count):
            began = time.perf_counter()
            put()
            socket.recv()
            times.append((time.perf_counter() - began) * 1000)
    cuts = statistics.quantiles(times, n=100)
    print(f"put to watcher: p50 {cuts[49]:.1f} ms, p99 {cuts[98]:.1f} ms")


async def attributes_at(folder: Path, count: int) -> None:
    store, queue = SqliteStore(folder / "many.db"), QueueName("svc")
    await store.open(lambda event: None)
    for first in range(0, count, 1000):
        items = [NewItem(f"{n}", {"requestId": f"{n}"}, b"") for n in range(first, first + 1000)]
        await asyncio.gather(*(store.put(queue, item) for item in items))
    began = time.perf_counter()
    for _ in range(100):
        await store.stats(queue)
    print(f"attributes at {count} items: {(time.perf_counter() - began) * 10:.2f} ms")
    await store.close()


def compare(
    kind: str, plain: Callable[[], Callable[[], None]], port: int, pid: int, seconds: float
) -> None:
    """Both sides by turns; of each the best round, which the machine's other work held up least."""
    http_rate(port, 0.5)
    plain_rates, our_rates, used_us = list[float](), list[float](), list[float]()
    for _ in range(ROUNDS):
        plain_rates.append(rate(plain, seconds))
        began = cpu_s(pid)
        our_rates.append(http_rate(port, seconds))
        used_us.append((cpu_s(pid) - began) / our_rates[-1] / seconds * 1e6)
    ours, theirs = max(our_rates), max(plain_rates)
    print(f"{kind}: {ours:.0f} puts/s, plain {theirs:.0f}/s, ratio {ours / theirs:.2f}")
    print(f"  the server's processors took {min(used_us):.0f} us for a put")
    latency(port)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--redis", type=Path, help="a redis-server to measure as well")
    parser.add_argument("--seconds", type=float, default=2.0, help="of one round")
    options = parser.parse_args()
    seconds = options.seconds
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        with sqlite3.connect(folder / "plain.db") as db:
            db.execute("PRAGMA journal_mode=WAL")
            db.execute("CREATE TABLE plain (id INTEGER PRIMARY KEY, data BLOB)")
        inserts = partial(sqlite_writer, folder / "plain.db")
        served(folder, "-", lambda port, pid: compare("SQLite", inserts, port, pid, seconds))
        asyncio.run(attributes_at(folder, 100_000))
        if options.redis:
            with redis_server(options.redis, folder / "redis") as server:
                adds = partial(redis_writer, server.url)
                served(
                    folder,
                    server.url,
                    lambda port, pid: compare("Redis", adds, port, pid, seconds),
                )


if __name__ == "__main__":
    main()
