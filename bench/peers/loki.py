"""Grafana Loki over HTTP, at an address that the user names; `loki.yaml` here has the limits it needs.

    loki -config.file=bench/peers/loki.yaml

Service and level are labels (48 streams), the message is the line, all else structured metadata, as its
documentation advises. Rows of a run carry the label `run`, so that older ones do not count. An
acknowledged row is in its write-ahead log, which is synced later.
"""

import http.client
import json
import os
from typing import Any

import polars as pl

from bench.corpus import COLUMNS, Body
from bench.measure import folder_bytes_of
from bench.peers.base import HttpPeer, request
from bench.questions import PAGE_ROWS, TOP_ROWS, Facts, Plain, Question, micros

LABELS = ("service", "level")
MINUTE_SECONDS = 60


def push(body: Body, run: str, kind: str) -> bytes:
    """A batch as the JSON of /loki/api/v1/push: one stream for each service and level."""
    more = [name for name in COLUMNS[kind] if name not in (*LABELS, "timestamp", "message")]
    frame = pl.DataFrame(body.table)
    nanos = pl.col("timestamp").str.to_datetime(time_unit="ns", time_zone="UTC").dt.epoch("ns")
    frame = frame.with_columns(
        nanos.cast(pl.String), *(pl.col(name).cast(pl.String) for name in more)
    )
    streams = []
    for key, part in frame.partition_by(*LABELS, as_dict=True, maintain_order=True).items():
        labels = {**dict(zip(LABELS, key, strict=True)), "run": run}
        pairs = part.select("timestamp", "message").rows()
        values: list[Any] = [list(pair) for pair in pairs]
        if more:
            named = part.select(more).rows(named=True)
            values = [[*pair, meta] for pair, meta in zip(pairs, named, strict=True)]
        streams.append({"stream": labels, "values": values})
    return json.dumps({"streams": streams}, separators=(",", ":")).encode()


def queries(facts: Facts, run: str) -> dict[str, str]:
    """Each question in LogQL; the metric ones count over the whole time of the corpus."""
    seconds = (micros(facts.end) - micros(facts.start)) // 1_000_000
    every, span = f'{{run="{run}"}}', f"[{seconds}s]"
    phrase, regex = json.dumps(facts.phrase), json.dumps(facts.regex)
    chosen = f'{{run="{run}", service="{facts.service}", level="{facts.level}"}}'
    return {
        "count by level": f"sum by (level) (count_over_time({every}{span}))",
        "latest 100 of a service and level in an hour": chosen,
        "rare word": f'{every} |= "{facts.word}"',
        "phrase count": f"sum(count_over_time({every} |= {phrase} {span}))",
        "rows per minute per service": "sum by (service) (count_over_time("
        f"{every}[{MINUTE_SECONDS}s]))",
        "regex count": f"sum(count_over_time({every} |~ {regex} {span}))",
        "one trace_id": f'{every} | trace_id="{facts.trace_id}"',
        "one user_id": f'{every} | user_id="{facts.user_id}"',
        "p95 duration by service": "quantile_over_time(0.95, "
        f"{every} | unwrap duration_ms {span}) by (service)",
        "top 10 hosts by errors": f"topk({TOP_ROWS}, sum by (host) (count_over_time("
        f'{{run="{run}", level="error"}}{span})))',
    }


def plain(answer: dict[str, Any], question: Question) -> Plain:
    """Streams, a vector or a matrix as tuples; a matrix' points stand for the minute before them."""
    found: Plain = []
    kind = answer["data"]["resultType"]
    for one in answer["data"]["result"]:
        if kind == "streams":
            found += [(int(at) // 1000, line) for at, line, *_ in one["values"]]
            continue
        names = tuple(one["metric"].values())
        if kind == "vector":
            value = float(one["value"][1])
            found.append((*names, value if question.shape == "quantile" else int(value)))
            continue
        for at, value in one["values"]:  # evaluated at the last nanosecond of each minute
            minute = (round(float(at)) // MINUTE_SECONDS - 1) * MINUTE_SECONDS
            found.append((minute * 1_000_000, *names, int(value)))
    if question.shape == "groups" and not found:
        return [(0,)]
    return found


class Loki(HttpPeer):
    """A server of one process (`-target=all`)."""

    name = "Loki"
    note = "1 copy, ack not synced"
    estimates = True

    def __init__(self, url: str, pid: int | None = None, data: str | None = None) -> None:
        super().__init__(url, pid, data)
        self._run = f"r{os.getpid()}-{os.urandom(3).hex()}"
        self._kind = ""
        self._facts: dict[str, Facts] = {}
        self._before: dict[str, int] = {}

    def _label(self, kind: str) -> str:
        return f"{self._run}-{kind}"

    def _get(self, path: str, **params: Any) -> dict[str, Any]:
        return json.loads(request(self.link, "GET", f"/loki/api/v1/{path}", params=params))

    def open(self, kind: str) -> None:
        """Notes what the server's folder holds, to know later what was added."""
        self._before[kind] = folder_bytes_of(self.data) or 0

    def encode(self, kind: str, body: Body) -> bytes:
        """JSON as its push endpoint takes it."""
        return push(body, self._label(kind), kind)

    def post(self, link: http.client.HTTPConnection, kind: str, payload: bytes) -> None:
        """One push."""
        request(link, "POST", "/loki/api/v1/push", payload, {"Content-Type": "application/json"})

    def count(self, kind: str) -> int:
        """Rows of the run that a query sees, from a year before the corpus' end."""
        facts = self._facts.get(kind)
        query = f'sum(count_over_time({{run="{self._label(kind)}"}}[{COUNT_DAYS}d]))'
        at = COUNT_END if facts is None else facts.end
        answer = self._get("query", query=query, time=at)
        return sum(int(float(one["value"][1])) for one in answer["data"]["result"])

    def disk_bytes(self, kind: str) -> int | None:
        """What its folder holds more than at `open`, if it was named; with the write-ahead log."""
        held = folder_bytes_of(self.data)
        return None if held is None else held - self._before[kind]

    def bind(self, kind: str, facts: Facts) -> None:
        """What the questions are about."""
        self._kind, self._facts[kind] = kind, facts

    def ask(self, question: Question) -> Plain | None:
        """The rows of the answer."""
        facts = self._facts[self._kind]
        query = queries(facts, self._label(self._kind))[question.name]
        first, last = micros(facts.start), micros(facts.end)
        if question.name == "rows per minute per service":
            start, end = first // 60_000_000 * 60_000_000 + 60_000_000, last
            params = {"start": start * 1000 - 1, "end": end * 1000 - 1, "step": MINUTE_SECONDS}
            return plain(self._get("query_range", query=query, **params), question)
        if question.shape != "rows":
            return plain(self._get("query", query=query, time=last * 1000 - 1), question)
        if question.name.startswith("latest"):
            first, last = micros(facts.hour_start), micros(facts.hour_end)
        params = {"start": first * 1000, "end": last * 1000, "limit": PAGE_ROWS}
        answer = self._get("query_range", query=query, direction="backward", **params)
        return plain(answer, question)


#: Counting looks back this far from here; the corpus lies within.
COUNT_DAYS = 30
COUNT_END = "2026-01-30T00:00:00Z"
