"""Writes segment files so that a name stands for a whole, durable file. Runs on a worker.

    write NUMBER.new · fsync it · rename it into its folder · fsync the folders that changed

Cut short anywhere it leaves a `.new` file, or a segment that no catalog names: both are removed at start.
"""

import os
from collections.abc import Callable
from pathlib import Path

from records.block_codec import EncodedBlock
from runtime.failpoints import failpoint
from storage.segment_file import MARK, segment_parts, segment_path
from storage.wal import sync_directory

Step = Callable[[str], None]


def no_step(_: str) -> None:
    """Called before each step; tests look at the disk there."""


def failing_step(name: str) -> None:
    """Each step is a failpoint, `compact.NAME`, for processes that are to die there."""
    failpoint(f"compact.{name.replace(' ', '-')}")


def write_segment(directory: Path, number: int, block: EncodedBlock, step: Step = no_step) -> Path:
    """Writes a block as segment `number`; it is durable when this returns.

    Raises:
        OSError: nothing of it counts; what was written is removed.
    """
    draft = directory / f"{number:08d}.new"
    target = directory / segment_path(number, block.header.min_ts, block.header.max_ts)
    try:
        step("write")
        with draft.open("wb") as file:
            for part in segment_parts(block.data):
                file.write(part)
            file.flush()
            step("sync")
            os.fsync(file.fileno())
        made = _make_folders(directory, target.parent)
        step("rename")
        draft.rename(target)
        step("sync folders")
        for folder in {directory, target.parent, *(path.parent for path in made)}:
            sync_directory(folder)
    except OSError:
        draft.unlink(missing_ok=True)
        target.unlink(missing_ok=True)
        raise
    assert target.stat().st_size == len(block.data) + MARK.size
    return target


def _make_folders(root: Path, folder: Path) -> list[Path]:
    """Makes `folder` and what lies between; the new ones."""
    missing = [path for path in (folder, *folder.parents) if root in path.parents]
    new = [path for path in reversed(missing) if not path.exists()]
    for path in new:
        path.mkdir(exist_ok=True)
    return new
