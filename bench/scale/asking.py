"""Times the questions of the slim corpus at a cluster, as far as it answers them."""

import time
from collections.abc import Sequence
from typing import Any

from bench import load, nodes
from bench.measure import percentile
from bench.peers.ours import ask
from bench.questions import QUESTIONS, Facts, Plain, canonical, digest

#: Seconds for one question in all; a slow one has fewer rounds, at least two beside the first.
QUESTION_SECONDS = 8.0
MIN_ROUNDS = 3
#: Seconds until one answer: the server's own deadline (30) cuts off a first search through 50 M messages
#: here, where all nodes share two cores.
DEADLINE_SECONDS = 100.0


def questions(
    cluster: nodes.Cluster, facts: Facts, rounds: int, names: Sequence[str] = ()
) -> dict[str, Any]:
    """By name, in ms: the first answer, which fills caches; p50 and p99 of those after it; an answer's name.

    One that is refused or not complete has an `error` instead, and ends nothing. `names`: ask these alone.
    """
    found: dict[str, Any] = {}
    for question in QUESTIONS:
        if question.kind != "slim" or (names and question.name not in names):
            continue
        link = load.connect(cluster.urls[0])
        try:
            taken: list[float] = []
            answer: Plain = []
            while len(taken) < max(2, rounds):
                if len(taken) >= MIN_ROUNDS and sum(taken) > QUESTION_SECONDS * 1000:
                    break
                at = time.perf_counter()
                answer = ask(link, facts, question, DEADLINE_SECONDS)
                taken.append((time.perf_counter() - at) * 1000)
            found[question.name] = {
                "p50": percentile(taken[1:], 0.5),
                "p99": percentile(taken[1:], 0.99),
                "first": taken[0],
                "rounds": len(taken),
                "same_answer": digest(canonical(answer, question.shape)),
            }
        except (OSError, RuntimeError, TimeoutError) as error:
            found[question.name] = {"error": str(error)[:300]}
        finally:
            link.close()
    return found


def ingest_point(taken: Sequence[load.Load]) -> dict[str, Any]:
    """The figures of some loads together: rates and costs of each, acks of all."""
    acks = [ack for one in taken for ack in one.acks]
    return {
        "rows_sent": sum(one.rows for one in taken),
        "acked_rows_per_second": [one.rows / one.acked_seconds for one in taken],
        "cpu_micros_per_row": [one.micros_per_row for one in taken],
        "overcounts": sum(one.overcounts for one in taken),
        "ack_p50_ms": percentile(acks, 0.5) * 1000,
        "ack_p99_ms": percentile(acks, 0.99) * 1000,
    }
