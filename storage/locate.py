"""Where one row lies that is known by its name, (run, number). The look-up is pure; reading runs on a worker.

Of several copies the one that counts is told: that of the entry received first (records.visibility).
"""

from collections.abc import Iterator

import pyarrow as pa

from records.ids import EntryId
from records.messages import RowName, RowPlace
from storage.blocks import BlockPlace
from storage.holdings import Holdings
from storage.hot import HotSet
from storage.scan_select import rows_of

#: A block, the row's position in it, and its tenant.
Located = tuple[BlockPlace, int, str]


def locate(holdings: Holdings, name: RowName) -> Located | None:
    """Where the row lies; None if it is not held here."""
    rows = holdings.table.rows
    found = list(_copies(holdings, name))
    if not found:
        return None
    number, offset = min(
        found, key=lambda one: (int(rows["received"][one[0]]), rows["id"][one[0]].tobytes())
    )
    row = rows[number]
    place = holdings.blocks[int(row["block"])]
    assert place is not None, "a block that is gone has no present entries"
    return place, int(row["row_start"]) + offset, holdings.table.tenants.values[int(row["tenant"])]


def _copies(holdings: Holdings, name: RowName) -> Iterator[tuple[int, int]]:
    """(entry's number, row in it) of each copy."""
    table = holdings.table
    entry = table.find(EntryId(name.run))
    if entry is not None and table.rows["producer"][entry] < 0:
        if name.number < table.rows["row_count"][entry]:
            yield entry, name.number
        return
    for producer in table.producers.of_run(name.run):
        for number in table.producer_entries(producer, name.number, name.number):
            for start, _ in rows_of(holdings.spans(number)[0], ((name.number, name.number),)):
                yield number, start


def read_place(hot: HotSet, located: Located) -> RowPlace:
    """The row's time and service.

    Raises:
        BlockCorrupt: the block is damaged (details: `ordinal`).
    """
    place, position, tenant = located
    columns = hot.columns(place, ("timestamp", "service"))
    stamp = columns["timestamp"].slice(position, 1).cast(pa.int64())[0].as_py()
    return RowPlace(stamp, columns["service"][position].as_py(), tenant)
