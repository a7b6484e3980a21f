"""What a history says of bulk rows, as arrays over their numbers: who was told what, and when. Pure.

Eight bytes a row and question, whole spans at a time: ten million rows are judged in seconds.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from chaos.acks import NEVER
from chaos.facts import Facts
from chaos.history import BULK_FINAL, COUNT, FAIL, OK, History, Op


@dataclass(frozen=True)
class BulkFacts:
    """A history with its indexes. An array over a client's numbers has 0 in front, which names no row."""

    history: History

    @cached_property
    def appends(self) -> list[Op]:
        """Requests that carried bulk rows."""
        return Facts(self.history).bulk_appends

    @cached_property
    def reads(self) -> list[Op]:
        """Answered reads of a client's rows, the last ones included; `covers` names the client."""
        return Facts(self.history).bulk_reads

    @cached_property
    def counts(self) -> list[Op]:
        """Answered counts."""
        return [
            op for op in self.history.ops
            if op.kind == COUNT and op.outcome == OK and "bulk" in op.resp
        ]  # fmt: skip

    @cached_property
    def finals(self) -> dict[tuple[str, str], Op]:
        """The last complete read of a client's rows through a node, by (node, client)."""
        return {
            (op.node, op.covers): op
            for op in self.reads
            if op.kind == BULK_FINAL and op.resp["complete"]
        }

    @cached_property
    def tops(self) -> dict[str, int]:
        """The highest number that each client sent; also of those that sent nothing."""
        found = dict.fromkeys(self.history.head.bulk, 0)
        for op in self.appends:
            found[op.client] = max([found.get(op.client, 0), *(last for _, last in op.rows)])
        return found

    @cached_property
    def asked(self) -> dict[str, np.ndarray]:
        """When each row was first sent by a request that may have stored it."""
        found = self._never()
        for op in self.appends:
            if op.outcome != FAIL:
                for first, last in op.rows:
                    _earliest(found[op.client][first : last + 1], op.t_inv)
        return found

    @cached_property
    def acked(self) -> dict[str, np.ndarray]:
        """When each row was promised first: its request was acknowledged, or an `ackTill` covers it."""
        found = self._never()
        for op in self.appends:
            if op.outcome != OK or op.t_ret is None:
                continue
            times = found[op.client]
            refused = np.asarray(op.resp.get("rejected", ()), np.int64)
            kept = times[refused]
            for first, last in op.rows:
                _earliest(times[first : last + 1], op.t_ret)
            times[refused] = kept
            if op.client in self.history.head.sequenced:
                _earliest(times[1 : op.resp.get("ack_till", 0) + 1], op.t_ret)
        return found

    @cached_property
    def acked_count(self) -> int:
        """How many rows were promised."""
        return sum(int((times < NEVER).sum()) for times in self.acked.values())

    @cached_property
    def asked_count(self) -> int:
        """How many rows were sent."""
        return sum(int((times < NEVER).sum()) for times in self.asked.values())

    def mask(self, client: str, spans: Iterable[Sequence[int]]) -> np.ndarray:
        """Spans of numbers as an array over the client's numbers."""
        found = np.zeros(self.tops.get(client, 0) + 1, bool)
        for first, last in spans:
            found[first : last + 1] = True
        return found

    def covered(self, op: Op) -> np.ndarray:
        """The numbers that a read asked for."""
        return self.mask(op.covers, op.rows)

    def _never(self) -> dict[str, np.ndarray]:
        return {client: np.full(top + 1, NEVER, np.int64) for client, top in self.tops.items()}


def _earliest(times: np.ndarray, at: int) -> None:
    np.minimum(times, at, out=times)
