"""What a history says, put in order once for all checkers: who was told what, and when. Pure.

`acked`: when the first answer came that promised a row. `asked`: when it was first sent by a request
that did not surely fail, so from when on it may be seen. Times are those of the one clock.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import cached_property

from chaos.acks import NEVER
from chaos.blows import Floor, at_rest, cut_off, quorums_of
from chaos.corpus import Corpus, group_range
from chaos.hides import Hide, hides_of
from chaos.history import (
    APPEND,
    BULK,
    BULK_FINAL,
    BULK_READ,
    COUNT,
    FAIL,
    FINAL,
    OK,
    READ,
    FaultRecord,
    History,
    Op,
)


@dataclass(frozen=True)
class Facts:
    """A history with its indexes. Rows are numbers by client."""

    history: History
    _names_of: dict[int, frozenset[str]] = field(default_factory=dict, repr=False, compare=False)

    @cached_property
    def appends(self) -> list[Op]:
        """Requests that carried rows."""
        return [op for op in self.history.ops if op.kind == APPEND]

    @cached_property
    def reads(self) -> list[Op]:
        """Reads of rows that were answered, the last ones included."""
        return [op for op in self.history.ops if op.kind in (READ, FINAL) and op.outcome == OK]

    @cached_property
    def bulk_appends(self) -> list[Op]:
        """Requests that carried bulk rows."""
        return [op for op in self.history.ops if op.kind == BULK]

    @cached_property
    def bulk_reads(self) -> list[Op]:
        """Reads of bulk rows that were answered, the last ones included."""
        kinds = (BULK_READ, BULK_FINAL)
        return [op for op in self.history.ops if op.kind in kinds and op.outcome == OK]

    @cached_property
    def finals(self) -> list[Op]:
        """The last read of all rows through each node, if it was complete."""
        last = {op.node: op for op in self.reads if op.kind == FINAL and op.resp["complete"]}
        return list(last.values())

    @cached_property
    def final_names(self) -> set[str]:
        """Names of all rows that some last read found."""
        return {name for op in self.finals for name, _ in op.resp["rows"]}

    def names(self, op: Op) -> frozenset[str]:
        """Names of the rows that a read found; made once a read."""
        found = self._names_of.get(op.id)
        if found is None:
            found = self._names_of[op.id] = frozenset(name for name, _ in op.resp["rows"])
        return found

    @cached_property
    def counts(self) -> list[Op]:
        """Counts that were answered."""
        return [op for op in self.history.ops if op.kind == COUNT and op.outcome == OK]

    @cached_property
    def acked(self) -> dict[str, dict[int, int]]:
        """When each row was promised first: listed as stored, or covered by an `ackTill`."""
        found: dict[str, dict[int, int]] = {}
        till: dict[str, int] = {}
        for op in sorted(self.appends, key=_returned):
            if op.outcome != OK or op.t_ret is None:
                continue
            times = found.setdefault(op.client, {})
            rejected = set(op.resp.get("rejected", ()))
            for number in op.numbers():
                if number not in rejected:
                    times.setdefault(number, op.t_ret)
            if op.client in self.history.head.sequenced:
                before, now = till.get(op.client, 0), op.resp.get("ack_till", 0)
                for number in range(before + 1, now + 1):
                    times.setdefault(number, op.t_ret)
                till[op.client] = max(before, now)
        return found

    @cached_property
    def asked(self) -> dict[str, dict[int, int]]:
        """When each row was first sent by a request that may have stored it."""
        found: dict[str, dict[int, int]] = {}
        for op in sorted(self.appends, key=lambda one: one.t_inv):
            if op.outcome != FAIL:
                times = found.setdefault(op.client, {})
                for number in op.numbers():
                    times.setdefault(number, op.t_inv)
        return found

    @cached_property
    def acked_times(self) -> dict[str, list[int]]:
        """The times of `acked`, in order."""
        return {client: sorted(times.values()) for client, times in self.acked.items()}

    @cached_property
    def asked_times(self) -> dict[str, list[int]]:
        """The times of `asked`, in order."""
        return {client: sorted(times.values()) for client, times in self.asked.items()}

    @cached_property
    def acked_count(self) -> int:
        """How many rows were promised."""
        return sum(map(len, self.acked.values()))

    @cached_property
    def corpus(self) -> Corpus:
        """The run's rows."""
        return Corpus(self.history.head.seed, self.history.head.start_micros)

    @cached_property
    def hides(self) -> list[Hide]:
        """Deletes and watermarks of the run."""
        return hides_of(self.history)

    @cached_property
    def maybe_hidden(self) -> dict[str, dict[int, int]]:
        """From when on a row may be hidden, by client and number; what no hide may cover is not there."""
        found: dict[str, dict[int, int]] = {}
        for hide in self.hides:
            times = found.setdefault(hide.client, {})
            for number in self.asked.get(hide.client, {}):
                if hide.t_inv < times.get(number, NEVER) and hide.may(number, self.corpus):
                    times[number] = hide.t_inv
        return found

    def shown(self, client: str, number: int, until: int) -> bool:
        """Whether nothing can have hidden a row by a time."""
        return not self.hides or self.maybe_hidden.get(client, {}).get(number, NEVER) > until

    def promised(
        self, covers: str, before: int, until: int = NEVER - 1
    ) -> Iterable[tuple[str, int]]:
        """Rows (client, number) in what a read covers that were promised before a time.

        But for those that may be hidden `until` then.
        """
        for client, number in self._promised(covers, before):
            if self.shown(client, number, until):
                yield client, number

    def _promised(self, covers: str, before: int) -> Iterable[tuple[str, int]]:
        if covers in self.history.head.services or not covers:
            clients = [covers] if covers else list(self.acked)
            for client in clients:
                for number, at in self.acked.get(client, {}).items():
                    if at < before:
                        yield client, number
            return
        client, first, last = group_range(covers)
        times = self.acked.get(client, {})
        for number in range(first, last + 1):
            if times.get(number, NEVER) < before:
                yield client, number

    def quorum_floor(self, start: int, end: int) -> Floor:
        """The least N, W and R that may have been in force at some moment from `start` to `end`."""
        found = [one for one, at, until in self._quorums if at <= end and start <= until]
        return Floor(*(min(values) for values in zip(*found, strict=True)))

    def asked_most(self, op: Op) -> bool:
        """Whether a read asked more than half of the owners, by whatever quorum may have been in force."""
        floor = self.quorum_floor(op.t_inv, op.t_ret or NEVER)
        return 2 * floor.r > floor.n

    @property
    def last_quorum(self) -> Floor:
        """The least that may be in force in the end."""
        return self.quorum_floor(NEVER - 1, NEVER - 1)

    @cached_property
    def _quorums(self) -> list[tuple[Floor, int, int]]:
        head = self.history.head
        return quorums_of(Floor(head.n, head.w, head.r), self.history.faults)

    @cached_property
    def everyone(self) -> frozenset[str]:
        """All nodes that may own a shard, whether they have joined or not; none if that is not known."""
        head = self.history.head
        known = 0 < head.n <= len(head.nodes)
        return frozenset((*head.nodes, *head.spares)) if known else frozenset()

    @cached_property
    def damaged(self) -> set[str]:
        """Nodes whose files were damaged."""
        done = [one for one in self.history.faults if one.what == "corrupt"]
        return {node for one in done for node in one.targets}

    def away_throughout(self, start: int, end: int) -> set[str]:
        """Nodes that are proven to have done nothing at all from `start` to `end`."""
        return {
            node
            for fault in self.history.faults
            if _covers(fault, start, end)
            for node in at_rest(fault)
        }

    def out_of_reach(self, node: str, start: int, end: int) -> set[str]:
        """Nodes that `node` surely could not ask from `start` to `end`: they are away, or cut off from it.

        A client that asks whom it likes (`library`) may have asked the node with the fewest such.
        """
        found = self.away_throughout(start, end)
        if node not in self.history.head.nodes:
            there = [one for one in self.history.head.nodes if one not in found]
            return min(
                (self.out_of_reach(one, start, end) for one in there), key=len, default=found
            )
        nodes = {*self.history.head.nodes, *self.history.head.spares}
        for fault in self.history.faults:
            here = cut_off(fault)
            if here and _covers(fault, start, end):
                found |= nodes - here if node in here else here
        return found - {node} if node not in self.away_throughout(start, end) else found


def _covers(fault: FaultRecord, start: int, end: int) -> bool:
    bitten = fault.t_bitten
    return bitten is not None and bitten <= start and end <= fault.t_heal


def _returned(op: Op) -> int:
    return NEVER if op.t_ret is None else op.t_ret
