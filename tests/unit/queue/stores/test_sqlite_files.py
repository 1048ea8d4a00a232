"""What SQLite's file keeps when its process ends, and who may open it."""

from pathlib import Path

import pytest

from sdapi.queue.stores.sqlite.store import DatabaseInUse, SqliteStore
from sdapi.queue.stores.store import (
    Change,
    Event,
)
from tests.queues.store_calls import (
    COUNTING,
    SOURCE,
    handed,
    item,
    member,
    put_all,
    take,
    texts,
)

pytestmark = pytest.mark.anyio


async def test_items_tags_indexes_and_deliveries_survive_the_process(tmp_path: Path):
    path = tmp_path / "again.db"
    store = SqliteStore(path)
    await store.open(lambda event: None)
    await put_all(store, "a", "b")
    await store.join(SOURCE, member("w", group="svc"))
    await take(store, "svc", rules=COUNTING)
    await store.delete(SOURCE, [2])
    await store.close()
    store = SqliteStore(path)
    await store.open(lambda event: None)
    try:
        await store.join(SOURCE, member("w", group="svc"))
        [delivery] = (await take(store, "svc", rules=COUNTING)).deliveries
        assert (delivery.item.index, delivery.item.deliveries) == (1, 2)
        assert await put_all(store, "c") == [3]
    finally:
        await store.close()


async def test_what_was_held_for_one_watcher_alone_goes_when_the_process_has_died(tmp_path: Path):
    first = SqliteStore(tmp_path / "sdapi.db")
    await first.open(lambda event: None)
    await first.join(SOURCE, member("watcher", group="eas"))
    await first.join(SOURCE, member("w", group="svc"))
    await put_all(first, "a", "b")
    await first.commit(SOURCE, "svc", [1])
    assert await texts(first) == ["a", "b"]
    await first.close()  # nobody has left
    second = SqliteStore(tmp_path / "sdapi.db")
    await second.open(lambda event: None)
    assert await texts(second) == ["b"]
    assert (await second.stats(SOURCE)).length == 1
    await second.close()


async def test_places_of_items_that_an_operator_deleted_are_free_again(tmp_path: Path):
    server, events = SqliteStore(tmp_path / "sdapi.db"), list[Event]()
    operator = SqliteStore(tmp_path / "sdapi.db", is_server=False)
    await server.open(events.append)
    await operator.open(lambda event: None)
    await server.join(SOURCE, member("w", group="svc"))
    await put_all(server, "a")
    [delivery] = (await take(server, "svc")).deliveries
    assert await operator.truncate(SOURCE, 2) == 1
    await put_all(server, "b")
    assert handed(await take(server, "svc")) == [("w", "b")]
    assert not await server.finish(SOURCE, "svc", 1, delivery.fence, item("late", "r-a"))
    assert await operator.truncate(SOURCE, 3) == 1
    events.clear()
    await server.commit(SOURCE, "svc", [2])
    assert [event.change for event in events] == [Change.FREED]
    assert (await server.stats(SOURCE)).groups[0].pending == 0
    for store in (server, operator):
        await store.close()


async def test_a_second_server_on_the_same_file_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("sdapi.queue.stores.sqlite.store._LOCK_S", 0.1)
    first, second = SqliteStore(tmp_path / "x.db"), SqliteStore(tmp_path / "x.db")
    await first.open(lambda event: None)
    with pytest.raises(DatabaseInUse, match="--queue-url"):
        await second.open(lambda event: None)
    command = SqliteStore(tmp_path / "x.db", is_server=False)
    await command.open(lambda event: None)
    await put_all(command, "a")
    assert await texts(first) == ["a"]
    await command.close()
    await first.close()
