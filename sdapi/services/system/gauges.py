"""Figures that are read when Prometheus asks: the queue, the workers, memory."""

from typing import TYPE_CHECKING

from sdapi.metrics import Gauge
from sdapi.services.system.memory import memory_report

if TYPE_CHECKING:
    from sdapi.services.container import Services


def server_gauges(services: "Services") -> list[Gauge]:
    """What a server's services know of themselves."""

    def cache(name: str) -> dict[str, float]:
        return {w.name: w.cache_figures.get(name, 0.0) for w in services.workers}

    return [
        Gauge("sdapi_queue_depth", "Jobs that wait", lambda: {"": services.scheduler.depth}),
        Gauge("sdapi_open_tasks", "Tasks not over", lambda: {"": services.tasks.open_count}),
        Gauge(
            "sdapi_worker_ready",
            "Whether a device takes jobs",
            lambda: {w.name: float(w.is_ready) for w in services.workers},
            "device",
        ),
        Gauge("sdapi_model_cache_hits", "Models in memory", lambda: cache("hits"), "device"),
        Gauge("sdapi_model_cache_misses", "Models loaded", lambda: cache("misses"), "device"),
        Gauge("sdapi_model_cache_bytes", "Size of models", lambda: cache("bytes"), "device"),
        Gauge("sdapi_memory_bytes", "Memory in use", _memory, "kind"),
    ]


def _memory() -> dict[str, float]:
    report = memory_report()
    found = {"ram": float(report["ram"]["used"])}
    if "system" in report["cuda"]:
        found["cuda"] = float(report["cuda"]["system"]["used"])
    return found
