"""Questions and full-rate ingest at once, and memory through all of it."""

import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench import corpus, goals, load, measure, nodes
from bench.questions import QUESTIONS, facts
from bench.scale import asking
from bench.scale.points import Points


@dataclass(frozen=True, slots=True)
class Together:
    """`rows`: held before; `sent`: those that come in while it is asked."""

    rows: int = 2_000_000
    sent: int = 4_000_000
    rich: int = 2_000_000
    batch: int = 20_000
    connections: int = 8
    rounds: int = 10
    rest_seconds: float = 15.0


TINY = Together(2_000, 6_000, 2_000, 500, 2, 2, 0.5)
_SENT, _ALONE = 1, 2  # numbers of pieces


def _piece(plan: Together, number: int, rows: int, kind: str = "slim") -> list[corpus.Body]:
    return list(corpus.cut(corpus.table_of(kind, rows, number), plan.batch))


def beside(plan: Together, points: Points, folder: Path) -> None:
    """Three points: questions alone, ingest alone, both at once (questions end with the ingest)."""
    if points.has(what="both") or points.late("beside"):
        return
    about = facts(1, plan.rows)
    with nodes.Cluster(folder, 3) as cluster:
        load.send(cluster, _piece(plan, 0, plan.rows), plan.connections, 0)
        asked = asking.questions(cluster, about, plan.rounds)
        alone = load.send(cluster, _piece(plan, _ALONE, plan.sent), plan.connections)
        bodies = _piece(plan, _SENT, plan.sent)
        held = nodes.count(cluster.ports[0])
        with _Sending(cluster, bodies, plan.connections, held) as sending:
            rounds = []
            while sending.running:
                rounds.append(asking.questions(cluster, about, 2))
        points.add({"what": "questions", "questions": asked})
        points.add({"what": "ingest", **asking.ingest_point([alone])})
        point = {"what": "both", "questions": _merged(rounds), "rounds": len(rounds)}
        points.add(point | asking.ingest_point([sending.result()]))


class _Sending:
    """A load in a thread of its own."""

    def __init__(
        self, cluster: nodes.Cluster, bodies: list[corpus.Body], connections: int, held: int
    ) -> None:
        self._found: list[load.Load | BaseException] = []
        self._thread = threading.Thread(
            target=self._run, args=(cluster, bodies, connections, held), daemon=True
        )

    def _run(self, *args: Any) -> None:
        try:
            self._found.append(load.send(*args))
        except BaseException as error:  # noqa: BLE001 - rises in the thread that waits
            self._found.append(error)

    def __enter__(self) -> "_Sending":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._thread.join()

    @property
    def running(self) -> bool:
        """Whether rows are still coming in."""
        return self._thread.is_alive()

    def result(self) -> load.Load:
        """What it took."""
        (found,) = self._found
        if isinstance(found, BaseException):
            raise found
        return found


def _merged(rounds: list[dict[str, Any]]) -> dict[str, Any]:
    """Median over the rounds of each question's p50, and the worst p99; errors are counted."""
    merged: dict[str, Any] = {}
    for name in rounds[0] if rounds else ():
        good = [one[name] for one in rounds if "error" not in one[name]]
        merged[name] = {"errors": len(rounds) - len(good)}
        if good:
            merged[name]["p50"] = measure.percentile([one["p50"] for one in good], 0.5)
            merged[name]["p99"] = max(one["p99"] for one in good)
    return merged


def memory(plan: Together, points: Points, folder: Path) -> None:
    """Resident memory of each node, phase by phase: idle, slim rows, rich rows, questions, both, rest."""
    if points.has(what="memory") or points.late("memory"):
        return
    about = facts(1, plan.rows)
    rounds = max(plan.rounds, len(QUESTIONS))
    with nodes.Cluster(folder, 3) as cluster:
        slim, rich = _piece(plan, 0, plan.rows), _piece(plan, 1, plan.rich, "rich")
        more = _piece(plan, _ALONE, plan.sent)
        phases: list[tuple[str, float]] = []
        started = time.monotonic()

        def phase(name: str) -> None:
            phases.append((name, round(time.monotonic() - started, 2)))
            goals.say(f"memory: {name} ...")

        with measure.Sampler(cluster.pids) as sampler:
            phase("idle")
            time.sleep(min(2.0, plan.rest_seconds))
            phase("slim rows")
            load.send(cluster, slim, plan.connections, 0)
            phase("rich rows")
            load.send(cluster, rich, plan.connections, plan.rows)
            phase("questions")
            asking.questions(cluster, about, rounds)
            phase("rows and questions")
            with _Sending(cluster, more, plan.connections, plan.rows + plan.rich) as sending:
                while sending.running:
                    asking.questions(cluster, about, 2)
            sending.result()
            phase("rest")
            time.sleep(plan.rest_seconds)
        points.add(
            {
                "what": "memory",
                "rows": plan.rows + plan.rich + plan.sent,
                "phases": phases,
                "samples": sampler.samples,
                "peak_bytes": cluster.memory_bytes(),
                "anonymous_bytes": cluster.memory_bytes("RssAnon"),
            }
        )
