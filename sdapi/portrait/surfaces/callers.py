"""Callers of either surface: what is done for one that has gone is ended."""

import asyncio
from collections.abc import Coroutine
from typing import Any

from starlette.requests import Request
from starlette.responses import Response

#: nobody reads it; logs show it
_CLIENT_CLOSED_REQUEST = 499


async def unless_gone(request: Request, work: Coroutine[Any, Any, Response]) -> Response:
    """What the work answers; it is cancelled when the caller closes the connection first.

    The request's body has been read by now.
    """
    working = asyncio.ensure_future(work)
    gone = asyncio.ensure_future(_disconnected(request))
    try:
        await asyncio.wait({working, gone}, return_when=asyncio.FIRST_COMPLETED)
        if working.done():
            return working.result()
        return Response(status_code=_CLIENT_CLOSED_REQUEST)
    finally:
        working.cancel()
        gone.cancel()
        await asyncio.wait({working, gone})


async def _disconnected(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass
