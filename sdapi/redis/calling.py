"""A store's Lua script on a Redis, and the connections it is called on."""

import asyncio
from typing import Any, Final

from redis.asyncio import BlockingConnectionPool, Redis
from redis.exceptions import RedisError
from redis.maint_notifications import MaintNotificationsConfig

from sdapi.ending import end_tasks
from sdapi.errors import SDAPIError, StorageFailed
from sdapi.lost_connections import closed_as_lost

_CONNECTIONS: Final = 32
#: for a free connection, for making one, and for an answer
_TIMEOUT_S: Final = 10.0
#: in a script's error up to 6.2, too
_NO_MEMORY: Final = "command not allowed when used memory"


class RedisScript:
    """Calls one script. Nothing is sent again by itself: the first time may have been done."""

    def __init__(self, url: str, text: str, whose: str, unavailable: type[SDAPIError]) -> None:
        """`whose` names the Redis in errors; `unavailable` is raised when it does not answer."""
        self._url = url
        self._text = text
        self._whose = whose
        self._unavailable = unavailable
        self._redis: Redis | None = None
        self._run: Any = None
        #: under way, also those whose callers have gone
        self._calls: set[asyncio.Task[Any]] = set()

    def open(self) -> Redis:
        """The Redis, for other commands; nothing is sent yet."""
        pool = BlockingConnectionPool.from_url(
            self._url,
            max_connections=_CONNECTIONS,
            timeout=_TIMEOUT_S,
            socket_timeout=_TIMEOUT_S,
            socket_connect_timeout=_TIMEOUT_S,
            # with them redis-py does not see that an idle connection has been closed
            maint_notifications_config=MaintNotificationsConfig(enabled=False),
        )
        self._redis = Redis(connection_pool=pool)
        self._run = self._redis.register_script(self._text)
        return self._redis

    async def close(self) -> None:
        """End what is under way: its callers, and later ones, are told that this is closed."""
        redis, self._redis = self._redis, None
        await end_tasks(self._calls)
        if redis is not None:
            await redis.aclose()
            await redis.connection_pool.disconnect()

    async def call(self, operation: str, *arguments: bytes) -> Any:
        """What the script answers; raises StorageFailed, and what was chosen for unavailability.

        In a task of its own: who is cancelled is so at once, while the call goes on. A connection
        is not given up in the middle of an answer, and redis-py, which sends by `wait_for`, cannot
        drop the cancellation (`end_tasks`).
        """
        if self._redis is None:
            raise self._closed()
        call = asyncio.create_task(self._send(operation, arguments))
        self._calls.add(call)
        call.add_done_callback(self._ended)
        await asyncio.wait([call])
        if call.cancelled():
            raise self._closed()
        return call.result()

    async def _send(self, operation: str, arguments: tuple[bytes, ...]) -> Any:
        try:
            with closed_as_lost():
                return await self._run(args=[operation, *arguments])
        except (RedisError, OSError) as error:
            if _NO_MEMORY in str(error):
                raise StorageFailed(f"{self._whose} has no memory left") from error
            raise self._unavailable(f"{self._whose} does not answer: {error}") from error

    def _ended(self, call: "asyncio.Task[Any]") -> None:
        self._calls.discard(call)
        if not call.cancelled():
            call.exception()  # its caller may have gone, and it would be logged

    def _closed(self) -> SDAPIError:
        return self._unavailable(f"{self._whose} is not open here")
