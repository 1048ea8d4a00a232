"""Processes that die: every acknowledged put ends as exactly one item of the sink."""

import random
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.queues.queue_faults import Program, Servers, check, put_all, results
from tests.queues.queue_stores import RedisServer, free_port, redis_server, redis_servers

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]
KINDS = ["sqlite", *redis_servers()]
ITEMS = 500
KILLS = 20


@pytest.fixture(params=KINDS)
def redis(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[RedisServer | None]:
    if request.param == "sqlite":
        yield None
    else:
        with redis_server(redis_servers()[request.param], tmp_path / "redis") as server:
            yield server


@pytest.mark.parametrize("max_delivery", [1, 0])
def test_a_server_killed_at_random_moments_loses_and_doubles_nothing(
    redis: RedisServer | None, tmp_path: Path, max_delivery: int
):
    program, port = Program(0.02), free_port()
    servers = Servers(tmp_path, redis.url if redis else "-", program.port, max_delivery)
    acknowledged: set[str] = set()
    servers.start(port)
    putting = threading.Thread(target=put_all, args=([port], ITEMS, acknowledged))
    putting.start()
    try:
        for _ in range(KILLS):
            time.sleep(random.uniform(0.05, 1.0))
            servers.kill(port)
            servers.start(port)
        putting.join()
        assert len(acknowledged) == ITEMS
        failures = check(results(port), acknowledged)
        if max_delivery == 1:
            assert max(program.calls.values()) == 1
        else:
            assert failures == 0
        print(f"{KILLS} kills: {failures} failures told, calls {sum(program.calls.values())}")
    finally:
        servers.close()


def test_a_redis_killed_at_random_moments_loses_nothing_it_has_acknowledged(
    redis: RedisServer | None, tmp_path: Path
):
    if redis is None:
        pytest.skip("there is no Redis to kill")
    program, port = Program(0.02), free_port()
    servers = Servers(tmp_path, redis.url, program.port, 1)
    acknowledged: set[str] = set()
    servers.start(port)
    putting = threading.Thread(target=put_all, args=([port], ITEMS, acknowledged))
    putting.start()
    try:
        for _ in range(KILLS):
            time.sleep(random.uniform(0.2, 1.0))
            redis.kill()
            redis.start()
        putting.join()
        failures = check(results(port), acknowledged)
        assert max(program.calls.values()) == 1
        print(f"{KILLS} kills of Redis: {failures} failures told")
    finally:
        servers.close()


def test_of_two_servers_on_one_redis_the_other_finishes_when_one_is_killed(
    redis: RedisServer | None, tmp_path: Path
):
    if redis is None:
        pytest.skip("SQLite is for one server")
    program, ports = Program(0.05), [free_port(), free_port()]
    servers = Servers(tmp_path, redis.url, program.port, 0)
    acknowledged: set[str] = set()
    try:
        for port in ports:
            servers.start(port)
        put_all(ports, 200, acknowledged)
        while sum(program.calls.values()) < 100:
            time.sleep(0.02)
        servers.kill(ports[0])
        began = time.monotonic()
        found = results(ports[1], timeout_s=60)
        assert check(found, acknowledged) == 0
        print(f"all 200 results {time.monotonic() - began:.1f} s after the kill")
    finally:
        servers.close()
