"""Another try, a little later: for what passes, with an end."""

import random
import time
from collections.abc import Callable
from typing import TypeVar

from sdapi.services.storage.stores.store import StoreError

_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 0.2, 5.0
_Made = TypeVar("_Made")


def with_retries(
    work: Callable[[], _Made],
    *,
    tries: int,
    until: float,
    wait: Callable[[float], bool] | None = None,
) -> _Made:
    """What `work` returns, tried again while its `StoreError` is a passing one. Blocks.

    No try begins after the monotonic time `until`. Pauses double and are drawn at random, so that
    many who failed at once do not come back at once. `wait` sleeps, and returns True to give up.
    """
    pause_s = _FIRST_PAUSE_S
    for count in range(1, tries + 1):
        try:
            return work()
        except StoreError as error:
            delay_s = pause_s * random.uniform(0.5, 1.0)
            is_last = count == tries or time.monotonic() + delay_s > until
            if is_last or not error.is_passing or (wait or _sleep)(delay_s):
                raise
            pause_s = min(2 * pause_s, _LONGEST_PAUSE_S)
    raise AssertionError("no try was made")


def _sleep(seconds: float) -> bool:
    time.sleep(seconds)
    return False
