"""uvicorn's HTTP/1.1 with what it lacks: limits for unfinished requests, and how answers arrive.

Without limits a client that sends half a head, or half a body, holds its connection for ever.
"""

import asyncio
import logging
from enum import Enum
from http import HTTPStatus
from typing import Any

from sdapi.queue.sending import CONNECTION
from sdapi.serving.joined_writes import JoiningProtocol
from sdapi.serving.outgoing import Outgoing

log = logging.getLogger("sdapi")

#: from a connection's or a request's first byte to the end of the request's head
HEAD_S = 30.0
#: between two pieces of a body
BODY_S = 60.0
_LOOK_S = 5.0
#: of a request's line and headers; `_indexes_` may name 10,000 items
HEAD_BYTES = 256 << 10
MAX_HEADERS = 256


class HeadTooLarge(Exception):
    """Ends the parsing of a request."""


class _Phase(Enum):
    """What comes next on a connection."""

    IDLE = "a request"
    HEAD = "the rest of a head"
    BODY = "the rest of a body"


class HttpProtocol(JoiningProtocol):
    """Ends requests that do not come to their end: 408 for slow ones, 431 for endless heads."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._phase = _Phase.IDLE
        self._began_at = self._heard_at = self.loop.time()
        self._head_bytes = 0
        self._has_begun = False  # that there is a `cycle`
        self._before: Any = None  # the cycle before it
        self._drops_body = False
        self._watching: asyncio.TimerHandle | None = None
        self._outgoing: Outgoing | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:
        super().connection_made(transport)
        self._outgoing = Outgoing(self.transport)
        self._watching = self.loop.call_later(_LOOK_S, self._look)

    def connection_lost(self, exc: Exception | None) -> None:
        self._stop_watching()
        super().connection_lost(exc)

    def handle_websocket_upgrade(self) -> None:
        self._stop_watching()
        super().handle_websocket_upgrade()

    def _stop_watching(self) -> None:
        if self._watching is not None:
            self._watching.cancel()
            self._watching = None

    def data_received(self, data: bytes) -> None:
        was_in_head = self._phase is _Phase.HEAD
        self._heard_at = self.loop.time()
        super().data_received(data)
        if was_in_head and self._phase is _Phase.HEAD:
            self._head_bytes += len(data)
            if self._head_bytes > HEAD_BYTES and not self.transport.is_closing():
                self._refuse(431, _too_large())

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self._phase = _Phase.HEAD
        self._began_at, self._head_bytes = self._heard_at, 0
        self.scope["extensions"] = {CONNECTION: {CONNECTION: self._outgoing}}

    def on_headers_complete(self) -> None:
        if len(self.headers) > MAX_HEADERS:
            raise HeadTooLarge
        before = self.cycle
        super().on_headers_complete()
        self._phase, self._has_begun, self._before = _Phase.BODY, True, before

    def on_body(self, body: bytes) -> None:
        if not self._drops_body:
            super().on_body(body)

    def on_message_complete(self) -> None:
        self._phase = _Phase.IDLE
        super().on_message_complete()

    def send_400_response(self, msg: str) -> None:
        """As uvicorn, but for heads that are refused for their size."""
        if self._phase is _Phase.HEAD and len(self.headers) > MAX_HEADERS:
            self._refuse(431, _too_large())
        else:
            super().send_400_response(msg)

    def shutdown(self) -> None:
        """As uvicorn, which would wait for the rest of a body, and then answer 500."""
        if self._phase is not _Phase.BODY:
            super().shutdown()
        elif self.pipeline:  # its turn has not come: the one before it is the connection's last
            self.pipeline.popleft()
            self.cycle, self._drops_body = self._before, True
            super().shutdown()
        else:
            self._refuse(503, "the server is shutting down")

    def _look(self) -> None:
        """Whether what is to come has been waited for too long."""
        if self.transport.is_closing():
            return
        self._watching = self.loop.call_later(_LOOK_S, self._look)
        now = self.loop.time()
        if self.flow.read_paused or (self._has_begun and self.cycle.waiting_for_100_continue):
            self._heard_at = now  # it is not the client who lets others wait
        elif self._waits_its_turn():
            self._began_at = self._heard_at = now
        elif self._phase is _Phase.HEAD and now - self._began_at > HEAD_S:
            self._refuse(408, f"the head did not come within {HEAD_S:g} s")
        elif self._phase is _Phase.BODY and now - self._heard_at > BODY_S:
            self._refuse(408, f"the rest of the body did not come within {BODY_S:g} s")
        elif self._lingers(now):
            self.transport.close()

    def _waits_its_turn(self) -> bool:
        """Whether what is to come belongs to a request behind one that is still being answered."""
        if self._phase is _Phase.HEAD:
            return self._has_begun and not self.cycle.response_complete
        return self._phase is _Phase.BODY and bool(self.pipeline)

    def _lingers(self, now: float) -> bool:
        """Whether a connection has no request, and no keep-alive time that would end it.

        Bytes that begin no request, as a line's end, end that time.
        """
        if not self._has_begun:
            return now - self._began_at > HEAD_S
        is_idle = self._phase is _Phase.IDLE and self.cycle.response_complete
        return is_idle and self.timeout_keep_alive_task is None and now - self._heard_at > HEAD_S

    def _refuse(self, status: int, text: str) -> None:
        """Answer the request that is not whole, where nothing else is being answered, and close."""
        cycle, may_answer = self.cycle, True
        if self._phase is _Phase.BODY:
            may_answer = not cycle.response_started  # else it has its answer, or the head of it
        elif self._has_begun:
            may_answer = cycle.response_complete
        if self._has_begun and not cycle.response_complete:
            cycle.disconnected = True
            cycle.message_event.set()
        log.info("a request of %s was not whole: %s", self.client, text)
        if may_answer:
            reason = HTTPStatus(status).phrase
            head = f"HTTP/1.1 {status} {reason}\r\ncontent-type: text/plain; charset=utf-8\r\n"
            head += f"content-length: {len(text)}\r\nconnection: close\r\n\r\n"
            self.transport.write((head + text).encode())
        self.transport.close()


def _too_large() -> str:
    return f"the head has more than {HEAD_BYTES >> 10} KB or {MAX_HEADERS} headers"
