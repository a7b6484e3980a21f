"""How far a store has come: a number in its directory that only rises, and that the cluster is told.

An older copy of the directory (a restored backup, a disk as it was) has the id of the store and lacks what
was promised since; it cannot know. So the number rises at each start and once a minute, on disk before it is
told. A store that comes with a lower number than it has told is such a copy, and is refused like a lost disk
(cluster.state_ops). A genuine one never does: what was told is on its disk.

Not seen: a copy that is younger than two marks. A directory without the number says nothing, and is
believed: it is of an older build, or an operator took the file away to say that he knows what he does.
"""

import os
from pathlib import Path

from records.errors import InvalidSettings
from runtime.logs import get_logger
from storage.wal import sync_directory

log = get_logger(__name__)
#: Seconds between two marks. Lower knows younger copies; each mark is a command of the replicated log.
MARK_SECONDS = 60.0


class StoreMark:
    """The file `mark` of a store's directory, which the caller has locked. Its methods block on the disk."""

    def __init__(self, directory: Path) -> None:
        self._path = directory / "mark"
        #: The last one that is on the disk; 0: none.
        self.value = 0

    def begin(self) -> int:
        """The number of this start: one more than before; 0 where there was none (see above).

        Raises:
            InvalidSettings: the file cannot be read.
        """
        if not self._path.exists():
            return 0
        try:
            self.value = int(self._path.read_text())
        except (OSError, ValueError) as error:
            raise InvalidSettings(f"{self._path} cannot be read: {error!r}") from error
        return self.rise()

    def rise(self, known: int = 0) -> int:
        """One more than before, and than `known`; as before if it cannot be written (a full disk)."""
        value, draft = max(self.value, known) + 1, self._path.with_suffix(".new")
        try:
            with draft.open("w") as file:
                file.write(f"{value}\n")
                file.flush()
                os.fsync(file.fileno())
            draft.rename(self._path)
            sync_directory(self._path.parent)
        except OSError as error:
            log.warning("the store's mark could not be raised", error=error)
            return self.value
        self.value = value
        return value
