"""SimDisk: files with a page cache over a platter, and what a power cut leaves of both.

A write changes the cache; `fsync` copies dirty pages to the platter; a name is durable once its directory
was synced. A kill keeps the cache. A power cut keeps, of each unsynced page, the new content, the old, or a
torn mix, and of each unsynced name the new state or the old. A failed fsync marks pages clean without
writing them, as Linux does: the next fsync "succeeds", and a power cut loses them (reliability.md F11).

`SimPath` looks like `pathlib.Path` as far as storage uses it; `chaos.sim.system` has the like of `os`.

Source: Rebello et al., "Can Applications Recover from fsync Failures?" (ATC 2020); pebble's errorfs.
"""

import errno
import fnmatch
import io
import itertools
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

from chaos.sim.clock import Dice
from chaos.sim.pages import SimFile


class PowerCut(BaseException):
    """The machine went off in the middle of a system call. No handler for errors may stop it."""


Fault = Callable[[str, str], OSError | None]


class Descriptor(int):
    """A file descriptor; it knows its disk."""

    disk: "SimDisk"


_NUMBERS = itertools.count(1000)


class SimDisk:
    """One node's disk. `fault(operation, name)` may fail an operation; `counts` says what bit."""

    def __init__(self, node: str, dice: Dice, free_bytes: int = 1 << 40) -> None:
        self.node, self.dice, self.free_bytes = node, dice, free_bytes
        self.names: dict[str, SimFile] = {}
        self.durable_names: dict[str, SimFile] = {}
        self.counts: Counter[str] = Counter()
        #: How often all was lost.
        self.wipes = 0
        self.fault: Fault = lambda _operation, _name: None
        #: Images of the catalog, oldest first: a power cut may bring an earlier one back.
        self.images: list[bytes] = []
        #: Open files by descriptor: the name they were opened by; the file lives on without it.
        self.handles: dict[int, tuple[str, SimFile]] = {}
        #: Folders that were made here, and whether their own name is durable. All others were always there.
        self.folders: dict[str, bool] = {}
        #: The operation in which the machine goes off (or the process is killed: `cut_kills`); once.
        self.cut_in: str = ""
        self.cut_kills = False
        #: Seconds of the wall clock.
        self.wall: Callable[[], float] = lambda: 0.0
        #: Seconds from an append to its fdatasync, at most.
        self.sync_seconds = 0.004

    def path(self, name: str) -> "SimPath":
        """A path on this disk."""
        return SimPath(self, name)

    def open(self, name: str) -> Descriptor:
        """A descriptor of a file, or of a directory."""
        fd = Descriptor(next(_NUMBERS))
        fd.disk = self
        self.handles[fd] = (name, self.names.get(name) or SimFile())
        return fd

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
        for folder in [one for one, durable in self.folders.items() if not durable]:
            if dice.chance(0.5):
                self.folders[folder] = True
            else:
                self._lose_folder(folder)
        self.names = dict(self.durable_names)
        for name in sorted(self.names):
            self.counts["pages lost"] += self.names[name].cut(dice)
        if self.images:
            kept = dice.number(0 if dice.chance(0.1) else 1, len(self.images))
            self.images = self.images[:kept]

    def wipe(self) -> None:
        """Another disk stands in its place, with nothing on it."""
        self.wipes += 1
        for lost in (self.names, self.durable_names, self.images, self.handles, self.folders):
            lost.clear()

    def _lose_folder(self, folder: str) -> None:
        self.counts["folders lost"] += 1
        below = folder + "/"
        for names in (self.durable_names, self.folders):
            for name in [one for one in names if one == folder or one.startswith(below)]:
                del names[name]

    def sync_folder(self, folder: str) -> None:
        """fsync of a directory: the names in it are durable then."""
        self.check("sync directory", folder)
        for one in self.names.keys() | self.durable_names.keys():
            if one.rpartition("/")[0] == folder:
                self._settle(one)
        for one in self.folders:
            if one.rpartition("/")[0] == folder:
                self.folders[one] = True

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
            self.counts[f"{'kill' if self.cut_kills else 'cut'} in {operation}"] += 1
            raise PowerCut(self.node)
        error = self.fault(operation, name)
        if error is not None:
            self.counts[f"{operation} {errno.errorcode.get(error.errno or 0, '')}"] += 1
            raise error

    # -- what storage.wal does through its hooks

    def write(self, fd: int, parts: Sequence[bytes | memoryview], at: int) -> int:
        """pwritev: may stop in the middle, by an error or a power cut."""
        whole = b"".join(parts)
        self.put(fd, whole, at, "write")
        return len(whole)

    def put(self, fd: int, data: bytes | memoryview, at: int, operation: str) -> None:
        """Bytes into the cache; only the first of them if the operation fails."""
        name, file = self.handles[fd]
        try:
            self.check(operation, name)
        except (OSError, PowerCut):
            file.write(at, data[: self.dice.number(0, len(data))])
            raise
        file.write(at, data)
        file.mtime = self.wall()

    def sync(self, fd: int) -> None:
        """fdatasync."""
        name, file = self.handles[fd]
        try:
            self.check("sync", name)
        except OSError:
            file.forget_dirty()
            raise
        file.sync()
        self.check("after sync", name)

    def allocate(self, fd: int, offset: int, size: int) -> None:
        """posix_fallocate: never cuts."""
        name, file = self.handles[fd]
        self.check("allocate", name)
        file.resize(max(len(file.cache), offset + size))


