"""How a manager dies on purpose: one line on stderr, then a numbered exit, at once.

Going on after a failed fsync, or with a state that other managers do not share, could lose what was
acknowledged. Ending is safe: the others carry on, and a supervisor starts us again.
"""

import os
import sys
from collections.abc import Callable
from typing import NoReturn

from cluster.consensus import StartRefused

EXIT_JOURNAL = 70  # any error of the journal: disk full, I/O, a bad row
EXIT_DUMP = 71  # a dump that does not verify
EXIT_STATE = 72  # memory or disk failed inside apply, the state diverged, or the binary is too old
EXIT_WATCHDOG = 73  # the Raft thread stands still
EXIT_DUMP_LOST = 74  # the journal starts after the dump: a newer dump was lost
EXIT_DUMP_DIFFERS = 75  # journal and dump disagree about the same index
EXIT_NO_DUMP = 76  # the journal starts late and there is no dump, or the journal itself is gone
EXIT_IDENTITY = 77  # not this node's directory, in use, or empty without --bootstrap
EXIT_CONFIG = 78  # settings, version or interpreter flags

FailStop = Callable[[int, str], NoReturn]


def fail_stop(code: int, text: str) -> NoReturn:
    """Ends the process from any thread, without cleaning up: nothing may be written any more."""
    try:
        sys.stderr.write(f"quorumlog: consensus stopped ({code}): {text}\n")
        sys.stderr.flush()
    finally:
        os._exit(code)


def refuse(code: int, text: str) -> NoReturn:
    """The same while starting, where the caller can still end the process in order."""
    raise StartRefused(code, text)
