"""`SimOs`: the module `os` as far as storage uses it, over the SimDisk of a path or descriptor."""

import errno
import os
from types import SimpleNamespace

from chaos.sim.clock import Dice
from chaos.sim.disk import Descriptor, SimFile, SimPath


class SimOs:
    """As much of the module `os` as storage needs; file descriptors belong to a SimDisk."""

    O_RDONLY, O_WRONLY, O_RDWR = os.O_RDONLY, os.O_WRONLY, os.O_RDWR
    O_CREAT, O_EXCL, O_APPEND = os.O_CREAT, os.O_EXCL, os.O_APPEND
    O_DIRECTORY, POSIX_FADV_DONTNEED = os.O_DIRECTORY, os.POSIX_FADV_DONTNEED
    fsencode, fspath = staticmethod(os.fsencode), staticmethod(os.fspath)

    def __init__(self) -> None:
        self._dice = Dice("urandom")

    def urandom(self, count: int) -> bytes:
        """Bytes that no client can guess."""
        return self._dice.bytes(count)

    def open(self, path: SimPath, flags: int, _mode: int = 0) -> Descriptor:
        """A descriptor."""
        disk, name = path.disk, path.text
        if flags & os.O_CREAT:
            if flags & os.O_EXCL and name in disk.names:
                raise FileExistsError(errno.EEXIST, "it is there", name)
            disk.check("create", name)
            disk.names.setdefault(name, SimFile())
        elif not flags & os.O_DIRECTORY and name not in disk.names:
            raise FileNotFoundError(errno.ENOENT, "no such file", name)
        return disk.open(name)

    def close(self, fd: Descriptor) -> None:
        """Gives the descriptor back; its machine may have gone off meanwhile."""
        fd.disk.handles.pop(fd, None)

    def fsync(self, fd: Descriptor) -> None:
        """Of a file, or of a directory: its names are durable then."""
        name = fd.disk.handles[fd][0]
        if name in fd.disk.names:
            fd.disk.sync(fd)
        else:
            fd.disk.sync_folder(name)

    fdatasync = fsync

    def write(self, fd: Descriptor, data: bytes) -> int:
        """Adds bytes at the end (files opened to append)."""
        fd.disk.put(fd, data, len(fd.disk.handles[fd][1].cache), "append")
        return len(data)

    def pread(self, fd: Descriptor, length: int, offset: int) -> bytes:
        """Bytes of the cache."""
        name, file = fd.disk.handles[fd]
        fd.disk.check("read", name)
        return bytes(file.cache[offset : offset + length])

    def posix_fadvise(self, fd: Descriptor, start: int, length: int, _advice: int) -> None:
        """DONTNEED: what is read next comes from the platter; of length 0: to the end."""
        file = fd.disk.handles[fd][1]
        file.let_go(start, start + length if length else len(file.cache))

    def ftruncate(self, fd: Descriptor, size: int) -> None:
        """Cuts a file."""
        fd.disk.handles[fd][1].resize(size)

    def truncate(self, path: SimPath, size: int) -> None:
        """Cuts a file by name."""
        path._file().resize(size)

    def fstat(self, fd: Descriptor) -> SimpleNamespace:
        """Its size."""
        return SimpleNamespace(st_size=len(fd.disk.handles[fd][1].cache))
