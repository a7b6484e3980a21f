"""What simulated clients send: rows that are a function of (seed, client, number), small ones.

Neighbours share their time, so that order has ties; clients lie in several hours. The rest is chaos.corpus.
"""

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from chaos.corpus import LEVELS, Corpus, row_name, time_text
from chaos.facts import NEVER, Facts

SERVICES = ("shop", "pay", "mail")
HOUR = 3_600_000_000
#: Rows made already, of this run mostly: a function of their keys, so it does not matter who made them.
ROWS: dict[tuple[int, str, int], dict[str, Any]] = {}
#: And their digests.
DIGESTS: dict[tuple[int, str, int], str] = {}
ROWS_KEPT = 4096


def time_of(number: int) -> int:
    """Microseconds after the client's first row: four neighbours have the same."""
    return number // 4 * 1000


class SimCorpus(Corpus):
    """Rows that are a function of (seed, client, number), small ones; neighbours share their time."""

    def row(self, client: str, number: int, service: str) -> dict[str, Any]:
        """The row."""
        known = ROWS.get((self.seed, client, number))
        if known is None:
            if len(ROWS) >= ROWS_KEPT:
                ROWS.clear()
            known = ROWS[self.seed, client, number] = self._made(client, number, service)
        return dict(known)

    def digest(self, client: str, number: int, service: str) -> str:
        """See Corpus."""
        key = self.seed, client, number
        if key not in DIGESTS:
            if len(DIGESTS) >= ROWS_KEPT:
                DIGESTS.clear()
            DIGESTS[key] = super().digest(*key[1:], service)
        return DIGESTS[key]

    def _made(self, client: str, number: int, service: str) -> dict[str, Any]:
        name = f"{self.seed}:{client}:{number}".encode()
        bits = int.from_bytes(hashlib.blake2b(name, digest_size=8).digest())
        where = int.from_bytes(hashlib.blake2b(client.encode(), digest_size=2).digest())
        micros = self.start_micros - where % 3 * HOUR + time_of(number)
        return {
            "timestamp": time_text(micros),
            "service": service,
            "level": LEVELS[bits % len(LEVELS)],
            "message": f"{number} of {client}: {bits:x}",
            "chaos_client": client,
            "chaos_number": number,
            "_micros": micros,
        }


@dataclass(frozen=True)
class SimFacts(Facts):
    """Facts about a simulated run. `hidden`: names of rows that some read may lack (chaos.sim.hiding)."""

    hidden: frozenset[str] = frozenset()

    @cached_property
    def corpus(self) -> Corpus:
        """The run's rows."""
        return SimCorpus(self.history.head.seed, self.history.head.start_micros)

    def promised(
        self, covers: str, before: int, until: int = NEVER - 1
    ) -> Iterable[tuple[str, int]]:
        """See Facts; without those that are hidden at some time."""
        found = super().promised(covers, before, until)
        return (row for row in found if row_name(*row) not in self.hidden) if self.hidden else found

    @cached_property
    def final_names(self) -> set[str]:
        """See Facts; what is hidden counts as found."""
        return super().final_names | self.hidden
