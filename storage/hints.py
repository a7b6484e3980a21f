"""HintLog: what one absent owner missed, on disk: bounded, oldest out first, worth nothing to correctness.

    hints/<target's name in hex>/00000001.hints     records framed as in the log (storage.log_format)

Each file begins with a FILE record that names the target. A file is the unit of everything but writing: it
is delivered whole, removed whole, and dropped whole when the log is over its bytes or its age. A file is
never written again after a restart, so a torn tail is simply not read; a damaged record is left out and
counted, for a lost hint loses nothing. A file that vanished under us holds no hints.

Blocking: used by one worker thread at a time. Source: DeCandia et al., "Dynamo" (SOSP 2007), section 4.6.
"""

import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from records import envelope
from records.errors import InvalidRequest
from records.hint import Hint
from runtime.logs import get_logger
from storage.log_format import RecordType, encode, padding, read_file

log = get_logger(__name__)
SUFFIX = ".hints"
#: Kind of a hint's record; below are those of the log. For ever.
HINT = 100
FORMAT_VERSION = 1
#: Bytes at which a file ends: some ten thousand entries. More delivers fewer files, less repeats less
#: of one that was cut off.
FILE_BYTES = 256 << 10


@dataclass(slots=True)
class _File:
    """One file: how long it is, and when its newest hint was written (wall seconds)."""

    sequence: int
    size: int
    newest: float
    hints: int = 0


@dataclass(frozen=True, slots=True)
class Batch:
    """The hints of one file, oldest first; `damaged`: records that could not be read."""

    sequence: int
    hints: tuple[Hint, ...]
    damaged: int = 0


def folder_name(target: str) -> str:
    """The folder of a target's hints: names are never paths."""
    return target.encode().hex()


def targets_of(directory: Path) -> dict[str, Path]:
    """The folders of hints below `directory` by target; foreign ones are left alone."""
    found: dict[str, Path] = {}
    for path in sorted(directory.iterdir()) if directory.exists() else ():
        try:
            found[bytes.fromhex(path.name).decode()] = path
        except ValueError:
            log.warning("a foreign file lies among the hints", name=path.name)
    return found


def read_hints(data: bytes, sequence: int, target: str) -> tuple[list[Hint], int]:
    """(hints, how many ranges or records cannot be read) of a file's bytes. Pure."""
    scan = read_file(data, sequence)
    damaged = sum(damage.corrupt for damage in scan.damages)
    found: list[Hint] = []
    for record in scan.records:
        if record.type != HINT:
            continue
        try:
            hint = Hint.from_list(record.meta)
        except InvalidRequest:
            damaged += 1
            continue
        if hint.target == target:
            found.append(hint)
        else:
            damaged += 1
    return found, damaged


