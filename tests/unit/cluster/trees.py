"""A slow, plain model of a replica's answers about trees: entry by entry, from the definitions."""

import hashlib
from dataclasses import dataclass, field
from functools import cache
from typing import Any

import numpy as np

from records.sync import (
    BUCKETS,
    HOUR_TYPE,
    LISTED_TYPE,
    SPAN_HOURS,
    SPAN_TYPE,
    Level,
    Question,
    TreeRequest,
    numbers_of,
    roots_asked,
    roots_digest,
)


@dataclass(frozen=True)
class Held:
    """An entry as trees see it."""

    id: bytes
    shard: int
    hours: tuple[int, ...]
    content: bytes = b"c" * 16
    received: int = 0
    block: int = 0


def held(number: int, shard: int = 0, hours: tuple[int, ...] = (7,), **more: Any) -> Held:
    """An entry named by a number."""
    return Held(hashlib.sha256(f"{number}".encode()).digest()[:16], shard, hours, **more)


@cache
def leaf_of(entry: Held) -> int:
    """H(id, content) by definition."""
    return int.from_bytes(hashlib.sha256(entry.id + entry.content).digest()[:16], "big")


def sum_of(entries: list[Held], size: int = 16) -> int:
    """Sum of H(id, content), low `size` bytes."""
    return sum(map(leaf_of, entries)) % (1 << 8 * size)


@dataclass
class Model:
    """Entries by id; answers like a replica. `cap`: bytes after which a reply is cut."""

    entries: dict[bytes, Held] = field(default_factory=dict)
    cap: int = 1 << 40

    def add(self, *entries: Held) -> "Model":
        """Put-if-absent."""
        for one in entries:
            self.entries.setdefault(one.id, one)
        return self

    def roots(self, shards: list[int], until: int = 1) -> bytes:
        """The sums of some shards."""
        return self._roots(sorted(shards), b"", until)

    def answers(self, request: TreeRequest) -> list[bytes]:
        """One answer a question, until there are `cap` bytes."""
        found: list[bytes] = []
        for question in request.questions:
            found.append(self._answer(question, request.until))
            if sum(map(len, found)) >= self.cap:
                break
        return found

    def _of(self, shard: int, until: int) -> list[tuple[int, Held]]:
        """(hour, entry), once for each hour."""
        mine = [e for e in self.entries.values() if e.shard == shard and e.received <= until]
        return [(hour, one) for one in mine for hour in one.hours]

    def _roots(self, shards: list[int], digest: bytes, until: int) -> bytes:
        sums = [
            sum_of([e for _, e in self._of(shard, until)]).to_bytes(16, "big") for shard in shards
        ]
        return b"" if roots_digest(sums) == digest else b"".join(sums)

    def _answer(self, question: Question, until: int) -> bytes:
        if question.level is Level.ROOTS:
            return self._roots(*roots_asked(question), until)
        filed = self._of(question.shard, until)
        if question.level is Level.SPANS:
            return _table(filed, SPAN_HOURS, SPAN_TYPE)
        if question.level is Level.HOURS:
            inside = [(h, e) for h, e in filed if h // SPAN_HOURS == question.number]
            return _table(inside, 1, HOUR_TYPE)
        entries = [e for hour, e in filed if hour == question.number]
        if question.level is Level.BUCKETS:
            groups: list[list[Held]] = [[] for _ in range(BUCKETS)]
            for one in entries:
                groups[one.id[0]].append(one)
            sums = [sum_of(group, 8) if group else 0 for group in groups]
            return np.array(sums, "<u8").tobytes()
        wanted = numbers_of(question.mask) if question.mask else range(BUCKETS)
        listed = [(e.id, e.block) for e in entries if e.id[0] in wanted]
        return np.array(listed, LISTED_TYPE).tobytes()


def _table(filed: list[tuple[int, Held]], step: int, kind: np.dtype) -> bytes:
    groups: dict[int, list[Held]] = {}
    for hour, entry in filed:
        groups.setdefault(hour // step, []).append(entry)
    rows = [
        (number, sum_of(found, 8)) if kind == SPAN_TYPE else (number, len(found), sum_of(found, 8))
        for number, found in sorted(groups.items())
    ]
    return np.array(rows, kind).tobytes()
