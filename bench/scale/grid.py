"""One thing changes, the rest stays: connections, rows a batch, nodes."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from bench import corpus, goals, load, measure, nodes
from bench.corpus import Body
from bench.questions import facts
from bench.scale import asking
from bench.scale.points import Points

#: Seed of the rows that only warm a cluster up (schemas, connections). Each load has rows of its own, by its
#: piece: rows that are sent again are not stored again.
_WARM = 7


@dataclass(frozen=True, slots=True)
class Grid:
    """Points of the three parts. `requests`: bounds the rows of a point with small batches."""

    connections: tuple[int, ...] = (1, 2, 4, 8, 16, 32, 64)
    batches: tuple[int, ...] = (100, 300, 1_000, 3_000, 10_000, 20_000)
    nodes: tuple[int, ...] = (3, 5, 7, 9)
    rows: int = 500_000
    node_rows: int = 1_000_000
    requests: int = 500
    batch: int = 2_000
    big_batch: int = 20_000
    rounds: int = 2
    question_rounds: int = 7


TINY = Grid((1, 4), (100, 500), (3,), 1_000, 2_000, 5, 100, 500, 1, 2)


def _bodies(piece: int, rows: int, batch: int, seed: int = corpus.SEED) -> list[Body]:
    return list(corpus.cut(corpus.table_of("slim", rows, piece, seed), batch))


def _turns(values: tuple[int, ...], rounds: int) -> Iterator[int]:
    """Up, then down: what the growing store adds to a cost is not taken for the effect of the value."""
    for turn in range(rounds):
        yield from values if turn % 2 == 0 else reversed(values)


def connections(plan: Grid, points: Points, folder: Path) -> None:
    """Senders at once, `batch` rows a batch."""
    _vary(
        plan, points, folder, "connections", plan.connections,
        lambda value: (plan.rows, plan.batch, value),
    )  # fmt: skip


def batches(plan: Grid, points: Points, folder: Path) -> None:
    """Rows a batch, over 8 connections."""
    _vary(
        plan, points, folder, "batch", plan.batches,
        lambda value: (min(plan.rows, value * plan.requests), value, 8),
    )  # fmt: skip


def _vary(
    plan: Grid,
    points: Points,
    folder: Path,
    name: str,
    values: tuple[int, ...],
    load_of: Callable[[int], tuple[int, int, int]],
) -> None:
    """A point for each value of `name`, all on one cluster. `load_of`: rows, rows a batch, connections."""
    if all(points.has(**{name: one}) for one in values):
        return
    taken: dict[int, list[load.Load]] = {one: [] for one in values}
    with nodes.Cluster(folder, 3) as cluster:
        load.send(cluster, _bodies(0, plan.rows // 2, plan.batch, _WARM), 4)
        for piece, value in enumerate(_turns(values, plan.rounds)):
            if points.late(f"round {len(taken[value]) + 1} of {name} {value:,}"):
                break
            rows, batch, senders = load_of(value)
            one = load.send(cluster, _bodies(piece, rows, batch), senders)
            taken[value].append(one)
            goals.say(f"{name} {value:,}: {one.micros_per_row:.2f} us a row")
    for value, loads in taken.items():
        if loads:
            points.add({name: value, **asking.ingest_point(loads)})


def storage_nodes(plan: Grid, points: Points, folder: Path) -> None:
    """A cluster of each size on this one machine, three copies of each row: cost, questions, memory."""
    for count in plan.nodes:
        if points.has(nodes=count):
            continue
        if points.late(f"{count} nodes"):
            return
        with nodes.Cluster(folder / f"n{count}", count) as cluster:
            idle = cluster.memory_bytes("VmRSS")
            load.send(cluster, _bodies(0, plan.big_batch * 2, plan.big_batch, _WARM), 4)
            held = nodes.count(cluster.ports[0])
            loads = [
                load.send(cluster, _bodies(piece, plan.node_rows, plan.big_batch), 8)
                for piece in range(plan.rounds)
            ]
            about = facts(plan.rounds, plan.node_rows)
            points.add(
                {
                    "nodes": count,
                    "rows": held + sum(one.rows for one in loads),
                    **asking.ingest_point(loads),
                    "stored_bytes": cluster.stored_bytes(),
                    "idle_rss_bytes": idle,
                    "rss_bytes": cluster.memory_bytes("VmRSS"),
                    "idle_cpu_share": measure.idle_cpu(cluster.pids),
                    "questions": asking.questions(cluster, about, plan.question_rounds),
                }
            )
        goals.say(f"{count} nodes: {loads[-1].micros_per_row:.2f} us a row")
