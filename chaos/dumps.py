"""What a store holds, read from its files: not what the node says, but what a restart would find.

The store of a node that does not run is copied and opened there as a start of the node would (catalog, log's
tail, segments), without anything that heals. Every block is then read and its checksums verified; entries,
digests and rows are worked out anew from these bytes. Nothing of the original is touched.

Cost: a few milliseconds a block; memory: one block at a time.
"""

import hashlib
import shutil
from collections import defaultdict
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pyarrow as pa

from chaos.evidence import Dump, Spans
from ingestor.content_hash import content_hash
from records.block_codec import decode_block, open_body, parse_prefix
from records.columns import is_erased
from records.errors import BlockCorrupt
from storage.block_files import BlockFiles
from storage.home import Home
from storage.opening import Opened

_SUM_BITS = 128
#: Left where they are: nothing that is read lies there.
_NOT_COPIED = ("LOCK", "quarantine", "hints", "export")


@dataclass(slots=True)
class _Shard:
    """Sums over the entries of one shard. `rows`: numbers by client."""

    entries: int = 0
    digest: int = 0
    contents: int = 0
    rows: dict[str, list[np.ndarray]] = field(default_factory=lambda: defaultdict(list))


def dump_store(
    node: str, store: Path, scratch: Path, t: int, moment: str, event: int = 0
) -> Dump:  # fmt: skip
    """One store. Blocks.

    Raises:
        InvalidSettings, CatalogUnusable, OSError: it cannot be opened; so a start of the node would fail.
    """
    copy = scratch / f"store-{node}"
    shutil.rmtree(copy, ignore_errors=True)
    shutil.copytree(store, copy, ignore=shutil.ignore_patterns(*_NOT_COPIED))
    try:
        home = Home(copy, node)
        try:
            opened = Opened(home)
            try:
                shards, broken = _read(opened, BlockFiles(home.log, home.segments))
            finally:
                opened.catalog.close()
        finally:
            home.close()
    finally:
        shutil.rmtree(copy, ignore_errors=True)
    held = {
        str(shard): (one.entries, _hex(one.digest), _hex(one.contents))
        for shard, one in sorted(shards.items())
    }
    rows = {
        str(shard): {client: spans_of(np.concatenate(found)) for client, found in one.rows.items()}
        for shard, one in sorted(shards.items())
    }
    return Dump(node, t, moment, held, rows, tuple(broken), event)


def _read(opened: Opened, files: BlockFiles) -> tuple[dict[int, _Shard], list[str]]:
    holdings = opened.engine.holdings
    shards: dict[int, _Shard] = defaultdict(_Shard)
    broken: list[str] = []
    for place in list(holdings.blocks):
        numbers = holdings.present(place.ordinal)
        if not len(numbers):
            continue
        try:
            data = files.read(place, 0, place.length)
            block = decode_block(data)
            table = _rows(data, block.header.columns)
        except (BlockCorrupt, pa.ArrowException) as error:
            broken.append(f"block {place.ordinal} of {files.path(place).name}: {error}")
            continue
        for index in holdings.table.rows["index"][numbers].tolist():
            entry = block.header.entries[index]
            part = table.slice(entry.row_start, entry.row_count)
            one = shards[int(entry.shard)]
            one.entries += 1
            one.digest += len(entry.hours) * leaf(entry.entry_id, entry.content_hash)
            if not is_erased(table.schema):
                said = content_hash(part, entry.received_at)
                one.contents += leaf(entry.entry_id, said)
            _add_rows(one, part)
    return shards, broken


def leaf(entry_id: bytes, content: bytes) -> int:
    """What an entry adds to a sum: H(entry id || content hash), reliability's definition, not the store's
    code.
    """
    return int.from_bytes(hashlib.sha256(entry_id + content).digest()[: _SUM_BITS // 8], "big")


def _hex(total: int) -> str:
    return (total % (1 << _SUM_BITS)).to_bytes(_SUM_BITS // 8, "big").hex()


def _rows(data: bytes, columns: tuple[str, ...]) -> pa.Table:
    start, end = parse_prefix(data).body
    return open_body(memoryview(data)[start:end], columns).read() if end > start else pa.table({})


def _add_rows(one: _Shard, part: pa.Table) -> None:
    if not part.num_rows or not {"chaos_client", "chaos_number"} <= set(part.schema.names):
        return
    clients = part["chaos_client"].to_numpy(zero_copy_only=False)
    numbers = part["chaos_number"].cast(pa.float64()).to_numpy(zero_copy_only=False)
    for client in {name for name in clients.tolist() if name}:
        found = numbers[(clients == client) & ~np.isnan(numbers)]
        one.rows[client].append(found.astype(np.int64))


def spans_of(numbers: np.ndarray) -> Spans:
    """Numbers as spans, ascending, each number once."""
    found = np.unique(numbers)
    if not len(found):
        return ()
    breaks = np.flatnonzero(np.diff(found) > 1)
    first, last = found[np.append(0, breaks + 1)], found[np.append(breaks, len(found) - 1)]
    return tuple(zip(first.tolist(), last.tolist(), strict=True))
