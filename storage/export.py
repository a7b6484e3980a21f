"""A sealed snapshot of a node's rows as Parquet files: what `quorumlog files` lists. Runs on a worker.

The files hold exactly the rows that may be seen: of some shards and one tenant, each row once, hidden copies
left out. A segment of which all rows may be seen is a hard link and costs nothing; of a big block in the log
the Parquet body is copied as it is; what has hidden or foreign rows is written anew without them.

Files never change. The folder of an export stays until the next but one is made.
"""

import os
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from records.block_codec import encode_body, parse_prefix
from records.columns import ERASED_COLUMN
from records.errors import BlockCorrupt
from storage.block_files import BlockFiles
from storage.hot import HotSet
from storage.retention import Rule
from storage.scan_hidden import hidden_rows
from storage.scan_select import BlockSlice
from storage.segment_file import segment_path

#: Exports kept: the newest, and the one before it, which somebody may still read.
_KEPT = 2


@dataclass(frozen=True, slots=True)
class ExportedFile:
    """One Parquet file and its rows."""

    path: Path
    rows: int
    length: int


@dataclass(frozen=True, slots=True)
class Exported:
    """The files of a snapshot and the digests of its shards, of the same moment.

    `lost`: blocks set aside for damage so far; `holes`: shards that lack what these held.
    """

    directory: Path
    files: tuple[ExportedFile, ...]
    digests: dict[int, tuple[int, bytes]]
    lost: int
    holes: tuple[int, ...]

    @property
    def rows(self) -> int:
        """All rows."""
        return sum(file.rows for file in self.files)


def copied_bytes(slices: Sequence[BlockSlice]) -> int:
    """About how many bytes an export of these will write: links take none."""
    return sum(one.place.length for one in slices if not (one.whole and one.place.file < 0))


def new_folder(root: Path) -> Path:
    """An empty folder for an export; the oldest ones are removed."""
    root.mkdir(exist_ok=True)
    found = sorted(path for path in root.iterdir() if path.name.isdecimal())
    for path in found[: max(0, len(found) - _KEPT + 1)]:
        shutil.rmtree(path)
    folder = root / f"{int(found[-1].name) + 1 if found else 1:08d}"
    folder.mkdir()
    return folder


def export(
    root: Path,
    slices: Sequence[BlockSlice],
    files: BlockFiles,
    hot: HotSet,
    rules: Sequence[Rule] = (),
) -> tuple[Path, tuple[ExportedFile, ...]]:
    """Makes the files of `slices` in a new folder below `root`, without the rows that `rules` hide.

    Raises:
        BlockCorrupt: a block is damaged (details: `ordinal`); nothing is left of the export.
        OSError: the disk is full, or fails; likewise. Overloaded: no file can be opened now; likewise.
    """
    folder = new_folder(root)
    try:
        found = [_export_one(folder, one, files, hot, rules) for one in slices if one.place.rows]
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        raise
    return folder, tuple(one for one in found if one.rows)


def _export_one(
    folder: Path, one: BlockSlice, files: BlockFiles, hot: HotSet, rules: Sequence[Rule]
) -> ExportedFile:
    place = one.place
    target = folder / segment_path(place.ordinal, place.min_ts, place.max_ts)
    target.parent.mkdir(parents=True, exist_ok=True)
    if one.whole and place.file < 0:
        try:
            os.link(files.path(place), target)
        except FileNotFoundError as error:
            raise BlockCorrupt("the segment is gone", ordinal=place.ordinal) from error
        return ExportedFile(target, place.rows, target.stat().st_size)
    data = hot.raw(place)
    body: pa.Buffer | memoryview = memoryview(data)[parse_prefix(data).body[0] :]
    rows = place.rows
    if not one.whole:
        hidden = hidden_rows(hot, place, rules if one.ruled else (), one.erased)
        table = _visible(body, one, hidden)
        body, rows = encode_body(table), table.num_rows
    if rows:
        target.write_bytes(body)
    return ExportedFile(target, rows, len(memoryview(body)))


def _visible(body: memoryview, one: BlockSlice, hidden: np.ndarray | None) -> pa.Table:
    try:
        table = pq.read_table(pa.BufferReader(pa.py_buffer(body)))
    except (pa.ArrowException, OSError) as error:
        raise BlockCorrupt(f"Parquet: {error}", ordinal=one.place.ordinal) from error
    if ERASED_COLUMN in table.schema.names:
        table = table.drop_columns([ERASED_COLUMN])
    mask = one.row_mask()
    if hidden is not None:
        mask = ~hidden if mask is None else mask & ~hidden
    return table if mask is None else table.filter(pa.array(mask))
