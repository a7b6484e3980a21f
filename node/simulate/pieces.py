"""The shop's lines as pieces of bytes, all at once or as they happen."""

import time
from collections.abc import Iterator

import numpy as np
import pyarrow as pa

from node.simulate.formats import CSV_HEADER, LINES, to_bytes
from node.simulate.generator import Shop
from runtime.clock import Clock


def tables(
    seed: int,
    start_micros: int,
    rows_per_second: float,
    burst: bool,
    kind: str,
    rows: int | None,
) -> Iterator[pa.Table]:
    """At most `rows` rows (None: no end), a chunk at a time; of the access log if `kind` is clf."""
    shop = Shop(seed, start_micros, rows_per_second, burst)
    left = rows
    for chunk in shop.access() if kind == "clf" else shop.chunks():
        if left is None:
            yield chunk
            continue
        yield chunk.slice(0, left)
        left -= chunk.num_rows
        if left <= 0:
            return


def unpaced(*, kind: str, **make: object) -> Iterator[bytes]:
    """The lines as fast as they can be made, CSV with its header."""
    if kind == "csv":
        yield CSV_HEADER
    for table in tables(kind=kind, **make):  # pyright: ignore[reportArgumentType]
        yield to_bytes(LINES[kind](table))


def paced(clock: Clock, tick_seconds: float, *, kind: str, **make: object) -> Iterator[bytes]:
    """The lines of each tick when their time has come; rows of the past come at once."""
    if kind == "csv":
        yield CSV_HEADER
    for table in due(tables(kind=kind, **make), clock):  # pyright: ignore[reportArgumentType]
        if table is None:
            time.sleep(tick_seconds)
        else:
            yield to_bytes(LINES[kind](table))


def due(chunks: Iterator[pa.Table], clock: Clock) -> Iterator[pa.Table | None]:
    """Slices of `chunks` whose rows' time has come; None when the caller should wait a tick."""
    for chunk in chunks:
        times = chunk["timestamp"].to_numpy()
        done = 0
        while done < len(times):
            until = int(np.searchsorted(times, clock.wall_micros(), side="right"))
            if until <= done:
                yield None
                continue
            yield chunk.slice(done, until - done)
            done = until
