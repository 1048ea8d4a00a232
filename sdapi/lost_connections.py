"""A connection that is lost, in the words of either event loop."""

from collections.abc import Generator
from contextlib import contextmanager
from typing import Final

_OF_UVLOOP: Final = "the handler is closed"


@contextmanager
def closed_as_lost() -> Generator[None]:
    """Raise `ConnectionError` where uvloop has closed what a client was about to write to.

    It raises a `RuntimeError` there, which no client library takes for a lost connection.
    """
    try:
        yield
    except RuntimeError as error:
        if _OF_UVLOOP not in str(error):
            raise
        raise ConnectionError(str(error)) from error
