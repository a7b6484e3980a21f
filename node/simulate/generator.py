"""Requests drawn from a seed, as columns. No loop over rows: about a microsecond a row.

Invariant: `Shop(seed, …)` yields the same rows in the same order whatever is taken at once, since
requests are always drawn `CHUNK_REQUESTS` at a time. Rows ascend by time within a chunk; where two
chunks meet, rows of overlapping requests may be late by the length of a request, as in real life.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as arrow_compute

from node.simulate.shop import AGENTS, FLOWS, HOSTS_PER_SERVICE, KINDS, REGIONS, SERVICES
from node.simulate.variants import ERROR_SHARE, LEVELS, WARN_SHARE, Tables, tables

pc: Any = arrow_compute  # its functions are made at import, unseen by type checkers

#: Requests drawn at once: about 30,000 rows.
CHUNK_REQUESTS = 4096
#: Mean time between two rows of one request, in microseconds.
STEP_MICROS = 8_000
USERS = 20_000
#: In burst mode this part of each minute runs at four times the mean rate, the rest at 0.4 times.
BURST_SECONDS = 10.0
#: Spreads user numbers over 64 bits (an odd constant of Steele and Vigna, 2021).
_SESSION_MIX = np.uint64(0xD1342543DE82EF95)
_HEX = np.frombuffer("".join(f"{i:02x}" for i in range(256)).encode(), dtype="S2")


@dataclass(frozen=True, slots=True)
class Requests:
    """One chunk of requests; parallel arrays."""

    start: np.ndarray
    variant: np.ndarray
    user: np.ndarray
    numbers: np.ndarray
    trace: pa.Array
    step: np.ndarray
    span_base: np.ndarray


def hex_strings(data: np.ndarray) -> pa.Array:
    """Each row of a uint8 matrix as lower-case hex text."""
    rows, width = data.shape
    text = _HEX[data].reshape(rows, width).tobytes()
    offsets = pa.py_buffer(np.arange(rows + 1, dtype=np.int32) * (2 * width))
    return pa.StringArray.from_buffers(rows, offsets, pa.py_buffer(text))


def digits(values: np.ndarray) -> pa.Array:
    """Integers as text."""
    return pc.cast(pa.array(values), pa.string())


class Shop:
    """An endless stream of requests from `start_micros` on, at a mean of `rows_per_second`."""

    def __init__(
        self, seed: int, start_micros: int, rows_per_second: float = 1000.0, burst: bool = False
    ) -> None:
        self._tables = tables()
        self._rng = np.random.default_rng(seed)
        self._start = start_micros
        self._elapsed = 0.0
        self._gap = self._tables.rows_per_request / rows_per_second
        self._burst = burst
        self._orders = 100_000

    def chunks(self) -> Iterator[pa.Table]:
        """Rows, ordered by time, one table a chunk; see `rows_of` for the columns."""
        while True:
            yield rows_of(self._draw(), self._tables, self._rng)

    def access(self) -> Iterator[pa.Table]:
        """The gateway's access log, one row a request; see `access_of`."""
        while True:
            yield access_of(self._draw(), self._tables, self._rng)

    def _times(self, count: int) -> np.ndarray:
        gaps = self._rng.exponential(self._gap, count)
        at = self._elapsed + np.cumsum(gaps)
        self._elapsed = float(at[-1])
        if self._burst:
            minute, rest = np.divmod(at, 60.0)
            crowded = BURST_SECONDS * 4
            at = minute * 60 + np.interp(rest, [0, crowded, 60], [0, BURST_SECONDS, 60])
        return self._start + (at * 1e6).astype(np.int64)

    def _draw(self) -> Requests:
        table, rng, count = self._tables, self._rng, CHUNK_REQUESTS
        whole = table.weight * ~table.failed
        broken = table.weight * table.failed
        share = table.fail_share
        odds = (1 - share) * whole / whole.sum() + share * broken / broken.sum()
        variant = rng.choice(len(odds), count, p=odds)
        # squaring makes some users far busier than others
        user = (rng.random(count) ** 2 * USERS).astype(np.int64) + 1
        numbers = np.zeros((len(KINDS), count), np.int64)
        numbers[KINDS.index("order")] = self._orders + np.arange(count)
        numbers[KINDS.index("user")] = user
        numbers[KINDS.index("amount")] = rng.integers(4, 900, count)
        numbers[KINDS.index("sku")] = rng.integers(1000, 9999, count)
        self._orders += count
        return Requests(
            start=self._times(count),
            variant=variant,
            user=user,
            numbers=numbers,
            trace=hex_strings(rng.integers(0, 256, (count, 16), np.uint8)),
            step=rng.exponential(STEP_MICROS, count) + 200,
            span_base=rng.integers(0, 1 << 62, count, np.uint64),
        )


def _messages(table: Tables, text: np.ndarray, numbers: np.ndarray) -> pa.Array:
    """The text of each row with its numbers filled in; `numbers` is (kind, row)."""
    rows = np.arange(len(text))

    def number(kind: np.ndarray) -> pa.Array:
        values = digits(numbers[np.maximum(kind, 0), rows])
        return pc.if_else(pa.array(kind >= 0), values, "")

    def part(parts: tuple[str, ...]) -> pa.Array:
        return pc.take(pa.array(parts), pa.array(text))

    return pc.binary_join_element_wise(
        part(table.heads),
        number(table.kind_a[text]),
        part(table.middles),
        number(table.kind_b[text]),
        part(table.tails),
        "",
    )


