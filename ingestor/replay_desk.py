"""The leader's replay requests beside its answers: the book, told the time, and counted for operators.

Called for each sequenced answer: nothing is missing and nothing is asked of nearly all producers, which
costs two look-ups.
"""

from collections import deque
from collections.abc import Callable

from ingestor.replay_book import (
    Kind,
    ReplayBook,
    ReplayLimits,
    ReplayRequest,
    Rows,
    State,
)
from ingestor.write_settings import WriteSettings
from records.block import Spans
from records.messages import ProducerEpochKey
from runtime.clock import Clock
from runtime.metrics import Metrics

_KINDS = ("asked", "replayed", "duplicate", "skipped", "gone")
#: Seconds; a gap that a retry fills is closed within one, a producer may be away for an hour.
_BUCKETS = (0.1, 0.5, 1.0, 5.0, 10.0, 30.0, 60.0, 300.0, 1_800.0, 3_600.0, 14_400.0)


class ReplayDesk:
    """The book of this node and its metrics."""

    def __init__(self, clock: Clock, metrics: Metrics, settings: WriteSettings) -> None:
        self._clock = clock
        limits = ReplayLimits(
            settings.replay_open_max,
            settings.replay_finished_max,
            int(settings.replay_age_seconds * 1_000_000),
        )
        self.book = ReplayBook(limits, self._ended)
        self._counted = Rows()
        self._refused_counted = 0
        self._rows = metrics.counter(
            "quorumlog_replay_rows_total", "Rows asked for again, by what became of them", ("what",)
        )
        self._finished = metrics.counter(
            "quorumlog_replay_finished_total", "Replay requests that ended, by how", ("state",)
        )
        self._seconds = metrics.histogram(
            "quorumlog_replay_seconds",
            "From opening a replay request to its completion",
            buckets=_BUCKETS,
        )
        self._refused = metrics.counter(
            "quorumlog_replay_refused_total", "Gaps without a replay request: too many are open"
        )
        requests = metrics.gauge(
            "quorumlog_replay_requests", "Open replay requests of shards led here", ("state",)
        )
        for state in self.book.counts():
            requests.labels(state).set_function(lambda name=state: self.book.counts()[name])
        self._ended_ids: deque[str] = deque(maxlen=settings.replay_finished_max)
        self._show()

    def answered(
        self, key: ProducerEpochKey, missing: Spans, came: Spans, skips: Spans
    ) -> tuple[tuple[str, Spans], ...]:
        """Notes an answer to a producer; what operators ask of it, to be told with that answer."""
        if not missing and not self.book.knows(key):
            return ()
        return self.note(key, missing, came, skips, heard=True)

    def note(
        self,
        key: ProducerEpochKey,
        missing: Spans,
        came: Spans = (),
        skips: Spans = (),
        heard: bool = False,
    ) -> tuple[tuple[str, Spans], ...]:
        """Notes where a producer epoch stands; what operators ask of it."""
        self.book.observe(key, missing, self._clock.wall_micros(), came, skips, heard)
        self._show()
        return self.book.due(key)

    def ask(
        self, name: str, key: ProducerEpochKey, spans: Spans, missing: Spans, reason: str
    ) -> ReplayRequest:
        """Opens an operator's request; see ReplayBook.ask for what it raises."""
        try:
            return self.book.ask(name, key, spans, missing, self._clock.wall_micros(), reason)
        finally:
            self._show()

    def gone(self, name: str, spans: Spans) -> ReplayRequest | None:
        """A producer says that it no longer has `spans`."""
        found = self.book.gone(name, spans, self._clock.wall_micros())
        self._show()
        return found

    def cancel(self, name: str) -> ReplayRequest | None:
        """Ends an operator's request."""
        found = self.book.cancel(name, self._clock.wall_micros())
        self._show()
        return found

    def tidy(self, leads: Callable[[ProducerEpochKey], bool]) -> list[ReplayRequest]:
        """Lets what is too old expire, forgets what is led elsewhere; operators' requests of that."""
        moved = self.book.keep(leads)
        self.book.expire(self._clock.wall_micros())
        self._show()
        return moved

    def figures(self, tenant: str) -> dict[str, object]:
        """Of one tenant: open requests by state, sums of rows by service."""
        sums = {
            service: rows.to_dict()
            for (whose, service), rows in sorted(self.book.services.items())
            if whose == tenant
        }
        return {"requests": self.book.counts(tenant), "services": sums}

    def take_ended(self) -> list[str]:
        """The ids of operators' requests that ended since the last call."""
        ended = list(self._ended_ids)
        self._ended_ids.clear()
        return ended

    def _ended(self, one: ReplayRequest) -> None:
        if one.kind is Kind.ASKED:
            self._ended_ids.append(one.id)
        self._finished.labels(str(one.state)).inc()
        if one.state is State.COMPLETED:
            self._seconds.observe(max(0, one.changed - one.created) / 1_000_000)

    def _show(self) -> None:
        """Brings the metrics to where the book stands."""
        for name in _KINDS:
            total = getattr(self.book.totals, name)
            self._rows.labels(name).inc(total - getattr(self._counted, name))
            setattr(self._counted, name, total)
        self._refused.inc(self.book.refused - self._refused_counted)
        self._refused_counted = self.book.refused
