"""Figures for Prometheus: one set for each application, so that tests do not share them."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.exposition import CONTENT_TYPE_LATEST

__all__ = ["CONTENT_TYPE", "Gauge", "Metrics"]

CONTENT_TYPE = CONTENT_TYPE_LATEST
#: seconds; from a list route to a long job
_BUCKETS = (0.005, 0.02, 0.1, 0.5, 1, 2, 5, 10, 20, 60, 120, 300, 600)


@dataclass(frozen=True, slots=True)
class Gauge:
    """A figure that is read when somebody asks, by the value of one label or without."""

    name: str
    help: str
    read: Callable[[], dict[str, float]]
    label: str = ""


class Metrics:
    """What this server counts. Safe to use from any thread."""

    def __init__(self) -> None:
        self._registry = CollectorRegistry()
        self._count_requests()
        self._count_jobs()
        self._count_uploads()

    def _count_requests(self) -> None:
        self._requests = self._counter(
            "sdapi_requests", "Requests by route and status", "method", "route", "status"
        )
        self._request_seconds = self._seconds(
            "sdapi_request_seconds", "From a request's first byte to its answer's last", "route"
        )
        #: finding a figure by its labels costs more than adding to it
        self._of_requests: dict[tuple[str, str, int], tuple[Counter, Histogram]] = {}

    def count_request(self, method: str, route: str, status: int, seconds: float) -> None:
        """One request that has ended; routes are templates, of which there are few."""
        key = (method, route, status)
        found = self._of_requests.get(key)
        if found is None:
            requests = self._requests.labels(method, route, str(status))
            found = self._of_requests[key] = requests, self._request_seconds.labels(route)
        found[0].inc()
        found[1].observe(seconds)

    def _count_jobs(self) -> None:
        self.jobs = self._counter("sdapi_jobs", "Jobs by how they ended", "state")
        self.failures = self._counter("sdapi_failures", "Failed jobs by the kind of error", "kind")
        self.queue_wait_seconds = self._seconds(
            "sdapi_queue_wait_seconds", "From a job's acceptance to its start"
        )
        self.phase_seconds = self._seconds(
            "sdapi_phase_seconds", "Phases of a job: load, sample, decode, deliver", "phase"
        )

    def _count_uploads(self) -> None:
        self.uploads = self._counter(
            "sdapi_uploads",
            "Uploads by how they ended: stored, pending (tried again later), refused",
            "outcome",
        )
        self.upload_errors = self._counter(
            "sdapi_upload_errors", "Failed tries of uploads by their reason", "reason"
        )
        self.upload_seconds = self._seconds(
            "sdapi_upload_seconds", "How long a file's upload took, with its tries"
        )

    def _counter(self, name: str, meaning: str, *labels: str) -> Counter:
        return Counter(name, meaning, labels, registry=self._registry)

    def _seconds(self, name: str, meaning: str, *labels: str) -> Histogram:
        return Histogram(name, meaning, labels, buckets=_BUCKETS, registry=self._registry)

    def add_gauges(self, gauges: Iterable[Gauge]) -> None:
        """Figures that others know."""
        self._registry.register(_Reader(tuple(gauges)))

    def text(self) -> bytes:
        """All figures in Prometheus' text format."""
        return generate_latest(self._registry)


class _Reader:
    """Asks each gauge when Prometheus asks us."""

    def __init__(self, gauges: tuple[Gauge, ...]) -> None:
        self._gauges = gauges

    def describe(self) -> Iterable[Metric]:
        return ()

    def collect(self) -> Iterable[Metric]:
        for gauge in self._gauges:
            family = GaugeMetricFamily(
                gauge.name, gauge.help, labels=[gauge.label] if gauge.label else None
            )
            for value, figure in gauge.read().items():
                family.add_metric([value] if gauge.label else [], figure)
            yield family
