"""Rows by the hundred thousand, regenerated in columns from (seed, client, numbers). Pure.

What `corpus` is for a row, in whole columns and in a few milliseconds for 10,000 of them. What is read back
is compared with what must have been sent, value by value in each column, so no digest can hide a difference.

Times rise with the number's group and are by lot within it, in few slots: a range of times is a range of
groups, and many rows have equal times, so that their order is put to the test.

Source: `corpus`; splitmix64 (Steele, Lea, Flood, "Fast splittable pseudorandom number generators", 2014).
"""

import hashlib
from dataclasses import dataclass
from typing import Any

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.compute

from chaos.corpus import LEVELS, SPREAD_MICROS, WORDS

pc: Any = pyarrow.compute
#: Rows with neighbouring numbers whose times lie in one step.
GROUP_ROWS = 5_000
#: Microseconds of a group's step: 27 million rows of a client lie before the start of the run.
STEP_MICROS = 2_000_000
#: Different times within a step.
SLOTS = 1_000
TIME = pa.timestamp("us", "UTC")
#: What a client sends and a reader must get back.
FIELDS = (
    "timestamp", "service", "level", "message", "chaos_client", "chaos_number", "chaos_big",
    "chaos_ratio", "chaos_text",
)  # fmt: skip
_LEVELS, _WORDS = pa.array(LEVELS), pa.array(WORDS)
_TEXTS = pa.array([f"{'x' * size}{word}|" for size in (0, 9, 40, 119) for word in WORDS])


@dataclass(frozen=True, slots=True)
class BulkCorpus:
    """The bulk rows of one run. `start_micros`: when it began, microseconds since 1970."""

    seed: int
    start_micros: int

    def table(self, client: str, numbers: np.ndarray, service: str) -> pa.Table:
        """The rows with these numbers (int64, from 1 on), in this order; columns FIELDS."""
        bits = _mixed(numbers.astype(np.uint64) + self._salt(client))
        count = len(numbers)
        times = self.time_of(numbers) + (bits % SLOTS).astype(np.int64) * (STEP_MICROS // SLOTS)
        head = pc.binary_join_element_wise(
            "chaos", pa.array(numbers).cast(pa.string()), "of", client, " "
        )
        message = pc.binary_join_element_wise(
            head, _WORDS.take(_index(bits >> 10, len(WORDS))),
            _WORDS.take(_index(bits >> 20, len(WORDS))), "; ",
        )  # fmt: skip
        columns = (
            pa.array(times).cast(TIME),
            pa.repeat(service, count),
            _LEVELS.take(_index(bits >> 30, len(LEVELS))),
            message,
            pa.repeat(client, count),
            pa.array(numbers),
            pa.array((bits >> 2).astype(np.int64)),
            pa.array(((bits >> 11).astype(np.float64) + 0.5) / float(1 << 53)),
            _TEXTS.take(_index(bits >> 40, len(_TEXTS))),
        )
        return pa.Table.from_arrays(list(columns), names=list(FIELDS))

    def time_of(self, numbers: np.ndarray) -> np.ndarray:
        """The first moment of each number's group, microseconds since 1970."""
        return self.start_micros - SPREAD_MICROS + (numbers - 1) // GROUP_ROWS * STEP_MICROS

    def altered(self, found: pa.Table, client: str, service: str) -> np.ndarray:
        """Which rows are not what was sent under their numbers, as a mask.

        `found`: rows that say they are this client's, with non-null integers in `chaos_number`.
        """
        numbers = found["chaos_number"].cast(pa.int64()).to_numpy()
        expected = self.table(client, numbers, service)
        wrong = np.zeros(len(numbers), bool)
        for name in FIELDS:
            wrong |= ~_equal(found, expected, name)
        return wrong

    def _salt(self, client: str) -> np.uint64:
        text = f"{self.seed}:{client}".encode()
        return np.frombuffer(hashlib.blake2b(text, digest_size=8).digest(), np.uint64)[0]


def ndjson(table: pa.Table) -> bytes:
    """The rows as JSON lines; times as microseconds."""
    position = table.schema.get_field_index("timestamp")
    micros = table["timestamp"].cast(pa.int64())
    frame: Any = pl.from_arrow(table.set_column(position, "timestamp", micros))
    return frame.write_ndjson().encode()


def arrow_stream(table: pa.Table) -> bytes:
    """The rows as an Arrow IPC stream."""
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    return sink.getvalue().to_pybytes()


def _mixed(bits: np.ndarray) -> np.ndarray:
    """splitmix64 of each value."""
    bits = bits * np.uint64(0x9E3779B97F4A7C15)
    bits = (bits ^ (bits >> 30)) * np.uint64(0xBF58476D1CE4E5B9)
    bits = (bits ^ (bits >> 27)) * np.uint64(0x94D049BB133111EB)
    return bits ^ (bits >> 31)


def _index(bits: np.ndarray, count: int) -> pa.Array:
    return pa.array((bits % count).astype(np.int32))


def _equal(found: pa.Table, expected: pa.Table, name: str) -> np.ndarray:
    """Where a column has the expected values; nowhere, if it is not there or of no such type."""
    nowhere = np.zeros(len(found), bool)
    if name not in found.column_names:
        return nowhere
    column, sent = found[name], expected[name]
    if pa.types.is_dictionary(column.type):
        column = column.cast(column.type.value_type)
    if _family(column.type) != _family(sent.type):
        return nowhere
    same = pc.fill_null(pc.equal(column.cast(sent.type), sent), False)
    return same.to_numpy()


def _family(kind: pa.DataType) -> str:
    """Types between which nothing is lost, by one word."""
    if pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind):
        return "text"
    return "time" if pa.types.is_timestamp(kind) else str(kind)
