"""`launch.py queue …`: what operators do with queues from a shell."""

from collections.abc import Awaitable, Callable, Sequence, Set

from sdapi.errors import SDAPIError
from sdapi.queue.config.service_config import load_services
from sdapi.queue.protocol.wire import format_duration
from sdapi.queue.server import make_store
from sdapi.queue.stores.store import Query, QueueName, Store
from sdapi.settings import Settings

USAGE = """\
launch.py queue list                    every queue with its figures
launch.py queue show QUEUE              its consumers and first items
launch.py queue purge QUEUE             delete all its items
launch.py queue requeue-rear QUEUE      put its dead letters back
QUEUE is a service, or as `list` writes it: svc, svc/sink, svc#rear, svc/sink#rear.
--data-dir or --queue-url tell where the queues are, as for the server."""

_SHOWN = 20


class UsageError(ValueError):
    """A command that cannot be understood."""


async def run(settings: Settings, words: Sequence[str]) -> str:
    """Do what the words after `queue` say; returns the text to print. Raises `UsageError`."""
    name, *arguments = words or ("",)
    command = _COMMANDS.get(name)
    if command is None or len(arguments) != (0 if name == "list" else 1):
        raise UsageError(USAGE)
    queues = [QueueName.parse(text) for text in arguments]
    if [str(queue) for queue in queues] != arguments:
        raise UsageError(USAGE)
    services = {spec.name for spec in load_services(settings) if spec.is_async}
    store = make_store(settings, is_server=False)
    await store.open(lambda event: None)
    try:
        for queue in queues:
            _check(queue, services | {each.service for each in await store.queues()})
        return await command(store, *queues)
    finally:
        await store.close()


async def _list(store: Store) -> str:
    lines = [f"{'queue':40} {'items':>8} {'bytes':>12} {'held':>6}  oldest"]
    for queue in await store.queues():
        stats = await store.stats(queue)
        held = sum(group.pending for group in stats.groups)
        age = format_duration(int(stats.oldest_age_s * 1000)) if stats.length else "-"
        lines.append(f"{queue!s:40} {stats.length:8} {stats.bytes:12} {held:6}  {age}")
    return "\n".join(lines)


async def _show(store: Store, queue: QueueName) -> str:
    stats = await store.stats(queue)
    lines = [f"{queue}: {stats.length} items, {stats.bytes} bytes, {stats.first} to {stats.last}"]
    lines += [
        f"consumer {c.group}.{c.user}: holds {c.pending} of {c.window}, last {c.last_index}"
        for c in stats.consumers
        if c.gone_ms is None
    ]
    if len(lines) == 1:
        lines.append("no consumer is connected")
    for item in await store.get(queue, Query(length=_SHOWN)):
        tags = " ".join(f"{key}={value}" for key, value in sorted(item.tags.items()))
        lines.append(
            f"{item.index:8} priority {item.priority}, {len(item.data)} bytes, delivered "
            f"{item.deliveries} times, last status {item.last_code or '-'}, "
            f"{item.path or '/'} {tags}"
        )
    return "\n".join(lines)


async def _purge(store: Store, queue: QueueName) -> str:
    removed = await store.truncate(queue, (await store.stats(queue)).last + 1)
    return f"{removed} items deleted from {queue}"


async def _requeue(store: Store, queue: QueueName) -> str:
    target = QueueName(queue.service, queue.is_sink)
    done = await store.requeue(queue.rear, target)
    lines = [f"{done.moved} items moved from {queue.rear} to {target}"]
    lines += [
        f"requestId {request_id} stays: {target} has other data under it, or its sink a result"
        for request_id in done.left
    ]
    return "\n".join(lines)


def _check(queue: QueueName, services: Set[str]) -> None:
    """A service has all its queues, also before the first item of each."""
    if queue.service not in services:
        known = ", ".join(sorted(services)) or "none yet"
        raise SDAPIError(f"there is no service {queue.service}; there are {known}")


_COMMANDS: dict[str, Callable[..., Awaitable[str]]] = {
    "list": _list,
    "show": _show,
    "purge": _purge,
    "requeue-rear": _requeue,
}
