"""Admission: how many requests, and bytes of their bodies, may be in the house at once.

A request is refused before its body is read into memory, with a time to come back; what is admitted is
held for as long as its writer holds it. Nothing waits here: a queue would only hide the overload.
"""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from ingestor.write_settings import WriteSettings
from records.errors import Overloaded
from runtime.clock import Clock
from runtime.metrics import Metrics


class Admission:
    """A budget of bytes and requests. A request larger than the budget is admitted when alone."""

    def __init__(self, settings: WriteSettings, clock: Clock, metrics: Metrics) -> None:
        self._settings = settings
        self._clock = clock
        self._bytes = 0
        self._since: dict[int, float] = {}
        self._next = 0
        self._refused = metrics.counter(
            "quorumlog_admission_refused_total", "Requests refused by budget", ("budget",)
        )
        metrics.gauge("quorumlog_admission_bytes", "Bytes of request bodies admitted").set_function(
            lambda: self._bytes
        )
        metrics.gauge("quorumlog_admission_requests", "Requests admitted").set_function(
            lambda: len(self._since)
        )
        metrics.gauge(
            "quorumlog_admission_age_seconds", "Age of the longest admitted request"
        ).set_function(self._oldest_seconds)

    @asynccontextmanager
    async def acquire(self, body_bytes: int) -> AsyncIterator[None]:
        """Holds `body_bytes` (decoded; an estimate will do) of the budget.

        Raises:
            Overloaded: the budget is used up; come back in a second.
        """
        self._check(body_bytes)
        self._next += 1
        ticket = self._next
        self._since[ticket] = self._clock.monotonic()
        self._bytes += body_bytes
        try:
            yield
        finally:
            self._bytes -= body_bytes
            del self._since[ticket]

    def _check(self, body_bytes: int) -> None:
        requests, budget = self._settings.admitted_requests, self._settings.admitted_bytes
        if len(self._since) >= requests:
            self._refused.labels("requests").inc()
            raise Overloaded(f"{requests} requests are being written", retry_after_seconds=1)
        if self._bytes and self._bytes + body_bytes > budget:
            self._refused.labels("bytes").inc()
            raise Overloaded(f"{self._bytes} of {budget} bytes in use", retry_after_seconds=1)

    def _oldest_seconds(self) -> float:
        first = next(iter(self._since.values()), None)
        return 0.0 if first is None else self._clock.monotonic() - first