class SimWriter:
    """A file that is being written anew; each write is in the cache at once."""

    def __init__(self, path: "SimPath") -> None:
        disk = path.disk
        disk.check("create", path.text)
        disk.names.setdefault(path.text, SimFile()).resize(0)
        self._fd, self._at = disk.open(path.text), 0

    def __enter__(self) -> "SimWriter":
        return self

    def __exit__(self, *_: object) -> None:
        self._fd.disk.handles.pop(self._fd, None)

    def write(self, data: bytes | memoryview) -> int:
        """Adds bytes."""
        self._fd.disk.put(self._fd, data, self._at, "draft")
        self._at += len(data)
        return len(data)

    def flush(self) -> None:
        """Nothing is held back."""

    def fileno(self) -> Descriptor:
        """The descriptor."""
        return self._fd


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
        """Whether it is a file, a folder that was made, or one of some files."""
        if self.text in self.disk.names or self.text in self.disk.folders:
            return True
        below = self.text + "/"
        return any(name.startswith(below) for name in self.disk.names)

    def is_dir(self) -> bool:
        """Whether it is no file: directories need not be made."""
        return self.text not in self.disk.names

    def mkdir(self, parents: bool = False, exist_ok: bool = False) -> None:
        """Makes a folder; its name is durable once the folder around it was synced."""
        del exist_ok
        if not self.exists():
            above = self.parent
            if parents and above.text:
                above.mkdir(parents=True)
            self.disk.folders[self.text] = False

    def rmdir(self) -> None:
        """Removes a folder."""
        self.disk.folders.pop(self.text, None)

    def with_suffix(self, suffix: str) -> "SimPath":
        """The same name with another ending."""
        return self.parent / f"{self.stem}{suffix}"

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
        """Files and folders in it."""
        below = self.text + "/"
        found = (*self.disk.names, *self.disk.folders)
        parts = {one[len(below) :].partition("/")[0] for one in found if one.startswith(below)}
        for part in sorted(parts):
            yield SimPath(self.disk, below + part)

    def stat(self) -> SimpleNamespace:
        """Its size, and when it was written."""
        file = self._file()
        return SimpleNamespace(st_size=len(file.cache), st_mtime=file.mtime)

    def open(self, mode: str = "r", **_: object) -> Any:
        """A reader of the whole content, or a writer of a new one."""
        if mode == "wb":
            return SimWriter(self)
        assert mode == "rb", mode
        return io.BytesIO(bytes(self._file().cache))

    def read_text(self) -> str:
        """The content."""
        return self.read_bytes().decode()

    def write_text(self, text: str) -> int:
        """Replaces the content; not synced."""
        return self.write_bytes(text.encode())

    def read_bytes(self) -> bytes:
        """The content."""
        return bytes(self._file().cache)

    def write_bytes(self, data: bytes) -> int:
        """Replaces the content; not synced."""
        self.disk.check("draft", self.text)
        file = self.disk.names.setdefault(self.text, SimFile())
        file.resize(0)
        file.write(0, data)
        return len(data)

    def unlink(self, missing_ok: bool = False) -> None:
        """Removes the name."""
        self.disk.check("unlink", self.text)
        if self.disk.names.pop(self.text, None) is None and not missing_ok:
            raise FileNotFoundError(errno.ENOENT, "no such file", self.text)

    def rename(self, target: "SimPath") -> "SimPath":
        """Moves the name."""
        self.disk.check("rename", self.text)
        self.disk.names[target.text] = self._file()
        del self.disk.names[self.text]
        return target

    replace = rename
