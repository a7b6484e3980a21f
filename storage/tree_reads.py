"""What a replica tells of its Merkle trees: the answers to `records.sync` questions.

Trees hold every entry; an answer is about those received by a moment, so the few that came later are looked
for in the entry table and taken off. Roots and hours cost a pass over its newest rows; buckets and lists a
pass over three columns, and buckets a hash of each entry in the hours concerned, so a reply is bounded in
entries hashed as well as in bytes: what is left is asked again. The passes run on a worker, over a
view of the table as it was when the question came. What changes meanwhile (a merge moves entries) can make
an answer differ from any state there was: then the asker sees a difference that is gone when it looks
again.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np

from records.errors import NotReady, StaleRingEpoch
from records.ids import EntryId
from records.sync import (
    BUCKETS,
    HOUR_TYPE,
    LISTED_TYPE,
    RECENT_MICROS,
    SPAN_HOURS,
    SPAN_TYPE,
    SUM_BYTES,
    Level,
    Question,
    TreeRequest,
    numbers_of,
    roots_asked,
    roots_digest,
)
from records.timestamps import MAX_ENTRY_HOURS, MICROS_PER_HOUR, WIDE_HOUR
from runtime.tasks import Workers
from storage.engine import Engine
from storage.entry_table import COMPLEX, GONE, NO_PRODUCER, cells_of
from storage.holdings import Extra
from storage.merkle import MerkleTree, sums
from storage.newest import Mark, Newest, received_after

#: Bytes of one reply; the questions after it are left unanswered, and asked again.
#: 1 MiB is 52,000 entries listed: the asker compares them at once, on a thread.
REPLY_BYTES_MAX = 1 << 20
#: Entries hashed for one reply, but for those of its first question: about 0.7 µs of a worker each. Without
#: it a busy hour of all shards would take longer than whoever asks waits, each time anew.
HASHED_MAX = 500_000
_LOW = (1 << 64) - 1
_SUM = (1 << 128) - 1
_COUNT_SHIFT = 128
#: Shard and hour in one number that sorts by both. Hours are within 2^41 of 0, shards below 2^16.
_HOUR_BITS, _HOUR_ZERO = 42, 1 << 41


class TreeReads:
    """Answers questions about the trees of one engine."""

    def __init__(self, engine: Engine, workers: Workers) -> None:
        self._engine, self._workers = engine, workers
        self._newest = Newest()

    async def answer(self, request: TreeRequest) -> list[bytes]:
        """An answer for each question, in order; fewer if they are many bytes, but at least one.

        Raises:
            StaleRingEpoch: a newer ring is known here.
        """
        if request.ring_epoch < self._engine.ring_epoch:
            raise StaleRingEpoch("a newer ring is known here", epoch=self._engine.ring_epoch)
        seen, generation = self._seen(request), self._engine.holdings.generation
        answers = await self._workers.run(lambda: list(_capped(seen)))
        self._newest.keep(generation, seen.mark)
        return answers

    def _seen(self, request: TreeRequest) -> "Seen":
        holdings = self._engine.holdings
        asked = _affordable(holdings.trees, request.questions)
        roots = {s for q in asked if q.level is Level.ROOTS for s in roots_asked(q)[0]}
        hours = {q.shard for q in asked if q.level in (Level.SPANS, Level.HOURS)}
        trees = holdings.trees
        return Seen(
            holdings.table.rows[: holdings.table.count],
            holdings.extras,
            {shard: trees[shard].root[1] for shard in roots if shard in trees},
            {shard: trees[shard].nodes() for shard in hours if shard in trees},
            request.until,
            asked,
            self._newest.begin(holdings.generation, request.until),
        )

    def absent(self, ids: Sequence[EntryId], shard: int | None = None) -> list[EntryId]:
        """Those of `ids` that lack here. About 2 µs each, on the event loop.

        What was here and went below a watermark does not: other owners drop it at other moments, and would
        send it for nothing.

        Raises:
            NotReady: some of `shard` lack, and damage took entries of it that are not all back.
        """
        holdings = self._engine.holdings
        lacking = [one for one in ids if holdings.table.find(one) is None]
        if holdings.retention.marks:
            lacking = [one for one in lacking if not self._expired_here(one)]
        if lacking and shard is not None and holdings.holes.within((shard,)):
            raise NotReady(f"damage took entries of shard {shard} here", retry_after_seconds=1)
        return lacking

    def _expired_here(self, entry_id: EntryId) -> bool:
        holdings = self._engine.holdings
        table, number = holdings.table, holdings.table.find_any(entry_id)
        if number is None:
            return False
        row = table.rows[number]
        producer = int(row["producer"])
        service = table.producers.values[producer][2] if producer != NO_PRODUCER else ""
        tenant = table.tenants.values[int(row["tenant"])]
        return holdings.retention.expired(tenant, service, int(row["max_ts"]))


def _affordable(
    trees: Mapping[int, MerkleTree], questions: tuple[Question, ...]
) -> tuple[Question, ...]:
    """The first of the questions, for whose answers at most HASHED_MAX entries must be hashed."""
    hashed = 0
    for at, one in enumerate(questions):
        if one.level is Level.BUCKETS and one.shard in trees:
            hashed += trees[one.shard].count(one.number)
            if at and hashed > HASHED_MAX:
                return questions[:at]
    return questions


def _capped(seen: "Seen") -> Iterator[bytes]:
    size = 0
    for question in seen.questions:
        answer = seen.answer(question)
        size += len(answer)
        yield answer
        if size >= REPLY_BYTES_MAX:
            return


def _key(shard: Any, hour: Any) -> Any:
    """Of ints an int, of arrays an array."""
    return (shard << _HOUR_BITS) + (hour + _HOUR_ZERO)


@dataclass
class Seen:
    """The table and trees as they were when the questions came, and the questions: what to make in one pass.

    `roots`: 16 bytes of sum by shard. `hours`: by shard, hour -> count above 128 bits of sum.
    """

    rows: np.ndarray
    extras: dict[int, Extra]
    roots: dict[int, bytes]
    hours: dict[int, dict[int, int]]
    until: int
    questions: tuple[Question, ...]
    begin: Mark
    mark: Mark | None = None
    #: The hours of shards that were asked for, as they are told.
    _tables: dict[int, np.ndarray] = field(default_factory=dict)

    def answer(self, question: Question) -> bytes:
        """The bytes of one answer."""
        if question.level is Level.ROOTS:
            return self._roots(question)
        if question.level is Level.SPANS:
            return self._spans(question.shard)
        if question.level is Level.HOURS:
            table = self._hour_table(question.shard)
            return table[table["number"] // SPAN_HOURS == question.number].tobytes()
        numbers = self._filed_under(question.shard, question.number)
        if question.level is Level.BUCKETS:
            return self._buckets(numbers)
        return self._listed(numbers, question.mask)

    # -- from the trees, less what is recent ------------------------------------------------------

    @cached_property
    def _recent(self) -> dict[int, tuple[int, int]]:
        """(count, sum) of the recent entries by shard and hour."""
        numbers, self.mark = received_after(self.rows["received"], self.until, self.begin)
        numbers = numbers[(self.rows["flags"][numbers] & GONE) == 0]
        numbers, keys = self._filed(numbers)
        ids, hashes = self._names(numbers)
        return {key: (count, total) for key, count, total in sums(ids, hashes, keys)}

    @cached_property
    def _recent_by_shard(self) -> dict[int, int]:
        totals: dict[int, int] = {}
        for key, (_, total) in self._recent.items():
            shard = key >> _HOUR_BITS
            totals[shard] = totals.get(shard, 0) + total
        return totals

    def _roots(self, question: Question) -> bytes:
        shards, digest = roots_asked(question)
        roots = [self._root(shard) for shard in shards]
        return b"" if roots_digest(roots) == digest else b"".join(roots)

    def _root(self, shard: int) -> bytes:
        total = int.from_bytes(self.roots.get(shard, b""), "big")
        total -= self._recent_by_shard.get(shard, 0)
        return (total & _SUM).to_bytes(SUM_BYTES, "big")

    def _hour_table(self, shard: int) -> np.ndarray:
        """The hours of a shard that hold entries, ascending; made once, however many of its spans differ."""
        if shard in self._tables:
            return self._tables[shard]
        found = []
        for hour, node in sorted(self.hours.get(shard, {}).items()):
            count, total = self._recent.get(_key(shard, hour), (0, 0))
            held = (node >> _COUNT_SHIFT) - count
            if held > 0:
                found.append((hour, held, (node - total) & _LOW))
        table = self._tables[shard] = np.array(found, HOUR_TYPE)
        return table

    def _spans(self, shard: int) -> bytes:
        table = self._hour_table(shard)
        if not len(table):
            return b""
        spans, first = np.unique(table["number"] // SPAN_HOURS, return_index=True)
        answer = np.empty(len(spans), SPAN_TYPE)
        answer["number"], answer["sum"] = spans, np.add.reduceat(table["sum"], first)
        return answer.tobytes()

    # -- from the entries -------------------------------------------------------------------------

    def _filed(self, numbers: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """(numbers, shard-and-hour keys): each entry once for each hour it is filed under."""
        first = self.rows["min_ts"][numbers] // MICROS_PER_HOUR
        last = self.rows["max_ts"][numbers] // MICROS_PER_HOUR
        wide = last - first >= MAX_ENTRY_HOURS
        times = np.where(wide, 1, last - first + 1)
        which = np.repeat(np.arange(len(numbers)), times)
        step = np.arange(len(which)) - np.repeat(np.cumsum(times) - times, times)
        hours = np.where(wide, WIDE_HOUR, first)[which] + step
        shards = self.rows["shard"][numbers].astype(np.int64)[which]
        return numbers[which], _key(shards, hours)

    @cached_property
    def _wanted(self) -> tuple[np.ndarray, np.ndarray]:
        """(keys, numbers) of all entries that any question wants by name, sorted by key. One pass."""
        pairs = [(q.shard, q.number) for q in self.questions if q.level >= Level.BUCKETS]
        wanted = np.unique(np.array([_key(*pair) for pair in pairs], np.int64))
        hours = [hour for _, hour in pairs if hour != WIDE_HOUR] or [0]
        first = self.rows["min_ts"] // MICROS_PER_HOUR
        last = self.rows["max_ts"] // MICROS_PER_HOUR
        near = (first <= max(hours)) & (last >= min(hours)) | (last - first >= MAX_ENTRY_HOURS)
        numbers = np.flatnonzero(near)
        rows = self.rows[numbers]
        received = rows["received"]
        settled = (received <= self.until) | (received > self.until + RECENT_MICROS)
        numbers = numbers[settled & ((rows["flags"] & GONE) == 0)]
        numbers, keys = self._filed(numbers)
        hit = np.isin(keys, wanted)
        numbers, keys = numbers[hit], keys[hit]
        order = np.argsort(keys, kind="stable")
        return keys[order], numbers[order]

    def _filed_under(self, shard: int, hour: int) -> np.ndarray:
        keys, numbers = self._wanted
        key = _key(shard, hour)
        low, high = np.searchsorted(keys, [key, key + 1])
        return numbers[low:high]

    def _names(self, numbers: np.ndarray) -> tuple[list[bytes], list[bytes]]:
        """(ids, content hashes) of entries."""
        chosen = self.rows[["id", "hash", "flags"]][numbers]
        ids, hashes = cells_of(chosen["id"]), cells_of(chosen["hash"])
        for at in np.flatnonzero(chosen["flags"] & COMPLEX).tolist():
            extra = self.extras.get(int(numbers[at]))
            hashes[at] = extra[0] if extra else hashes[at]
        return ids, hashes

    def _buckets(self, numbers: np.ndarray) -> bytes:
        ids, hashes = self._names(numbers)
        first = np.array([one[0] for one in ids], np.int64)
        answer = np.zeros(BUCKETS, "<u8")
        for bucket, _, total in sums(ids, hashes, first):
            answer[bucket] = total & _LOW
        return answer.tobytes()

    def _listed(self, numbers: np.ndarray, mask: bytes) -> bytes:
        chosen = self.rows[["id", "block"]][numbers]
        if mask:
            ids = np.frombuffer(np.ascontiguousarray(chosen["id"]).tobytes(), np.uint8)
            chosen = chosen[np.isin(ids.reshape(-1, SUM_BYTES)[:, 0], numbers_of(mask))]
        answer = np.empty(len(chosen), LISTED_TYPE)
        answer["id"], answer["block"] = chosen["id"], chosen["block"]
        return answer.tobytes()
