"""From a body of JSON lines to a batch, with the native kernel and without: CPU of one thread.

`python -m bench.parse` prints microseconds a row; `compare` is what it measures. Both ways take the same
bodies in turn in one process, and their tables are compared first.
"""

import time
from collections.abc import Iterator
from contextlib import nullcontext
from typing import Any

from bench.corpus import bodies
from bench.measure import spread
from ingestor.batch import Batch, Identity
from ingestor.enrich import EnrichSettings
from ingestor.intake import Intake, Source
from ingestor.limits import Limits
from ingestor.options import Options
from ingestor.parsers import native
from ingestor.parsers.detect import Format

_SOURCE = Source("bench", "/logs", Options(), 1_767_225_600_000_000)
_IDENTITY = Identity(b"bench", b"bench")


def compare(
    kind: str, batch_rows: int = 20_000, batches: int = 3, rounds: int = 15
) -> dict[str, Any]:
    """Microseconds of CPU a row of `kind` (slim, rich): {way: {median, min, max}}, and the bytes a row.

    Ways: `python`, `native` (if the kernel is there), and `copy`: the same bytes copied, as a measure of
    the machine.
    """
    data = [body.json for body in bodies(kind, 42, batch_rows * batches, batch_rows)]
    rows = batch_rows * batches
    ways = ["python", "native"] if native.available() else ["python"]
    made = {way: [batch.table for batch in _batches(way, data)] for way in ways}
    if any(made[way] != made["python"] for way in ways):
        raise AssertionError("the kernel and the Python path made different batches")
    costs: dict[str, list[float]] = {way: [] for way in (*ways, "copy")}
    for _ in range(rounds):
        for way, found in costs.items():
            begin = time.process_time()
            for _ in (bytearray(body) for body in data) if way == "copy" else _batches(way, data):
                pass
            found.append((time.process_time() - begin) / rows * 1e6)
    return {"bytes": sum(map(len, data)) / rows, **{way: spread(costs[way]) for way in costs}}


_INTAKES = {way: Intake(Limits(), EnrichSettings()) for way in ("python", "native")}


def _batches(way: str, data: list[bytes]) -> Iterator[Batch]:
    with native.switched_off() if way == "python" else nullcontext():
        for body in data:
            yield _INTAKES[way].batch(body, Format.LINES, _SOURCE, _IDENTITY)


def main() -> None:
    """Prints the costs of both kinds of rows."""
    print(f"native kernel: {native.described()}")
    for kind in ("slim", "rich"):
        for way, cost in compare(kind).items():
            if isinstance(cost, dict):
                low, high = cost["min"], cost["max"]
                print(f"{kind} {way:7} {cost['median']:.3f} us/row ({low:.3f} … {high:.3f})")


if __name__ == "__main__":
    main()
