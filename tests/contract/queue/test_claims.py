"""Items that a deleting `GET` has claimed, when the store fails in the middle of it."""

from collections.abc import Callable
from typing import Any

import pytest
from starlette.testclient import TestClient

from sdapi.errors import SDAPIError, StorageFailed
from sdapi.queue.stores.store import QueueStoreUnavailable
from tests.contract.queue.calls import SINK, put
from tests.servers import wait_ready

Fail = Callable[..., list[str]]


@pytest.fixture
def fail(queue: TestClient, monkeypatch: pytest.MonkeyPatch) -> Fail:
    """Let the store's next call of this name raise, once it is done or before; lists the calls."""

    def fail(name: str, error: Exception, *, is_done: bool) -> list[str]:
        app: Any = queue.app
        store = app.state.queues.service.store
        real, calls = getattr(store, name), list[str]()

        async def failing(*given: Any, **named: Any) -> Any:
            calls.append(name)
            if len(calls) > 1:
                return await real(*given, **named)
            if is_done:
                await real(*given, **named)
            raise error

        monkeypatch.setattr(store, name, failing)
        return calls

    return fail


@pytest.mark.parametrize("is_done", [True, False])
@pytest.mark.parametrize("error", [QueueStoreUnavailable("away"), StorageFailed("disk full")])
def test_a_get_whose_answer_is_lost_hides_no_item(
    queue: TestClient, fail: Fail, error: SDAPIError, is_done: bool
):
    put(queue)
    calls = fail("get", error, is_done=is_done)
    assert queue.get(SINK).status_code == error.status
    assert (queue.get(SINK).content, len(calls)) == (b"abc", 2)
    assert queue.get(SINK).status_code == 204


def test_a_claim_is_given_up_again_after_what_may_overtake_it(queue: TestClient, fail: Fail):
    put(queue)
    fail("get", QueueStoreUnavailable("away"), is_done=True)
    settled = fail("settle", QueueStoreUnavailable("away"), is_done=True)
    assert queue.get(SINK).status_code == 503
    wait_ready(lambda: len(settled) == 3, 10)  # this one, its repetition, and once more


@pytest.mark.parametrize(
    "error", [QueueStoreUnavailable("away"), StorageFailed("disk full"), OSError("odd")]
)
def test_a_deletion_that_fails_is_repeated_until_it_is_done(
    queue: TestClient, fail: Fail, error: Exception
):
    put(queue)
    fail("settle", error, is_done=False)
    assert queue.get(SINK).content == b"abc"
    wait_ready(lambda: queue.get(f"{SINK}?_count_=true").text == "0", 10)
