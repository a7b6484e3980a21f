"""Pieces of the shop's lines: exact numbers of rows, and rows only when their time has come."""

import pyarrow as pa

from node.simulate.pieces import due, tables, unpaced


class FakeClock:
    """A wall clock that is set by hand."""

    def __init__(self, micros: int) -> None:
        self.micros = micros

    def wall_micros(self) -> int:
        """The time set."""
        return self.micros


def make(**options: object) -> dict[str, object]:
    """What a stream needs to know."""
    base = {"seed": 1, "start_micros": 0, "rows_per_second": 1000.0, "burst": False, "rows": None}
    return {**base, **options}


def test_exactly_the_rows_asked_for() -> None:
    """Also when they end inside a chunk, and in any format."""
    for kind, extra in (("json", 0), ("plain", 0), ("csv", 1), ("clf", 0)):
        data = b"".join(unpaced(kind=kind, **make(rows=30_123)))
        assert data.count(b"\n") == 30_123 + extra


def test_a_shorter_run_is_the_beginning_of_a_longer_one() -> None:
    """The number of rows does not change the rows."""
    short, long = (b"".join(unpaced(kind="json", **make(rows=rows))) for rows in (500, 25_000))

    assert long.startswith(short)


def test_rows_come_when_their_time_has_come() -> None:
    """Nothing before; then exactly those up to the clock; None means: wait."""
    clock = FakeClock(-1)
    chunks = tables(kind="json", **make())  # type: ignore[arg-type]
    stream = due(chunks, clock)  # type: ignore[arg-type]

    assert next(stream) is None
    clock.micros = 2_000_000
    found = next(stream)

    assert isinstance(found, pa.Table)
    assert max(found["timestamp"].to_pylist()) <= 2_000_000
    assert next(stream) is None
