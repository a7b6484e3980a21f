"""The numbered writers of a run, and the epochs that their producers ask for while the old ones live on."""

import asyncio
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field

from chaos.history import APPEND, OK, Op
from chaos.sim.clients import Traffic, Writer, ask_for_epochs
from chaos.sim.clock import Dice

#: How often all nodes are asked for an epoch.
ASKED = 6


@dataclass(slots=True)
class Producers:
    """One per run."""

    traffic: Traffic
    dice: Dice
    targets: tuple[str, ...]
    bitten: Counter[str]
    broken: list[tuple[str, str]]
    writers: list[Writer] = field(default_factory=list)
    #: The work of those that have begun.
    work: list["asyncio.Task[None]"] = field(default_factory=list)
    #: (producer, epoch, nanoseconds when it was given).
    _issued: list[tuple[str, int, int]] = field(default_factory=list)

    def employ(self, writer: Writer) -> None:
        """It sends from now on until it is done."""
        self.writers.append(writer)
        self.work.append(asyncio.create_task(writer.run()))

    async def renew(self, number: int) -> None:
        """A producer lost its log: it asks for an epoch and begins anew; the old one lives on.

        Two of its hosts ask, each node that may lead: whoever gets an epoch has it alone.
        """
        old = self.writers[number]
        dice = self.dice.fork("epoch", number)
        for _ in range(ASKED):
            given = await ask_for_epochs(self.traffic, old, self.targets)
            for epoch in given:
                self._begin(old, epoch, at_once=dice.chance(0.5))  # else after the faults
            if given:
                return

    def _begin(self, old: Writer, epoch: int, at_once: bool) -> None:
        if any(one.producer == old.producer and one.epoch == epoch for one in self.writers):
            self.broken.append(("I11", f"producer epoch {epoch} was given twice"))
            return
        self.bitten["newer producer"] += 1
        self._issued.append((old.producer, epoch, self.traffic.now()))
        newer = Writer(self.traffic, old.producer, epoch, 6)
        if at_once:
            self.employ(newer)
        else:
            self.writers.append(newer)

    def check(self, ops: Iterable[Op]) -> None:
        """I11: once an epoch was given, no older one of its producer writes, in whatever shard."""
        names = {one.name: one for one in self.writers}
        for op in ops:
            one = names.get(op.client)
            if one is None or op.kind != APPEND or op.outcome != OK:
                continue
            for producer, epoch, at in self._issued:
                if producer == one.producer and one.epoch < epoch and op.t_inv > at:
                    text = f"{op.client} wrote through {op.node} after epoch {epoch} was given"
                    self.broken.append(("I11", f"{text} (op {op.id})"))
