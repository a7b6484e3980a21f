"""Questions about a replica's Merkle trees, and their answers as bytes: what anti-entropy puts on the wire.
Pure.

    ROOTS     mask = shards, then the asker's digest    nothing if equal; else 16 bytes of sum for each shard
    SPANS     shard                                     (span of 64 hours, sum) for each that holds entries
    HOURS     shard, number = span                      (hour, count, sum) for each that holds entries
    BUCKETS   shard, number = hour                      256 sums, by the first byte of the entry id
    ENTRIES   shard, number = hour, mask = buckets      (entry id, ordinal of its block at the answerer)

Below the root a sum is cut to its low 64 bits: two different sets look alike there once in 2^64, and the
root, which is whole, still differs. All answers of one request are about the same set: the entries that
were received by `until` (`settled`). Newer ones may still be on their way to a replica, which is no
difference worth a word; those that claim to come from later than RECENT_MICROS after it have a wrong clock,
and count.
"""

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import IntEnum
from typing import Any

import numpy as np

from records.errors import InvalidRequest
from records.timestamps import MAX_MICROS, MIN_MICROS

#: Hours of a span. A year is 137 spans of 16 bytes, a span at most 64 hours of 20.
SPAN_HOURS = 64
BUCKETS = 256
SUM_BYTES = 16
#: Entries received in this much time after `until` are left out of a comparison.
RECENT_MICROS = 60_000_000
#: Questions in one request, about 25 bytes each.
QUESTIONS_MAX = 16_384
_SHARDS_MAX = 1 << 16
_NUMBER_MAX = 1 << 41
_MASK_BYTES_MAX = SUM_BYTES + _SHARDS_MAX // 8

SPAN_TYPE = np.dtype([("number", "<i8"), ("sum", "<u8")])
HOUR_TYPE = np.dtype([("number", "<i8"), ("count", "<u4"), ("sum", "<u8")])
BUCKET_TYPE = np.dtype("<u8")
LISTED_TYPE = np.dtype([("id", "V16"), ("block", "<u4")])


class Level(IntEnum):
    """What a question is about, from the top of the tree to its leaves."""

    ROOTS = 0
    SPANS = 1
    HOURS = 2
    BUCKETS = 3
    ENTRIES = 4


@dataclass(frozen=True, slots=True)
class Question:
    """One node of a tree, or of all trees (ROOTS). An empty mask of ENTRIES means all buckets."""

    level: Level
    shard: int = 0
    number: int = 0
    mask: bytes = b""


@dataclass(frozen=True, slots=True)
class TreeRequest:
    """Questions about the entries received by `until` (microseconds). An older ring than known is refused."""

    questions: tuple[Question, ...]
    until: int
    ring_epoch: int

    def to_head(self) -> dict[str, Any]:
        """Plain values, with short names: a pair in sync exchanges little else."""
        listed = [[int(q.level), q.shard, q.number, q.mask] for q in self.questions]
        return {"q": listed, "t": self.until, "e": self.ring_epoch}

    @classmethod
    def from_head(cls, head: dict[str, Any]) -> "TreeRequest":
        """The inverse.

        Raises:
            InvalidRequest: these are no such values, or numbers that nothing has.
        """
        try:
            listed, until, ring_epoch = head["q"], head["t"], head["e"]
            if type(until) is not int or type(ring_epoch) is not int or len(listed) > QUESTIONS_MAX:
                raise ValueError("too many questions, or no numbers")
            if not MIN_MICROS <= until <= MAX_MICROS:
                raise ValueError(f"{until} is no time")
            return cls(tuple(_question(*one) for one in listed), until, ring_epoch)
        except (TypeError, ValueError, KeyError) as error:
            raise InvalidRequest(f"no question about trees: {error!r}") from error


def _question(level: Any, shard: Any, number: Any, mask: Any) -> Question:
    """A question as it came.

    Raises:
        ValueError: a value out of its bounds.
    """
    if type(shard) is not int or type(number) is not int or type(mask) is not bytes:
        raise ValueError("a value of another type")
    if not (0 <= shard < _SHARDS_MAX and -_NUMBER_MAX < number < _NUMBER_MAX):
        raise ValueError(f"shard {shard}, number {number}")
    if len(mask) > _MASK_BYTES_MAX:
        raise ValueError(f"a mask of {len(mask)} bytes")
    return Question(Level(level), shard, number, mask)


def bits(numbers: Iterable[int]) -> bytes:
    """A bitmap: bit n % 8 of byte n // 8 is set for each number; no longer than needed."""
    value = 0
    for number in numbers:
        value |= 1 << number
    return value.to_bytes((value.bit_length() + 7) // 8, "little")


def numbers_of(mask: bytes) -> list[int]:
    """The numbers in a bitmap, ascending."""
    flags = np.unpackbits(np.frombuffer(mask, np.uint8), bitorder="little")
    return np.flatnonzero(flags).tolist()


def roots_digest(roots: Sequence[bytes]) -> bytes:
    """One digest of the sums of all shards in question."""
    return hashlib.sha256(b"".join(roots)).digest()[:SUM_BYTES]


def roots_question(shards: Sequence[int], digest: bytes) -> Question:
    """Whether the other's roots of `shards` make `digest`; if not, the roots."""
    return Question(Level.ROOTS, mask=digest + bits(shards))


def roots_asked(question: Question) -> tuple[list[int], bytes]:
    """(shards, digest) of a ROOTS question."""
    return numbers_of(question.mask[SUM_BYTES:]), question.mask[:SUM_BYTES]
