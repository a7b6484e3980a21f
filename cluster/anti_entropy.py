"""AntiEntropySession: what another replica has and we lack, named by descending two trees. Pure.

    session = AntiEntropySession(shards, our_roots)
    while asked := session.next():
        theirs = ... what the other answers to `asked`       (records.sync)
        ours   = ... what we answer to as many of them
        session.take(asked, ours, theirs)
    session.lacking                                            entry id -> shard, block at the other

It only looks one way: for what we lack. The other runs sessions of its own, so that each difference is
healed by who suffers from it, and a node that was away needs nobody to notice that it is back.

All shards go down together, a level a round trip: roots, spans, hours, buckets, entries; hours with few
entries skip the buckets. So five round trips name everything, as long as it is at most QUESTIONS_MAX nodes
a level and `limit` entries; beyond that the session ends with `more`, and after the repair another one goes
on: where something was repaired, the trees no longer differ. Absence is looked up in the caller's own table
afterwards, and once more after a pause: an answer may be out of date when it arrives.

Sources: DeCandia et al., "Dynamo", section 4.7; reliability figures G12 to G14.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from records.errors import EnvelopeCorrupt
from records.ids import EntryId
from records.sync import (
    BUCKET_TYPE,
    BUCKETS,
    HOUR_TYPE,
    LISTED_TYPE,
    QUESTIONS_MAX,
    SPAN_TYPE,
    SUM_BYTES,
    Level,
    Question,
    bits,
    roots_digest,
    roots_question,
)

#: Entries after which a session ends; at most a reply more are named. The next session goes on.
LACKING_MAX = 50_000
#: Entries of an hour that are listed at once: cheaper than 256 sums and then a list.
SMALL_HOUR = 100
#: Entries of an hour beyond which its buckets are listed one by one, so that an answer stays small.
LARGE_HOUR = 100_000


@dataclass(frozen=True, slots=True)
class Lacking:
    """Where an entry is that we lack: its shard, and the ordinal of its block at the other."""

    shard: int
    block: int


class AntiEntropySession:
    """One descent. `next` is what to ask, `take` what came back."""

    def __init__(self, shards: Sequence[int], roots: bytes, limit: int = LACKING_MAX) -> None:
        """`roots`: our own sums of `shards`, 16 bytes each, in ascending order of the shards."""
        self.shards = tuple(sorted(shards))
        self._roots = _root_list(roots, len(self.shards))
        self._limit = limit
        self._waiting: list[Question] = [roots_question(self.shards, roots_digest(self._roots))]
        #: What they have and our answers lacked.
        self.lacking: dict[EntryId, Lacking] = {}
        #: Shards whose roots differ.
        self.differing: set[int] = set()
        #: Names of the buckets and hours that hold the same ids with other contents: nothing to copy. Or what
        #: lacked came between two questions: a conflict is what two sessions find by the same name.
        self.conflicting: set[bytes] = set()
        #: Entries that we have and they lack, as far as it was seen.
        self.surplus = 0
        self.rounds = 0

    @property
    def more(self) -> bool:
        """Whether the session ended before it had seen everything."""
        return bool(self._waiting) and len(self.lacking) >= self._limit

    @property
    def equal(self) -> bool:
        """Whether the roots were equal."""
        return self.rounds > 0 and not self.differing

    def next(self) -> tuple[Question, ...]:
        """What to ask now, deepest first; nothing when the session is over."""
        if len(self.lacking) >= self._limit:
            return ()
        self._waiting.sort(key=lambda one: (-one.level, one.shard, one.number))
        return tuple(self._waiting[:QUESTIONS_MAX])

    def take(
        self, asked: Sequence[Question], ours: Sequence[bytes], theirs: Sequence[bytes]
    ) -> None:
        """Answers to the first of `asked`, in order; what was left unanswered is asked again.

        Raises:
            EnvelopeCorrupt: no answers, or one that no replica gives.
        """
        if not theirs or len(theirs) > len(asked) or len(ours) != len(theirs):
            raise EnvelopeCorrupt(f"{len(theirs)} answers to {len(asked)} questions")
        self.rounds += 1
        answered = list(zip(asked, ours, theirs, strict=False))
        done = {question for question, _, _ in answered}
        self._waiting = [one for one in self._waiting if one not in done]
        for question, mine, other in answered:
            self._waiting += self._follow(question, mine, other)

    def _follow(self, question: Question, mine: bytes, other: bytes) -> list[Question]:
        """The questions that a pair of answers leads to."""
        if question.level is Level.ROOTS:
            return self._below_roots(other)
        if question.level is Level.SPANS:
            return self._below_spans(question.shard, mine, other)
        if question.level is Level.HOURS:
            return self._below_hours(question.shard, mine, other)
        if question.level is Level.BUCKETS:
            return self._below_buckets(question, mine, other)
        self._compare(question.shard, mine, other)
        return []

    def _below_roots(self, other: bytes) -> list[Question]:
        if not other:
            return []
        theirs = _root_list(other, len(self.shards))
        pairs = zip(self.shards, self._roots, theirs, strict=True)
        self.differing = {shard for shard, mine, root in pairs if mine != root}
        return [Question(Level.SPANS, shard) for shard in sorted(self.differing)]

    @staticmethod
    def _below_spans(shard: int, mine: bytes, other: bytes) -> list[Question]:
        found = _differing(_array(mine, SPAN_TYPE), _array(other, SPAN_TYPE))
        return [Question(Level.HOURS, shard, number) for number in found["number"].tolist()]

    def _below_hours(self, shard: int, mine: bytes, other: bytes) -> list[Question]:
        ours = _array(mine, HOUR_TYPE)
        held = set(ours["number"].tolist())
        questions: list[Question] = []
        for hour, count, _ in _differing(ours, _array(other, HOUR_TYPE)).tolist():
            if count <= SMALL_HOUR or (hour not in held and count <= LARGE_HOUR):
                questions.append(Question(Level.ENTRIES, shard, hour))
            else:
                questions.append(Question(Level.BUCKETS, shard, hour))
        return questions

    @staticmethod
    def _below_buckets(question: Question, mine: bytes, other: bytes) -> list[Question]:
        ours, theirs = _array(mine, BUCKET_TYPE), _array(other, BUCKET_TYPE)
        if len(ours) != BUCKETS or len(theirs) != BUCKETS:
            raise EnvelopeCorrupt(f"{len(theirs)} buckets instead of {BUCKETS}")
        found = np.flatnonzero((ours != theirs) & (theirs != 0)).tolist()
        # An answer lists whole buckets: a few at a time of an hour that is full of entries.
        step = BUCKETS if len(found) < BUCKETS // 8 else BUCKETS // 8
        masks = [bits(found[at : at + step]) for at in range(0, len(found), step)]
        return [Question(Level.ENTRIES, question.shard, question.number, one) for one in masks]

    def _compare(self, shard: int, mine: bytes, other: bytes) -> None:
        ours, theirs = _array(mine, LISTED_TYPE), _array(other, LISTED_TYPE)
        held = set(_ids(ours))
        named = _ids(theirs)
        lacking = 0
        for entry_id, block in zip(named, theirs["block"].tolist(), strict=True):
            if entry_id not in held:
                self.lacking.setdefault(EntryId(entry_id), Lacking(shard, block))
                lacking += 1
        surplus = len(held.difference(named))
        self.surplus += surplus
        if named and not lacking and not surplus:
            self.conflicting.add(_name_of(shard, named))


def _name_of(shard: int, ids: list[bytes]) -> bytes:
    """A name for some entries of a shard, in no order."""
    return hashlib.sha256(b"".join([shard.to_bytes(2, "big"), *sorted(ids)])).digest()[:SUM_BYTES]


def _root_list(roots: bytes, count: int) -> list[bytes]:
    if len(roots) != count * SUM_BYTES:
        raise EnvelopeCorrupt(f"{len(roots)} bytes of roots of {count} shards")
    return [roots[at : at + SUM_BYTES] for at in range(0, len(roots), SUM_BYTES)]


def _array(data: bytes, kind: np.dtype) -> np.ndarray:
    if len(data) % kind.itemsize:
        raise EnvelopeCorrupt(f"{len(data)} bytes are no answer of {kind.itemsize} bytes each")
    return np.frombuffer(data, kind)


def _differing(ours: np.ndarray, theirs: np.ndarray) -> np.ndarray:
    """Those of `theirs` whose number ours lacks, or has with another sum."""
    known = dict(zip(ours["number"].tolist(), ours["sum"].tolist(), strict=True))
    found = [
        at
        for at, (number, total) in enumerate(
            zip(theirs["number"].tolist(), theirs["sum"].tolist(), strict=True)
        )
        if known.get(number) != total
    ]
    return theirs[found]


def _ids(listed: np.ndarray) -> list[bytes]:
    data = np.ascontiguousarray(listed["id"]).tobytes()
    return [data[at : at + SUM_BYTES] for at in range(0, len(data), SUM_BYTES)]
