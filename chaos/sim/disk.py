"""SimDisk: files with a page cache over a platter, and what a power cut leaves of both.

A write changes the cache; `fsync` copies dirty pages to the platter; a name is durable once its directory
was synced. A kill keeps the cache. A power cut keeps, of each unsynced page, the new content, the old, or a
torn mix, and of each unsynced name the new state or the old. A failed fsync marks pages clean without
writing them, as Linux does: the next fsync "succeeds", and a power cut loses them (reliability.md F11).

`SimPath` and `SimOs` look like `pathlib.Path` and `os` as far as storage uses them.

Source: Rebello et al., "Can Applications Recover from fsync Failures?" (ATC 2020); pebble's errorfs.
"""

import errno
import fnmatch
import io
import os
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from types import SimpleNamespace

from chaos.sim.clock import Dice

PAGE = 4096
SECTOR = 512


class PowerCut(BaseException):
    """The machine went off in the middle of a system call. No handler for errors may stop it."""


@dataclass(eq=False, slots=True)
class SimFile:
    """Content in the cache, content on the platter, and the pages that differ or may."""

    cache: bytearray = field(default_factory=bytearray)
    platter: bytearray = field(default_factory=bytearray)
    dirty: set[int] = field(default_factory=set)
    resized: bool = False

    def write(self, at: int, data: bytes | memoryview) -> None:
        """Puts bytes into the cache."""
        end = at + len(data)
        if end > len(self.cache):
            self.cache.extend(bytes(end - len(self.cache)))
        self.cache[at:end] = data
        self.dirty.update(range(at // PAGE, -(-end // PAGE)))

    def resize(self, size: int) -> None:
        """Cuts or extends with zeros. What is cut off is zeros if the file grows again."""
        self.resized = True
        if size < len(self.cache):
            self.dirty.update(range(size // PAGE, -(-len(self.cache) // PAGE)))
            del self.cache[size:]
        else:
            self.cache.extend(bytes(size - len(self.cache)))

    def sync(self) -> None:
        """Brings dirty pages and the size to the platter."""
        self._fit(len(self.cache))
        for page in self.dirty:
            start = page * PAGE
            self.platter[start : start + PAGE] = self.cache[start : start + PAGE]
        self.forget_dirty()

    def forget_dirty(self) -> None:
        """What a failed fsync does: the pages are clean, and not written."""
        self.dirty.clear()
        self.resized = False

    def _fit(self, size: int) -> None:
        if size < len(self.platter):
            del self.platter[size:]
        else:
            self.platter.extend(bytes(size - len(self.platter)))

    def durable(self, start: int, end: int) -> bool:
        """Whether a power cut now would leave these bytes as they are in the cache."""
        same = self.platter[start:end] == self.cache[start:end]
        return same and len(self.platter) >= end

    def cut(self, dice: Dice) -> int:
        """The power goes. Returns how many pages lost or tore what was written."""
        lost = 0
        if self.resized and dice.chance(0.5):
            self._fit(len(self.cache))
        for page in sorted(self.dirty):
            start = page * PAGE
            new, old = self.cache[start : start + PAGE], self.platter[start : start + PAGE]
            if new == old or not new:
                continue  # nothing was written there; a size that was cut has its own lot
            keep = dice.number(0, 3)
            if keep == 0 or start > len(self.platter):
                lost += 1
                continue
            if keep == 1:
                lost += 1
                torn = dice.number(0, PAGE // SECTOR) * SECTOR
                new = new[:torn] + old[min(torn, len(new)) :]
            self.platter[start : start + len(new)] = new
        self.cache = bytearray(self.platter)
        self.forget_dirty()
        return lost


Fault = Callable[[str, str], OSError | None]


class SimDisk:
    """One node's disk. `fault(operation, name)` may fail an operation; `counts` says what bit."""

    def __init__(self, node: str, dice: Dice, free_bytes: int = 1 << 40) -> None:
        self.node, self.dice, self.free_bytes = node, dice, free_bytes
        self.names: dict[str, SimFile] = {}
        self.durable_names: dict[str, SimFile] = {}
        self.counts: Counter[str] = Counter()
        self.fault: Fault = lambda _operation, _name: None
        #: Images of the catalog, oldest first: a power cut may bring an earlier one back.
        self.images: list[bytes] = []
        self.handles: dict[int, str] = {}
        self.blocks: list[tuple[SimFile, str, int, int]] = []
        self.cut_in: str = ""
        #: Seconds from an append to its fdatasync, at most.
        self.sync_seconds = 0.004

    def path(self, name: str) -> "SimPath":
        """A path on this disk."""
        return SimPath(self, name)

    def power_cut(self, dice: Dice) -> None:
        """Loses what was not synced."""
        changed = {
            name
            for name in self.names.keys() | self.durable_names.keys()
            if self.names.get(name) is not self.durable_names.get(name)
        }
        for name in sorted(changed):
            if dice.chance(0.5):
                self._settle(name)
            else:
                self.counts["names lost"] += 1
        self.names = dict(self.durable_names)
        for name in sorted(self.names):
            self.counts["pages lost"] += self.names[name].cut(dice)
        if self.images:
            kept = dice.number(0 if dice.chance(0.1) else 1, len(self.images))
            self.images = self.images[:kept]

    def _settle(self, name: str) -> None:
        if name in self.names:
            self.durable_names[name] = self.names[name]
        else:
            self.durable_names.pop(name, None)

    def check(self, operation: str, name: str) -> None:
        """Raises what the fault plan wants for this operation.

        Raises:
            OSError, PowerCut.
        """
        if self.cut_in == operation:
            self.cut_in = ""
            self.counts[f"cut in {operation}"] += 1
            raise PowerCut(self.node)
        error = self.fault(operation, name)
        if error is not None:
            self.counts[f"{operation} {errno.errorcode.get(error.errno or 0, '')}"] += 1
            raise error

    # -- what storage.wal does through its hooks

    def write(self, fd: int, parts: Sequence[bytes | memoryview], at: int) -> int:
        """pwritev: may stop in the middle, by an error or a power cut."""
        name = self.handles[fd]
        file = self.names[name]
        whole = b"".join(parts)
        try:
            self.check("write", name)
        except (OSError, PowerCut):
            file.write(at, whole[: self.dice.number(0, len(whole))])
            raise
        file.write(at, whole)
        return len(whole)

    def sync(self, fd: int) -> None:
        """fdatasync."""
        name = self.handles[fd]
        file = self.names.get(name)
        assert file is not None
        try:
            self.check("sync", name)
        except OSError:
            file.forget_dirty()
            raise
        file.sync()
        self.check("after sync", name)

    def allocate(self, fd: int, offset: int, size: int) -> None:
        """posix_fallocate: never cuts."""
        self.check("allocate", self.handles[fd])
        file = self.names[self.handles[fd]]
        file.resize(max(len(file.cache), offset + size))


@dataclass(frozen=True, slots=True, order=True)
class SimPath:
    """A path on a SimDisk; as much of pathlib.Path as storage needs."""

    disk: SimDisk = field(compare=False)
    text: str

    def __truediv__(self, name: object) -> "SimPath":
        return SimPath(self.disk, f"{self.text}/{name}")

    def __str__(self) -> str:
        return self.text

    @property
    def name(self) -> str:
        """The last part."""
        return self.text.rpartition("/")[2]

    @property
    def stem(self) -> str:
        """The name without its suffix."""
        return self.name.rpartition(".")[0] or self.name

    @property
    def parent(self) -> "SimPath":
        """The directory."""
        return SimPath(self.disk, self.text.rpartition("/")[0])

    @property
    def parents(self) -> "list[SimPath]":
        """All directories above."""
        parts = self.text.split("/")[:-1]
        return [SimPath(self.disk, "/".join(parts[:n])) for n in range(len(parts), 0, -1)]

    def _file(self) -> SimFile:
        try:
            return self.disk.names[self.text]
        except KeyError:
            raise FileNotFoundError(errno.ENOENT, "no such file", self.text) from None

    def exists(self) -> bool:
        """Whether it is a file, or a directory of some."""
        below = self.text + "/"
        return self.text in self.disk.names or any(n.startswith(below) for n in self.disk.names)

    def is_dir(self) -> bool:
        """Whether it is no file: directories need not be made."""
        return self.text not in self.disk.names

    def mkdir(self, **_: object) -> None:
        """Directories are there."""

    def glob(self, pattern: str) -> Iterator["SimPath"]:
        """Files below it whose path matches, part by part."""
        below, depth = self.text + "/", pattern.count("/")
        for name in sorted(self.disk.names):
            rest = name[len(below) :]
            if name.startswith(below) and rest.count("/") == depth:
                parts = zip(rest.split("/"), pattern.split("/"), strict=True)
                if all(fnmatch.fnmatchcase(one, wanted) for one, wanted in parts):
                    yield SimPath(self.disk, name)

    def iterdir(self) -> Iterator["SimPath"]:
        """Files in it."""
        return self.glob("*")

    def stat(self) -> SimpleNamespace:
        """Its size."""
        return SimpleNamespace(st_size=len(self._file().cache))

    def open(self, mode: str = "r", **_: object) -> io.BytesIO:
        """A reader of the whole content."""
        assert mode == "rb", mode
        return io.BytesIO(bytes(self._file().cache))

    def read_bytes(self) -> bytes:
        """The content."""
        return bytes(self._file().cache)

    def write_bytes(self, data: bytes) -> int:
        """Replaces the content; not synced."""
        file = self.disk.names.setdefault(self.text, SimFile())
        file.resize(0)
        file.write(0, data)
        return len(data)

    def unlink(self, missing_ok: bool = False) -> None:
        """Removes the name."""
        if self.disk.names.pop(self.text, None) is None and not missing_ok:
            raise FileNotFoundError(errno.ENOENT, "no such file", self.text)

    def rename(self, target: "SimPath") -> "SimPath":
        """Moves the name."""
        self.disk.names[target.text] = self._file()
        del self.disk.names[self.text]
        return target


class SimOs:
    """As much of the module `os` as storage needs; file descriptors belong to a SimDisk."""

    O_RDONLY, O_RDWR, O_CREAT = os.O_RDONLY, os.O_RDWR, os.O_CREAT
    O_EXCL, O_DIRECTORY = os.O_EXCL, os.O_DIRECTORY
    fsencode, fspath = staticmethod(os.fsencode), staticmethod(os.fspath)

    def __init__(self) -> None:
        self._disks: dict[int, SimDisk] = {}
        self._next = 1000

    def open(self, path: SimPath, flags: int, _mode: int = 0) -> int:
        """A descriptor."""
        disk, name = path.disk, path.text
        if flags & os.O_CREAT:
            if flags & os.O_EXCL and name in disk.names:
                raise FileExistsError(errno.EEXIST, "it is there", name)
            disk.check("create", name)
            disk.names.setdefault(name, SimFile())
        elif not flags & os.O_DIRECTORY and name not in disk.names:
            raise FileNotFoundError(errno.ENOENT, "no such file", name)
        self._next += 1
        self._disks[self._next] = disk
        disk.handles[self._next] = name
        return self._next

    def close(self, fd: int) -> None:
        """Gives the descriptor back."""
        self._disks.pop(fd).handles.pop(fd)

    def fsync(self, fd: int) -> None:
        """Of a file, or of a directory: its names are durable then."""
        disk = self._disks[fd]
        name = disk.handles[fd]
        if name in disk.names:
            disk.sync(fd)
            return
        disk.check("sync directory", name)
        for one in disk.names.keys() | disk.durable_names.keys():
            if one.rpartition("/")[0] == name:
                disk._settle(one)

    fdatasync = fsync

    def pread(self, fd: int, length: int, offset: int) -> bytes:
        """Bytes of the cache."""
        disk = self._disks[fd]
        disk.check("read", disk.handles[fd])
        return bytes(disk.names[disk.handles[fd]].cache[offset : offset + length])

    def ftruncate(self, fd: int, size: int) -> None:
        """Cuts a file."""
        disk = self._disks[fd]
        disk.names[disk.handles[fd]].resize(size)

    def truncate(self, path: SimPath, size: int) -> None:
        """Cuts a file by name."""
        path._file().resize(size)

    def fstat(self, fd: int) -> SimpleNamespace:
        """Its size."""
        disk = self._disks[fd]
        return SimpleNamespace(st_size=len(disk.names[disk.handles[fd]].cache))
