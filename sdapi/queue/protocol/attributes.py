"""A queue's attributes as clients read them: one flat map of texts (contract 9)."""

from sdapi.queue.config.spec import ServiceSpec
from sdapi.queue.protocol.wire import format_duration
from sdapi.queue.stores.store import Consumer, Group, QueueName, QueueStats

USER_HEADER = "X-EAS-QueueService-Uid"
GROUP_HEADER = "X-EAS-QueueService-Gid"
PRIORITY_HEADER = "X-EAS-QueueService-Priority"
#: how long a consumer that has gone is called leaving
_LEAVING_MS = 30_000


def attributes(
    spec: ServiceSpec, queue: QueueName, stats: QueueStats, stored_bytes: int
) -> dict[str, str]:
    """All of them, sorted by key; `stored_bytes` are those of input and sink together."""
    total = str(len(stats.consumers))
    found = {
        **{f"consumers.list.[{i}]": _consumer(c) for i, c in enumerate(stats.consumers)},
        "consumers.stats.total": total,
        "consumers.status.total": total,
        **{f"groups.list.[{i}]": _group(g) for i, g in enumerate(stats.groups)},
        "meta.header.group": GROUP_HEADER,
        "meta.header.priority": PRIORITY_HEADER,
        "meta.header.user": USER_HEADER,
        "meta.name": f"{spec.dashed}-queue-{spec.mark}",
        "meta.state": "Normal",
        "stream.approxMaxLength": str(_approximate_length(spec, queue, stored_bytes)),
        "stream.firstEntry": str(stats.first),
        "stream.lastEntry": str(stats.last),
        "stream.length": str(stats.length),
        "stream.maxPayloadBytes": str(spec.limits(queue).max_payload_bytes),
    }
    return dict(sorted(found.items()))


def _approximate_length(spec: ServiceSpec, queue: QueueName, stored_bytes: int) -> int:
    """How many more items of the full size would fit."""
    payload = spec.limits(queue).max_payload_bytes
    return max(spec.room(queue).bytes // payload - 1 - stored_bytes // payload, 0)


def _consumer(consumer: Consumer) -> str:
    window = 0 if consumer.auto_commit else consumer.window
    slots = max(window - consumer.pending, 0)
    text = (
        f"Id: {consumer.group}.{consumer.user}, Index: {consumer.last_index}, "
        f"Pending: {consumer.pending}, Status: {_status(consumer)}, "
        f"Idle: {format_duration(max(consumer.idle_ms, 0))}, Window: {window}, Slots: {slots}, "
        f"AutoCommit: {str(consumer.auto_commit).lower()}"
    )
    if not consumer.tags:
        return text
    pairs = " ".join(f"{key}={value}" for key, value in sorted(consumer.tags.items()))
    return f"{text}, Tags: tags[{pairs}]"


def _status(consumer: Consumer) -> str:
    if consumer.gone_ms is None:
        return "Running"
    if consumer.gone_ms < _LEAVING_MS:
        return "Leaving"
    return "Exit" if consumer.left_pending else "Complete"


def _group(group: Group) -> str:
    """`Delivered` is the next index in every sample of the original."""
    return (
        f"Id: {group.name}, Index: {group.last_index}, Pending: {group.pending}, "
        f"Delivered: {group.last_index + 1}, Consumers: {group.consumers}"
    )