def _span_ids(base: np.ndarray, span: np.ndarray) -> pa.Array:
    """16 hex digits from the request's random base and the span's place in the flow."""
    mixed = (base + (span.astype(np.uint64) + np.uint64(1)) * np.uint64(0x9E3779B97F4A7C15)) | 1
    return hex_strings(mixed.astype(">u8").view(np.uint8).reshape(-1, 8))


def rows_of(requests: Requests, table: Tables, rng: np.random.Generator) -> pa.Table:
    """The rows of a chunk ordered by time.

    Columns: timestamp (int64 micros), service, level, message, trace_id, span_id, parent_id (null at
    the root), user_id, session_id, operation, host, region, duration_ms, status (null inside).
    """
    length = table.length[requests.variant]
    owner = np.repeat(np.arange(len(length)), length)
    place = np.arange(len(owner)) - np.repeat(np.cumsum(length) - length, length)
    slot = table.first[requests.variant][owner] + place
    count = len(owner)
    moment = (place + rng.random(count)) * requests.step[owner]
    timestamp = requests.start[owner] + moment.astype(np.int64)
    level, text = table.level[slot].copy(), table.text[slot].copy()
    warns = (level < LEVELS.index("warn")) & (rng.random(count) < WARN_SHARE / (1 - ERROR_SHARE))
    level[warns] = LEVELS.index("warn")
    text[warns] = rng.choice(table.warnings, int(warns.sum()))
    numbers = requests.numbers[:, owner]
    duration = (rng.lognormal(3.0, 1.0, count) + warns * 250).astype(np.int64) + 1
    numbers[KINDS.index("ms")] = duration
    numbers[KINDS.index("n")] = rng.integers(1, 120, count)

    order = np.argsort(timestamp, kind="stable")
    owner, slot, text, level = owner[order], slot[order], text[order], level[order]
    service, span, parent = table.service[slot], table.span[slot], table.parent[slot]
    last = place[order] == length[owner] - 1
    user = requests.user[owner]
    machine = (requests.span_base[owner] % np.uint64(HOSTS_PER_SERVICE)).astype(np.int64)
    hosts = [f"{name}-{i}" for name in SERVICES for i in range(HOSTS_PER_SERVICE)]
    failed = table.failed[requests.variant][owner]
    base = requests.span_base[owner]
    parents = pc.if_else(
        pa.array(parent >= 0), _span_ids(base, parent), pa.scalar(None, pa.string())
    )

    def named(names: tuple[str, ...] | list[str], codes: np.ndarray) -> pa.Array:
        return pc.take(pa.array(names), pa.array(codes))

    return pa.table(
        {
            "timestamp": timestamp[order],
            "service": named(SERVICES, service),
            "level": named(LEVELS, level),
            "message": _messages(table, text, numbers[:, order]),
            "trace_id": pc.take(requests.trace, pa.array(owner)),
            "span_id": _span_ids(base, span),
            "parent_id": parents,
            "user_id": pc.binary_join_element_wise("u-", digits(user), ""),
            "session_id": _span_ids(user.astype(np.uint64) * _SESSION_MIX, span * 0),
            "operation": named(table.operations, table.operation[slot]),
            "host": named(hosts, service * HOSTS_PER_SERVICE + machine),
            "region": named(REGIONS, user % len(REGIONS)),
            "duration_ms": duration[order],
            "status": pa.array(np.where(failed, 500, 200), mask=~last),
        }
    )


def access_of(requests: Requests, table: Tables, rng: np.random.Generator) -> pa.Table:
    """One row a request. Columns: timestamp, ip, user_id, method, path, status, bytes, referer, agent."""
    flow, failed = table.flow[requests.variant], table.failed[requests.variant]
    count = len(flow)
    missing = ~failed & (rng.random(count) < WARN_SHARE)
    status = np.where(failed, 500, np.where(missing, 404, 200))
    user = requests.user
    ip = pc.binary_join_element_wise(
        "10", digits(user >> 12), digits((user >> 6) & 63), digits(user & 63), "."
    )
    paths = [flow.path for flow in FLOWS]
    sku = requests.numbers[KINDS.index("sku")]
    path = pc.binary_join_element_wise(pc.take(pa.array(paths), pa.array(flow)), digits(sku), "/")
    return pa.table(
        {
            "timestamp": requests.start,
            "ip": ip,
            "user_id": pc.binary_join_element_wise("u-", digits(user), ""),
            "method": pc.take(pa.array([flow.method for flow in FLOWS]), pa.array(flow)),
            "path": path,
            "status": status,
            "bytes": rng.integers(200, 60_000, count),
            "referer": pc.take(pa.array(["-", "https://shop.example/"]), pa.array(user & 1)),
            "agent": pc.take(pa.array(AGENTS), pa.array(user % len(AGENTS))),
        }
    )
