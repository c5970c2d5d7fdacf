"""Metrics of `hf_tagger serve` for Prometheus."""

from collections.abc import Callable

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector

SECONDS = (0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10)


class ServerMetrics:
    """Requests by status and duration, runs of the model by size and duration, products under way, the process."""

    def __init__(self, products: Callable[[], int], bytes_: Callable[[], int]):
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)
        self._requests = Counter("hf_tagger_requests", "Requests answered", ["status"], registry=self.registry)
        self._seconds = Histogram("hf_tagger_request_seconds", "Time from a request's headers to its answer",
                                  registry=self.registry, buckets=SECONDS)
        self._sizes = Histogram("hf_tagger_batch_products", "Products in a run of the model", registry=self.registry,
                                buckets=(1, 2, 4, 8, 16, 32, 64, 128))
        self._runs = Histogram("hf_tagger_batch_seconds", "Time of a run of the model", registry=self.registry,
                               buckets=SECONDS)
        for name, what, count in (("products", "Products under way", products), ("bytes", "Of requests", bytes_)):
            Gauge(f"hf_tagger_waiting_{name}", what, registry=self.registry).set_function(count)

    def request(self, status: int, seconds: float) -> None:
        self._requests.labels(status).inc()
        self._seconds.observe(seconds)

    def batch(self, size: int, seconds: float) -> None:
        self._sizes.observe(size)
        self._runs.observe(seconds)
