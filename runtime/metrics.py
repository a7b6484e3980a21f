"""Metrics: one Prometheus registry per node; the one home of prometheus-client.

Asking twice for the same name gives the same metric, so modules need not pass them around.
"""

from collections.abc import Sequence
from typing import Any

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    ProcessCollector,
    generate_latest,
)
from prometheus_client.exposition import CONTENT_TYPE_LATEST

#: Upper bounds in seconds: a cached query is 1 ms, an fsync 0.1-10 ms, a held write up to 10 s.
LATENCY_BUCKETS = (
    0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0,
)  # fmt: skip
CONTENT_TYPE = CONTENT_TYPE_LATEST


class Metrics:
    """The metrics of one node."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry(auto_describe=True)
        self._known: dict[str, Any] = {}
        ProcessCollector(registry=self.registry)  # process_*: memory, CPU, open files

    def counter(self, name: str, text: str, labels: Sequence[str] = ()) -> Counter:
        """A count that only grows; `name` ends in `_total`."""
        return self._get(Counter, name, text, labels)

    def gauge(self, name: str, text: str, labels: Sequence[str] = ()) -> Gauge:
        """A value that goes up and down."""
        return self._get(Gauge, name, text, labels)

    def histogram(
        self,
        name: str,
        text: str,
        labels: Sequence[str] = (),
        buckets: Sequence[float] | None = None,
    ) -> Histogram:
        """A distribution; `name` ends in its unit."""
        return self._get(Histogram, name, text, labels, buckets=buckets or LATENCY_BUCKETS)

    def _get(self, kind: Any, name: str, text: str, labels: Sequence[str], **extra: Any) -> Any:
        if name not in self._known:
            self._known[name] = kind(name, text, tuple(labels), registry=self.registry, **extra)
        return self._known[name]

    def names(self) -> list[str]:
        """The names declared so far; the docs must list each."""
        return sorted(self._known)

    def exposition(self) -> bytes:
        """Prometheus's text format."""
        return generate_latest(self.registry)

    def snapshot(self) -> dict[str, float]:
        """Every sample as `name{label="value"}` -> number, for JSON."""
        result: dict[str, float] = {}
        for family in self.registry.collect():
            for sample in family.samples:
                labels = ",".join(f'{k}="{v}"' for k, v in sorted(sample.labels.items()))
                result[f"{sample.name}{{{labels}}}" if labels else sample.name] = sample.value
        return result
