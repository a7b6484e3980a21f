"""What a run asked to be hidden: deletes and watermarks, as the proofs of faults tell of them. Pure.

A row *may* be hidden from the moment at which a hide that covers it was asked for, whatever the answer. It
*must* be, if it was acknowledged before that: in reads through nodes that were there from GRACE_SECONDS
after the answer, through the one that was away from when all nodes had said so (docs/consistency.md,
"When"). Rows sent later under a delete show; those under a watermark do not.
"""

from dataclasses import dataclass

from chaos.corpus import Corpus, moment_micros
from chaos.history import History

#: Seconds in which each node that answers hears of a committed hide: a few heartbeats of the Raft group,
#: and its election if the leader is the one that is away.
GRACE_SECONDS = 3.0
#: Microseconds by which a watermark may move on during a run: what lies there counts neither way.
RUN_MICROS = 30 * 60 * 1_000_000
DELETE, WATERMARK = "delete", "watermark"


@dataclass(frozen=True, slots=True)
class Hide:
    """One of them. Rows `first` to `last` of a client; of a watermark those with times before `before`.

    `t_inv`, `t_ret`: when it was asked for and answered, ns of the history's clock; `t_ret` None: no answer.
    `before`: microseconds since 1970.
    """

    how: str
    client: str
    first: int
    last: int
    t_inv: int
    t_ret: int | None
    before: int = 0
    #: Who was away meanwhile; when all nodes, this one too, had said that they know of it.
    struck: str = ""
    t_all: int | None = None

    def may(self, number: int, corpus: Corpus) -> bool:
        """Whether it may cover a row."""
        if self.how == DELETE:
            return self.first <= number <= self.last
        return moment_micros(corpus, self.client, number) < self.before + RUN_MICROS

    def must(self, number: int, corpus: Corpus) -> bool:
        """Whether it surely covers a row that was acknowledged before."""
        if self.how == DELETE:
            return self.first <= number <= self.last
        return moment_micros(corpus, self.client, number) < self.before

    def sure_from(self, node: str) -> int | None:
        """From when on a read that begins at a node must not show what it covers; None: never judged."""
        if node == self.struck or self.t_ret is None:
            return self.t_all
        return self.t_ret + int(GRACE_SECONDS * 1e9)


def hides_of(history: History) -> list[Hide]:
    """All hides of a run, also those of faults that did not bite."""
    return [
        Hide(**one, struck=fault.proof.get("struck", ""), t_all=fault.proof.get("hidden_at"))
        for fault in history.faults
        for one in fault.proof.get("hides", ())
    ]
