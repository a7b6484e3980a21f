"""Retention and deletes in a simulated run: what is asked for, and which rows must not be seen, since when.

A rule in days is made so that the managers' median clock passes the rows of some clients while the run
lasts: these are hidden then, and entries an hour older are removed. A delete names a service, and a client
or a time.

The reckoning is made afterwards, from the agreed log and the clients' history alone. Of each row it knows

    may    from when on a read may lack it
    sure   the index of the log from which on no node that knows it may show it

They differ for deletes, which go by receive times: a row that was sent about then, or again since, may come
out either way (docs/consistency.md). Sure is what was acknowledged before the operator asked, and was not
sent again.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from chaos.corpus import row_name, time_text
from chaos.facts import NEVER, Facts
from chaos.history import FINAL, READ, Op
from chaos.sim.clock import WALL_MICROS
from chaos.sim.consensus import SimLog
from chaos.sim.corpus import HOUR, SERVICES, SimCorpus
from chaos.sim.node import SimNode
from chaos.sim.operating import ANSWER_SECONDS, Operator
from chaos.sim.owning import hidden_before
from chaos.sim.plan import Fault
from cluster.retention import rules_of
from cluster.state_types import ClusterState
from records.timestamps import MICROS_PER_SECOND

TENANT = "default"
SECONDS_PER_DAY = 86_400
#: Nanoseconds that a request may go on for after its client has given up.
LINGER = 3_000_000_000
#: Clients whose rows a delete may name.
CLIENTS = ("p0", "p1", "agent0", "agent1")
Row = tuple[str, int]


@dataclass(slots=True)
class Hider:
    """Asks for rules and deletes. `asked`: (begin, end) of each delete's asking, virtual seconds."""

    operator: Operator
    log: SimLog
    asked: list[tuple[float, float]] = field(default_factory=list)

    async def inflict(self, fault: Fault) -> None:
        """Carries out one of the plan's."""
        if fault.kind == "rule":
            await self._rule(fault)
        else:
            await self._delete()

    async def _rule(self, fault: Fault) -> None:
        """Rows of so many hours ago go some seconds from now."""
        dice = self.operator.dice
        service = dice.pick(("", "", *SERVICES))
        seconds = dice.number(0, 2) * 3600 + fault.at + dice.uniform(0.0, 3.0)
        body = {"service": service, "keep_days": max(1.0, seconds) / SECONDS_PER_DAY}
        await self.operator.ask("rule", lambda node: node.retention.set_rule, body)

    async def _delete(self) -> None:
        dice = self.operator.dice
        body: dict[str, Any] = {"service": dice.pick(SERVICES)}
        if dice.chance(0.4):
            body["q"] = f"chaos_client:{dice.pick(CLIENTS)}"
        if dice.chance(0.4):
            micros = WALL_MICROS - dice.number(0, 2) * HOUR + dice.number(0, 4) * 1000
            body["from" if dice.chance(0.5) else "to"] = time_text(micros)
        times = self.log.seconds
        begun = times()
        await self.operator.ask("delete", lambda node: node.retention.delete, body)
        self.asked.append((begun, times() + ANSWER_SECONDS))


