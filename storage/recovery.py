"""Reading the log at start: file after file, damage set aside, torn ends cut. Nothing vanishes silently.

Damaged ranges are copied to `quarantine/` before anything is truncated, logged, and reported to the
caller, which counts them. Where they cannot be copied (the disk is full) nothing is truncated; the next log
file says where this one ended. A file that the disk cannot read is read page by page, unreadable pages as
zeros: the records on the other pages survive.
"""

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from runtime.logs import get_logger
from storage.log_format import Damage, FileScan, RecordType, read_file
from storage.wal import SUFFIX, Position, sync_directory

log = get_logger(__name__)
_PAGE = 4096


@dataclass(frozen=True, slots=True)
class RecoveredFile:
    """One log file: its scan from some offset on, and its bytes for as long as the caller looks at them."""

    sequence: int
    scan: FileScan
    data: memoryview


def log_files(directory: Path) -> dict[int, Path]:
    """The log files by sequence, ascending. Foreign files are ignored and logged."""
    found: dict[int, Path] = {}
    for path in sorted(directory.glob(f"*{SUFFIX}")):
        if path.stem.isdecimal():
            found[int(path.stem)] = path
        else:
            log.warning("a foreign file lies in the log directory", name=path.name)
    return dict(sorted(found.items()))


def read_log(directory: Path, quarantine: Path, start: Position) -> Iterator[RecoveredFile]:
    """Reads the log from `start` on, one file in memory at a time."""
    files = {n: path for n, path in log_files(directory).items() if n >= start.file}
    limits = durable_ends(files)
    for sequence, path in files.items():
        data = _read_all(path)
        offset = start.offset if sequence == start.file else 0
        scan = read_file(data, sequence, offset, limits.get(sequence))
        copied = [_set_aside(quarantine, sequence, damage, data) for damage in scan.damages]
        yield RecoveredFile(sequence, scan, memoryview(data))
        if all(copied):
            _truncate(path, max([scan.end, *(d.end for d in scan.damages if d.corrupt)]))


def durable_ends(files: dict[int, Path]) -> dict[int, int]:
    """Where files ended durably, as the first record of the file after each says. What follows is nothing."""
    limits: dict[int, int] = {}
    for sequence, path in files.items():
        with path.open("rb") as file:
            head = read_file(file.read(_PAGE), sequence).records
        if head and head[0].type == RecordType.FILE:
            previous, offset = head[0].meta["previous"]
            limits[int(previous)] = int(offset)
    return limits


def _read_all(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        log.error("a log file cannot be read whole", name=path.name, error=error)
    pages: list[bytes] = []
    with path.open("rb", buffering=0) as file:
        for offset in range(0, os.fstat(file.fileno()).st_size, _PAGE):
            try:
                pages.append(os.pread(file.fileno(), _PAGE, offset))
            except OSError:  # logged above for the file, and found as damage by the scan
                pages.append(bytes(_PAGE))
    return b"".join(pages)


def _set_aside(quarantine: Path, sequence: int, damage: Damage, data: bytes) -> bool:
    """Copies damaged bytes; whether that succeeded."""
    kind = "corrupt" if damage.corrupt else "torn"
    name = f"{sequence:08d}-{damage.start:012d}.{kind}"
    report = log.error if damage.corrupt else log.warning
    report(
        "damaged bytes in the log were set aside",
        kind=kind,
        file=sequence,
        start=damage.start,
        bytes=damage.end - damage.start,
        reason=damage.reason,
    )
    try:
        quarantine.mkdir(parents=True, exist_ok=True)
        (quarantine / name).write_bytes(data[damage.start : damage.end])
        sync_directory(quarantine)
    except OSError as error:
        log.error("damaged bytes could not be copied", name=name, error=error)
        return False
    return True


def _truncate(path: Path, end: int) -> None:
    if path.stat().st_size > end:
        os.truncate(path, end)