class HintLog:
    """The hints for one target."""

    def __init__(self, directory: Path, target: str, *, salt: int | None = None) -> None:
        """Finds what is there; nothing is read until it is asked for.

        Raises:
            OSError: the folder cannot be made or listed.
        """
        self.target = target
        self._directory = directory / folder_name(target)
        self._directory.mkdir(parents=True, exist_ok=True)
        self._salt = int.from_bytes(os.urandom(4), "big") if salt is None else salt
        self._files: list[_File] = []
        for path in sorted(self._directory.glob(f"*{SUFFIX}")):
            if path.stem.isdecimal():
                facts = path.stat()
                self._files.append(_File(int(path.stem), facts.st_size, facts.st_mtime))
        self._next = self._files[-1].sequence + 1 if self._files else 1
        self._handle = -1
        self._synced = 0

    @property
    def size(self) -> int:
        """Bytes on disk."""
        return sum(file.size for file in self._files)

    def append(self, hints: Sequence[Hint], now: float) -> None:
        """Writes hints, at `now` (wall seconds); they outlive the process, and after `sync` a power cut.

        Raises:
            OSError: the rest was not written; the file is ended.
        """
        for hint in hints:
            if self._handle >= 0 and self._files[-1].size >= FILE_BYTES:
                self.sync()
                self._end_file()
            if self._handle < 0:
                self._begin_file(now)
            self._write(HINT, hint.to_list())
            self._files[-1].newest = now
            self._files[-1].hints += 1

    def _begin_file(self, now: float) -> None:
        sequence, self._next = self._next, self._next + 1
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND
        self._handle, self._synced = os.open(self._path(sequence), flags, 0o640), 0
        self._files.append(_File(sequence, 0, now))
        self._write(RecordType.FILE, {"format": FORMAT_VERSION, "target": self.target})

    def _write(self, kind: int, meta: object) -> None:
        file, packed = self._files[-1], envelope.packb(meta)
        data = encode(kind, packed, 0, file.sequence, self._salt, self._synced)
        data += bytes(padding(len(data)))
        try:
            written = os.write(self._handle, data)
            if written < len(data):
                raise OSError(f"{written} of {len(data)} bytes were written")
        except OSError:
            self._abandon(file)
            raise
        file.size += len(data)

    def _abandon(self, file: _File) -> None:
        """Ends a file that took no more: what is in it counts, and one without a hint is gone."""
        self._end_file()
        path = self._path(file.sequence)
        if file.hints:
            file.size = path.stat().st_size
        else:
            self._files.remove(file)
            path.unlink(missing_ok=True)

    def sync(self) -> None:
        """fdatasync of what was written.

        Raises:
            OSError: it failed; the file takes no more.
        """
        if self._handle < 0 or self._synced == self._files[-1].size:
            return
        try:
            os.fdatasync(self._handle)
        except OSError:
            self._end_file()
            raise
        self._synced = self._files[-1].size

    def _end_file(self) -> None:
        handle, self._handle = self._handle, -1
        if handle >= 0:
            os.close(handle)

    def close(self) -> None:
        """Ends the open file; nothing is lost."""
        self._end_file()

    def _path(self, sequence: int) -> Path:
        return self._directory / f"{sequence:08d}{SUFFIX}"

    # -- delivering -------------------------------------------------------------------------------

    def oldest(self) -> Batch | None:
        """The hints of the oldest file, or None; what comes now goes to another file."""
        if not self._files:
            return None
        file = self._files[0]
        if len(self._files) == 1:
            self._end_file()
        try:
            data = self._path(file.sequence).read_bytes()
        except OSError as error:
            log.warning("a file of hints cannot be read", target=self.target, error=error)
            return Batch(file.sequence, (), 1)
        hints, damaged = read_hints(data, file.sequence, self.target)
        return Batch(file.sequence, tuple(hints), damaged)

    def remove(self, sequence: int) -> None:
        """Removes a file: it is delivered, or dropped."""
        for file in [one for one in self._files if one.sequence == sequence]:
            if file is self._files[-1]:
                self._end_file()
            self._files.remove(file)
            self._path(sequence).unlink(missing_ok=True)

    # -- bounds -----------------------------------------------------------------------------------

    def trim(self, bytes_max: int, not_before: float) -> list[Batch]:
        """Drops the oldest files beyond `bytes_max` and those written before; what was in them."""
        dropped: list[Batch] = []
        while self._files and (self.size > bytes_max or self._files[0].newest < not_before):
            batch = self.oldest()
            assert batch is not None
            dropped.append(batch)
            self.remove(batch.sequence)
        return dropped

    def destroy(self) -> list[Batch]:
        """Removes everything, the folder too; what was in it."""
        dropped = self.trim(0, float("inf"))
        try:
            self._directory.rmdir()
        except OSError as error:
            log.warning("a folder of hints stays", target=self.target, error=error)
        return dropped


def entries_in(batches: Iterable[Batch]) -> int:
    """How many entries some batches name."""
    return sum(hint.entries for batch in batches for hint in batch.hints)
