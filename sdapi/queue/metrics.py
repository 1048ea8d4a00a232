"""The queues' figures for a monitoring system, read from the store when they are asked for."""

from prometheus_client import CollectorRegistry, Gauge, generate_latest

from sdapi.errors import SDAPIError
from sdapi.queue.server import QueueServer


async def queue_metrics(queues: QueueServer) -> bytes:
    """Backlog, age and deliveries of every service's queues, as exposition text.

    The backlog of an input queue is what scaling goes by: items that are not finished. All servers
    of a shared queue tell the same figures; take the largest, not the sum.
    """
    registry = CollectorRegistry()
    labels = ("service", "queue")
    items = Gauge(
        "sdapi_queue_backlog", "Items in the queue, held ones included", labels, registry=registry
    )
    size = Gauge("sdapi_queue_bytes", "Bytes stored in the queue", labels, registry=registry)
    age = Gauge(
        "sdapi_queue_oldest_age_seconds", "Age of the oldest item", labels, registry=registry
    )
    held = Gauge("sdapi_queue_pending", "Items that a consumer holds", labels, registry=registry)
    up = Gauge("sdapi_queue_store_up", "Whether the queue's store answers", registry=registry)
    try:
        for spec in queues.service.specs.values():
            if not spec.is_async:
                continue
            source = spec.source_queue
            for name, queue in (
                *(("input", source), ("sink", source.sink)),
                *(("input_rear", source.rear), ("sink_rear", source.sink.rear)),
            ):
                stats = await queues.service.store.stats(queue)
                items.labels(spec.name, name).set(stats.length)
                size.labels(spec.name, name).set(stats.bytes)
                age.labels(spec.name, name).set(stats.oldest_age_s)
                held.labels(spec.name, name).set(sum(group.pending for group in stats.groups))
        up.set(1)
    except SDAPIError:  # the gauge says so
        up.set(0)
    return generate_latest(registry)
