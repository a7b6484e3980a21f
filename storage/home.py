"""A storage node's directory: who it belongs to, and that one process has it.

node.json   node id and incarnation (random, made with the directory: a lost disk is a new node)
mark        how far the store has come (storage.mark)
LOCK        flock'ed while a process runs
log/ segments/ quarantine/ hints/ catalog.sqlite scrub.json
"""

import fcntl
import json
import os
import secrets
from pathlib import Path

from records.errors import InvalidSettings
from runtime.logs import get_logger
from storage.mark import StoreMark
from storage.segment_file import segment_files
from storage.wal import sync_directory

log = get_logger(__name__)


def free_bytes(directory: Path) -> int:
    """Bytes of the file system that an ordinary user may still fill."""
    facts = os.statvfs(directory)
    return facts.f_bavail * facts.f_frsize


class Home:
    """The opened directory. Holds the lock until `close`."""

    def __init__(self, directory: Path, node_id: str) -> None:
        """Opens, or makes, the directory.

        Raises:
            InvalidSettings: another node's directory, another process has it, or it cannot be used.
        """
        self.directory = directory
        self.log, self.quarantine = directory / "log", directory / "quarantine"
        self.segments = directory / "segments"
        self.catalog = directory / "catalog.sqlite"
        try:
            for path in (directory, self.log, self.segments, self.quarantine):
                path.mkdir(parents=True, exist_ok=True)
            self._lock = os.open(directory / "LOCK", os.O_RDWR | os.O_CREAT, 0o640)
        except OSError as error:
            raise InvalidSettings(f"cannot use {directory}: {error}") from error
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            os.close(self._lock)
            raise InvalidSettings(f"{directory} is in use by another process") from error
        try:
            self.incarnation = self._identity(node_id)
        except BaseException:
            self.close()
            raise

    def _identity(self, node_id: str) -> str:
        path = self.directory / "node.json"
        if not path.exists():
            if any(self.log.iterdir()):
                raise InvalidSettings(f"{self.directory} has a log, but no node.json says whose")
            return self._create(path, node_id)
        try:
            facts = json.loads(path.read_text())
            owner, incarnation = str(facts["node"]), str(facts["incarnation"])
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise InvalidSettings(f"{path} cannot be read: {error!r}") from error
        if owner != node_id:
            raise InvalidSettings(f"{self.directory} belongs to node {owner}, this is {node_id}")
        return incarnation

    def _create(self, path: Path, node_id: str) -> str:
        StoreMark(self.directory).rise()  # so a store that has an id has a mark
        incarnation = secrets.token_hex(8)
        draft = path.with_suffix(".new")
        with draft.open("w") as file:
            json.dump({"node": node_id, "incarnation": incarnation}, file)
            file.flush()
            os.fsync(file.fileno())
        draft.rename(path)
        sync_directory(self.directory)
        return incarnation

    def close(self) -> None:
        """Gives the lock back."""
        os.close(self._lock)

    def last_segment(self) -> int:
        """The greatest number of a segment file, in use or set aside; 0 if there is none."""
        aside = [path.stem.removeprefix("segment-") for path in self.quarantine.glob("segment-*")]
        numbers = [int(stem) for stem in aside if stem.isdecimal()]
        return max([0, *segment_files(self.segments), *numbers])

    def has_damaged(self) -> bool:
        """Whether anything was ever set aside here for damage. (A torn end of the log is none.)"""
        return any(not path.name.endswith(".torn") for path in self.quarantine.glob("*"))

    def keep_damaged(self, path: Path, offset: int, length: int) -> None:
        """Keeps a damaged block's bytes for inspection; what cannot be read is left out and logged.

        A segment is moved whole: it must not be found again at the next start.
        """
        try:
            if self.segments in path.parents:
                path.rename(self.quarantine / f"segment-{path.name}")
                return
            name = f"{path.stem}-{offset:012d}.block"
            with path.open("rb") as source:
                source.seek(offset)
                (self.quarantine / name).write_bytes(source.read(length))
        except OSError as error:
            log.error("a damaged block could not be copied", name=path.name, error=error)