class Hidden:
    """Which rows are hidden, and since when. Made when the run is over."""

    def __init__(
        self, facts: Facts, log: SimLog, corpus: SimCorpus, hider: Hider, skew: float
    ) -> None:
        """`skew`: seconds by which a clock may be wrong, at most."""
        self._facts, self._corpus, self._hider = facts, corpus, hider
        self._slack = int((2 * skew + 0.5) * 1e9)
        #: Nanoseconds from which on a read may lack a row; log index from which on none may show it.
        self.may: dict[Row, int] = {}
        self.sure: dict[Row, int] = {}
        self._rows = {
            (client, number): corpus.row(client, number, facts.history.head.services[client])
            for client, numbers in facts.asked.items()
            for number in numbers
        }
        self._last_sent = self._sendings()
        for index in range(1, len(log.states)):
            before, state = log.states[index - 1], log.states[index]
            at = int(log.times[index] * 1e9)
            if state.watermarks != before.watermarks:
                self._pass_watermarks(state, index, at)
            for name in sorted(state.deletes.keys() - before.deletes.keys()):
                self._delete(state.deletes[name], index, at)

    def _sendings(self) -> dict[Row, int]:
        """When each row may have been sent last."""
        found: dict[Row, int] = {}
        for op in self._facts.appends:
            end = NEVER if op.t_ret is None else op.t_ret + LINGER
            for number in op.numbers():
                row = op.client, number
                found[row] = max(end, found.get(row, 0))
        return found

    def _hide(self, row: Row, index: int, at: int, sure: bool) -> None:
        self.may[row] = min(at, self.may.get(row, NEVER))
        if sure:
            self.sure[row] = min(index, self.sure.get(row, index))

    def _pass_watermarks(self, state: ClusterState, index: int, at: int) -> None:
        for row, body in self._rows.items():
            if body["_micros"] < hidden_before(state.watermarks, TENANT, body["service"]):
                self._hide(row, index, at, sure=True)

    def _delete(self, predicate: Any, index: int, at: int) -> None:
        begun = [low for low, high in self._hider.asked if low * 1e9 <= at <= high * 1e9]
        known = int(min(begun, default=0.0) * 1e9)
        for row, body in self._rows.items():
            if (
                not _matches(predicate, body)
                or self._facts.asked[row[0]][row[1]] > at + self._slack
            ):
                continue
            acked = self._facts.acked.get(row[0], {}).get(row[1], NEVER)
            self._hide(row, index, at, sure=acked < known and self._last_sent[row] < at)

    @property
    def names(self) -> frozenset[str]:
        """Rows that some read may lack, by name."""
        return frozenset(row_name(*row) for row in self.may)

    def check(self, pages: Iterable[tuple[int, str, int, list[str]]]) -> list[tuple[str, str]]:
        """I7 of each answer, I4 of complete ones until rows are hidden.

        Args:
            pages: (op, node, log index that the node knew, names of rows) of each answer.
        """
        sure = {row_name(*row): index for row, index in self.sure.items()}
        broken = []
        for op, node, index, names in pages:
            shown = [name for name in names if sure.get(name, index + 1) <= index]
            if shown:
                text = (
                    f"{shown[0]} and {len(shown) - 1} more are hidden since index {sure[shown[0]]}"
                )
                broken.append(("I7", f"{text}; {node}, which knows {index}, shows them (op {op})"))
        for op in self._facts.reads:
            if op.kind in (READ, FINAL) and op.resp["complete"]:
                broken += self._vanished(op)
        return broken

    def _vanished(self, op: Op) -> list[tuple[str, str]]:
        """Rows that are not hidden before the read ends, and that it lacks."""
        seen = self._facts.names(op)
        return [
            ("I7", f"{row_name(*row)}, which nothing hid yet, vanished from {op.node} (op {op.id})")
            for row in self._facts.promised(op.covers, op.t_inv)
            if (op.t_ret or NEVER) < self.may.get(row, 0) and row_name(*row) not in seen
        ]


def _matches(predicate: Any, row: dict[str, Any]) -> bool:
    """Whether a delete's predicate holds for a row, but for its receive time."""
    in_time = predicate["start"] <= row["_micros"] < predicate["end"]
    return in_time and _holds(predicate["filter"], row)


def _holds(tree: Any, row: dict[str, Any]) -> bool:
    kind, *rest = tree
    if kind == "and":
        return all(_holds(one, row) for one in rest)
    if kind == "eq":
        return row[rest[0]] == rest[1]
    assert kind == "true", f"the reckoning knows no {kind}"
    return True


def check_watermarks(log: SimLog, clocks: Iterable[float]) -> list[tuple[str, str]]:
    """I13: no watermark is ahead of what a majority's clocks and the rules allow.

    Args:
        clocks: seconds by which each node's clock is ahead.
    """
    second = sorted(clocks)[-2]
    broken = []
    for index in range(1, len(log.states)):
        before, state = log.states[index - 1], log.states[index]
        for key, mark in state.watermarks.items():
            if mark == before.watermarks.get(key):
                continue
            rules = rules_of(state)[1]
            seconds = rules.get(
                key,
                rules.get((key[0], "")),
            )
            allowed = before.watermarks.get((key[0], ""), 0)
            if seconds:
                now = WALL_MICROS + int((log.times[index] + second) * MICROS_PER_SECOND)
                allowed = max(allowed, now - seconds * MICROS_PER_SECOND)
            if mark > allowed:
                ahead = (mark - allowed) / MICROS_PER_SECOND
                text = f"the watermark of {key} is {ahead:.3f} s ahead of the clocks of a majority"
                broken.append(("I13", text))
    return broken


def left_over(nodes: Iterable[SimNode], state: ClusterState) -> list[tuple[str, str]]:
    """I7: entries that a store still holds an hour and more below the watermarks."""
    broken = []
    for node in (one for one in nodes if one.up):
        for entry in node.known().values():
            services = [entry.service] if entry.sequenced else list(SERVICES)
            marks = [hidden_before(state.watermarks, entry.tenant, one) for one in services]
            known = entry.sequenced or (entry.tenant, "") in state.watermarks
            if known and entry.max_ts + HOUR < min(marks):
                what = entry.producer or entry.service
                broken.append(
                    ("I7", f"{node.id} still holds an entry of {what} below the watermark")
                )
    return broken
