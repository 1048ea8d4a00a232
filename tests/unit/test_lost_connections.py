import asyncio

import pytest
import uvloop

from sdapi.lost_connections import closed_as_lost


async def write_to_a_closed_transport() -> None:
    async with await asyncio.start_server(
        lambda _, writer: writer.close(), "127.0.0.1", 0
    ) as server:
        port = server.sockets[0].getsockname()[1]
        _, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.transport.abort()
        await asyncio.sleep(0.05)
        with pytest.raises(ConnectionError, match="handler is closed"), closed_as_lost():
            writer.writelines([b"PING"])


def test_a_transport_that_uvloop_has_closed_is_a_lost_connection():
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(write_to_a_closed_transport())


def test_other_errors_are_left_as_they_are():
    with pytest.raises(RuntimeError, match="another"), closed_as_lost():
        raise RuntimeError("another")
