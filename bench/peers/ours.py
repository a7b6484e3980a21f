"""quorumlog as a peer among the others: a cluster of real processes, asked over HTTP with R of N."""

import http.client
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from bench import load, nodes
from bench.corpus import Body
from bench.questions import PAGE_ROWS, TOP_ROWS, Facts, Plain, Question, micros


def parameters(facts: Facts) -> dict[str, tuple[str, dict[str, Any]]]:
    """Path and parameters of each question."""
    stats, page = "/query/stats", {"limit": PAGE_ROWS, "fields": "timestamp,message"}
    hour = {"from": facts.hour_start, "to": facts.hour_end}
    chosen = {"service": facts.service, "level": facts.level}
    return {
        "count by level": (stats, {"by": "level", "agg": "count"}),
        "latest 100 of a service and level in an hour": ("/query", page | hour | chosen),
        "rare word": ("/query", page | {"search": facts.word}),
        "phrase count": (stats, {"agg": "count", "search": f'"{facts.phrase}"'}),
        "rows per minute per service": (stats, {"by": "service", "agg": "count", "step": "1m"}),
        "regex count": (stats, {"agg": "count", "regex": facts.regex}),
        "one trace_id": ("/query", page | {"trace_id": facts.trace_id}),
        "one user_id": ("/query", page | {"user_id": facts.user_id}),
        "p95 duration by service": (stats, {"by": "service", "agg": "p95(duration_ms)"}),
        "top 10 hosts by errors": (
            stats,
            {"by": "host", "agg": "count", "level": "error", "limit": TOP_ROWS},
        ),
    }


def plain(answer: dict[str, Any], question: Question) -> Plain:
    """An answer of /query or /query/stats as tuples."""
    rows = answer["rows"]
    if question.shape == "rows":
        return [(micros(row["timestamp"]), row["message"]) for row in rows]
    by = answer.get("by") or []
    names = [*by, *(name for name in answer["agg"])]
    found = [tuple(row[name] for name in names) for row in rows]
    if "step" not in answer:
        return found
    bucket = next(name for name in rows[0] if name not in names) if rows else ""
    stamps = {text: micros(text) for text in {row[bucket] for row in rows}}
    return [(stamps[row[bucket]], *one) for row, one in zip(rows, found, strict=True)]


def ask(
    link: http.client.HTTPConnection,
    facts: Facts,
    question: Question,
    seconds: float | None = None,
) -> Plain:
    """Our answer. `seconds`: a deadline other than the server's own.

    Raises:
        RuntimeError: it is not complete.
    """
    path, params = parameters(facts)[question.name]
    answer = nodes.ask(link, path, params | ({"timeout": seconds} if seconds else {}))
    if not answer["complete"]:
        raise RuntimeError(
            f"{question.name}: partial answer: {json.dumps(answer['missing'])[:300]}"
        )
    return plain(answer, question)


class Quorumlog:
    """A cluster of `count` nodes for each corpus, all on this machine."""

    estimates = False

    def __init__(self, folder: Path, count: int = 3) -> None:
        self._folder, self._count = folder, count
        self.clusters: dict[str, nodes.Cluster] = {}
        self.held: dict[str, int] = {}
        self._peaks: list[int] = [0] * count
        self._link: http.client.HTTPConnection | None = None
        self._facts: Facts | None = None
        copies = min(3, count)
        self.name = f"quorumlog N={copies} W={copies // 2 + 1}"
        self.note = f"{copies} {'copies' if copies > 1 else 'copy'}, every ack synced"

    def open(self, kind: str) -> None:
        """Starts a cluster of its own for the corpus; the other's is stopped, its memory is free."""
        self._stop()
        cluster = nodes.Cluster(self._folder / kind, self._count)
        cluster.start()
        self.clusters, self.held[kind] = {kind: cluster}, 0

    def load(self, kind: str, bodies: Sequence[Body], connections: int) -> load.Load:
        """Sends the batches to all nodes in turn."""
        taken = load.send(self.clusters[kind], bodies, connections, self.held[kind])
        self.held[kind] += taken.rows
        return taken

    def disk_bytes(self, kind: str) -> int | None:
        """Bytes of one copy, as the nodes count them (without the log's preallocated end)."""
        return self.clusters[kind].stored_bytes() // min(3, self._count)

    def cpu_seconds(self) -> float | None:
        """CPU of all nodes of the corpus at hand."""
        return sum(sum(cluster.cpu_seconds()) for cluster in self.clusters.values())

    def memory_bytes(self) -> list[int] | None:
        """The most each node has had, whatever the corpus."""
        for cluster in self.clusters.values():
            self._peaks = [
                max(pair) for pair in zip(self._peaks, cluster.memory_bytes(), strict=True)
            ]
        return list(self._peaks)

    def bind(self, kind: str, facts: Facts) -> None:
        """What the questions are about; they go to the first node."""
        self._facts = facts
        self._link = load.connect(self.clusters[kind].urls[0])

    def ask(self, question: Question) -> Plain | None:
        """The answer of a quorum read."""
        assert self._link is not None
        assert self._facts is not None, "bind first"
        return ask(self._link, self._facts, question)

    def _stop(self) -> None:
        self.memory_bytes()
        if self._link is not None:
            self._link.close()
            self._link = None
        for cluster in self.clusters.values():
            cluster.stop()
        self.clusters = {}

    def close(self) -> None:
        """Stops what runs."""
        self._stop()
