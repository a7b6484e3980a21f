"""The one file under a buffer: locked, appended to, replaced as a whole. All the disk I/O is here.

Invariant: `size` is the end of the last whole frame; a failed append is cut off again, so the next
one starts on a frame's border. Replacing writes a temporary file, syncs it, renames it over the old
one and syncs the folder: a crash leaves the old file or the new one, never a mixture. Needs POSIX
(pread, pwrite, flock, renaming over an open file).
"""

from __future__ import annotations

import contextlib
import mmap
import os
from collections.abc import Iterable
from pathlib import Path

from .errors import BufferCorrupt, BufferFailed, BufferLocked
from .frames import MAGIC

try:
    import fcntl
except ImportError:  # Windows: producers work there too, but in memory only
    fcntl = None


class BufferFile:
    """An open buffer file. Not thread-safe: its owner holds a lock around each call."""

    def __init__(self, path: Path) -> None:
        """Locks `path` and opens it if it exists.

        Raises:
            BufferLocked: another producer has it.
            BufferCorrupt: the file is not a buffer, or of an unknown version.
            BufferFailed: the file or its folder cannot be opened.
        """
        self.path = path
        self.size = 0
        self._fd = -1
        self._lock_fd = -1
        self._needs_replacing = False
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._lock_fd = _lock(path)
            self._open_existing()
        except OSError as error:
            self.close()
            raise BufferFailed(f"buffer {path} cannot be opened: {error}") from error
        except BaseException:
            self.close()
            raise

    def _open_existing(self) -> None:
        try:
            fd = os.open(self.path, os.O_RDWR | os.O_CLOEXEC)
        except FileNotFoundError:
            return
        self._fd = fd
        self.size = os.fstat(fd).st_size
        head = os.pread(fd, len(MAGIC), 0)
        if head != MAGIC and self.size > 0:
            raise BufferCorrupt(f"{self.path} is not a buffer of this version; it is left as it is")

    @property
    def is_new(self) -> bool:
        """True if there was no file, or an empty one: `replace` must come before `append`."""
        return self.size == 0

    def content(self) -> mmap.mmap:
        """The whole file, mapped for reading."""
        return mmap.mmap(self._fd, self.size, access=mmap.ACCESS_READ)

    def cut(self, size: int) -> None:
        """Cuts a torn tail off."""
        os.ftruncate(self._fd, size)
        self.size = size

    def append(self, data: bytes, *, durable: bool) -> int:
        """Writes `data` at the end; returns its offset. With `durable`, fdatasync has returned.

        Raises:
            OSError: nothing was added. After a failed sync the file must be replaced: what the
                kernel could not write it may have forgotten (`must_replace`).
        """
        offset = self.size
        try:
            _write_all(self._fd, data, offset)
        except OSError:
            with contextlib.suppress(OSError):  # `size` is right without it: the next append
                os.ftruncate(self._fd, offset)  # writes over the rest, recovery cuts it off
            raise
        if durable:
            try:
                _sync_data(self._fd)
            except OSError:
                self._needs_replacing = True
                raise
        self.size = offset + len(data)
        return offset

    @property
    def must_replace(self) -> bool:
        """A sync has failed: this file takes no more."""
        return self._needs_replacing

    def read(self, offset: int, length: int) -> bytes:
        """`length` bytes at `offset`."""
        data = os.pread(self._fd, length, offset)
        if len(data) != length:
            raise OSError(f"{self.path}: {len(data)} bytes at {offset}, expected {length}")
        return data

    def replace(self, frames: Iterable[bytes]) -> list[int]:
        """Puts a new file of these frames in the place of the old one; returns their offsets.

        Raises:
            OSError: what is read is still the old file, at its offsets.
        """
        temporary = self.path.with_name(self.path.name + ".tmp")
        fd = os.open(temporary, os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        offsets: list[int] = []
        try:
            _write_all(fd, MAGIC, 0)
            size = len(MAGIC)
            for frame in frames:
                _write_all(fd, frame, size)
                offsets.append(size)
                size += len(frame)
            os.fsync(fd)
            os.replace(temporary, self.path)
            self._sync_rename()
        except BaseException:
            os.close(fd)
            with contextlib.suppress(OSError):
                os.unlink(temporary)
            raise
        old, self._fd, self.size = self._fd, fd, size
        self._needs_replacing = False
        if old >= 0:
            os.close(old)
        return offsets

    def _sync_rename(self) -> None:
        """Makes the new name durable; if that fails, the old file is read on, but takes no more."""
        try:
            _sync_folder(self.path.parent)
        except OSError:
            self._needs_replacing = True
            raise

    def close(self) -> None:
        """Closes and unlocks. May be called again."""
        for fd in (self._fd, self._lock_fd):
            if fd >= 0:
                os.close(fd)
        self._fd = self._lock_fd = -1


def _lock(path: Path) -> int:
    """Takes the lock file beside `path`; it goes with the process, so a crash leaves no lock."""
    lock_path = path.with_name(path.name + ".lock")
    if fcntl is None:
        raise BufferFailed("buffer files need a POSIX system; use a producer without `buffer`")
    fd = os.open(lock_path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        os.close(fd)
        raise BufferLocked(f"buffer {path} is open in another producer") from error
    except OSError:
        os.close(fd)
        raise
    return fd


def _write_all(fd: int, data: bytes, offset: int) -> None:
    view = memoryview(data)
    while view:
        written = os.pwrite(fd, view, offset)
        view, offset = view[written:], offset + written


def _sync_data(fd: int) -> None:
    getattr(os, "fdatasync", os.fsync)(fd)  # macOS has no fdatasync


def _sync_folder(folder: Path) -> None:
    fd = os.open(folder, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
