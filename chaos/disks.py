"""A file system of its own for each node: one that can lose power, fill up, fail or freeze.

An ext4 in a file, mounted through a loop device with `noauto_da_alloc,commit=300`: without the first
option ext4 writes renamed files by itself, and with a short commit the journal does what the program forgot,
so that a missing fsync would not show. A power cut is FS_IOC_SHUTDOWN without a flush of the journal: what
no fsync made durable is gone, and all I/O fails until the next mount. (An ext4 fsync commits the whole
journal: a *directory* that was not synced is not found this way.)

Mounts live in the mount namespace of the laboratory (`chaos.lab`): they end with its last process.

Source: Linux, fs/ext4/ioctl.c; ALICE (Pillai et al., OSDI 2014) for why the options matter.
"""

import contextlib
import fcntl
import os
import shutil
import signal
import struct
import subprocess
import time
from pathlib import Path

FS_IOC_SHUTDOWN = 0x8004587D
#: Drops the journal as well: what was not committed is gone.
NO_LOG_FLUSH = struct.pack("I", 2)
OPTIONS = "loop,noauto_da_alloc,commit=300"
COMMAND_SECONDS = 30.0
PROBE = "unsynced-probe"


class DiskFailed(Exception):
    """A disk could not be made, mounted or broken."""


def command(*words: str | Path, seconds: float = COMMAND_SECONDS) -> str:
    """Runs a system command; what it printed.

    Raises:
        DiskFailed: it is not there, took too long or failed; says with what words.
    """
    given = [str(word) for word in words]
    try:
        done = subprocess.run(  # noqa: S603 - fixed commands of the system
            given, capture_output=True, text=True, timeout=seconds, check=False
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise DiskFailed(f"{given[0]}: {error}") from error
    if done.returncode:
        raise DiskFailed(f"{' '.join(given)}: {done.stderr.strip()[:300]}")
    return done.stdout


class Disk:
    """One node's file system."""

    def __init__(self, image: Path, mount: Path, size_bytes: int) -> None:
        self.image, self.mount, self.size_bytes = image, mount, size_bytes
        self._thaw: subprocess.Popen[bytes] | None = None

    def make(self) -> None:
        """A new, empty file system, mounted."""
        with self.image.open("xb") as file:
            file.truncate(self.size_bytes)
        command("mkfs.ext4", "-q", "-F", "-m", "0", "-E", "lazy_itable_init=1", self.image)
        self.mount.mkdir()
        self.attach()

    def attach(self) -> None:
        """Mounts it: replays its journal, as a machine does at its start."""
        command("mount", "-t", "ext4", "-o", OPTIONS, self.image, self.mount)

    def detach(self) -> None:
        """Unmounts it. What still uses it must have ended."""
        command("umount", self.mount)

    def cut_power(self) -> None:
        """From now on nothing reaches the disk; a file that was never synced is there as a witness."""
        (self.mount / PROBE).write_bytes(b"never synced" * 512)
        handle = os.open(self.mount, os.O_RDONLY | os.O_DIRECTORY)
        try:
            fcntl.ioctl(handle, FS_IOC_SHUTDOWN, NO_LOG_FLUSH)
        except OSError as error:
            raise DiskFailed(f"FS_IOC_SHUTDOWN on {self.mount}: {error}") from error
        finally:
            os.close(handle)

    def witness_lost(self) -> bool:
        """After the next mount: whether the file that was never synced is gone or empty."""
        probe = self.mount / PROBE
        lost = not probe.exists() or probe.stat().st_size == 0
        probe.unlink(missing_ok=True)
        return lost

    # -- full

    @property
    def ballast(self) -> Path:
        """What fills it."""
        return self.mount / "ballast"

    def fill(self) -> int:
        """Fills it to the last byte; the bytes that took."""
        with self.ballast.open("wb", buffering=0) as file:
            facts = os.statvfs(self.mount)
            most = max(1, facts.f_bavail - 64) * facts.f_frsize
            with contextlib.suppress(OSError):  # the most of it at once
                os.posix_fallocate(file.fileno(), 0, most)
            file.seek(0, os.SEEK_END)
            with contextlib.suppress(OSError):  # the rest piece by piece, until there is none
                while True:
                    file.write(bytes(facts.f_frsize))
        return self.ballast.stat().st_size

    def free(self) -> None:
        """Makes room again."""
        self.ballast.unlink(missing_ok=True)

    # -- stalled

    def freeze(self, seconds: float) -> None:
        """Stalls all writes; thaws by itself after `seconds`, whatever becomes of us."""
        words = ["sh", "-c", f"sleep {seconds:.1f}; exec fsfreeze -u {self.mount}"]
        self._thaw = subprocess.Popen(  # noqa: S603 - our own words
            words, stdin=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True
        )
        command("fsfreeze", "-f", self.mount)

    def thaw(self) -> None:
        """Lets writes go on."""
        with contextlib.suppress(DiskFailed):  # it may have thawed by itself
            command("fsfreeze", "-u", self.mount)
        if self._thaw is not None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._thaw.pid, signal.SIGKILL)  # its sleep as well
            self._thaw.wait()
            self._thaw = None

    def close(self, tries: int = 20) -> None:
        """Unmounts it and removes the image; nodes have ended. Best effort: the namespace ends it anyway."""
        self.thaw()
        for _ in range(tries):
            with contextlib.suppress(DiskFailed):
                self.detach()
                break
            time.sleep(0.1)
        self.image.unlink(missing_ok=True)


def reason_against(folder: Path) -> str:
    """Why disks of this kind cannot be had here; empty if they can. Tries it once, in 32 MiB."""
    for name in ("mkfs.ext4", "mount", "umount", "fsfreeze"):
        if not shutil.which(name):
            return f"{name} is not installed"
    disk = Disk(folder / "probe.img", folder / "probe", 32 << 20)
    try:
        disk.make()
        disk.cut_power()
        disk.detach()
        disk.attach()
        return "" if disk.witness_lost() else "a cut loses nothing here"
    except (DiskFailed, OSError) as error:
        return str(error)
    finally:
        disk.close()
        with contextlib.suppress(OSError):
            disk.mount.rmdir()
