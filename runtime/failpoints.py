"""Failpoints: named places at which a test may kill this process, fail it or hold it up.

`failpoint("wal.after-sync")` costs one look at an empty dict unless the process was started with
`QUORUMLOG_FAILPOINTS="wal.after-sync=kill@3; compact.rename=eio"`: then the third pass of that place
kills the process, each pass of the other raises EIO. The place writes its name to the file that
`QUORUMLOG_FAILPOINTS_LOG` names before it acts: that is the proof that the fault came where it should.

kill       SIGKILL to ourselves: nothing more is written, no handler runs
exit       as a crash of the interpreter: exit code 70, no clean-up
eio enospc the error that the system call after this place would have raised
sleep:MS   milliseconds, on the thread that passes

Without `@N` every pass acts. Nothing can be armed from outside a process that runs.
"""

import errno
import os
import signal
import time
from collections.abc import Mapping
from dataclasses import dataclass

from records.errors import InvalidSettings
from runtime.logs import get_logger

log = get_logger(__name__)
VARIABLE, LOG_VARIABLE = "QUORUMLOG_FAILPOINTS", "QUORUMLOG_FAILPOINTS_LOG"
#: Every place there is; tests compare it with the calls in the source.
POINTS = (
    "wal.before-write", "wal.after-write", "wal.after-sync", "wal.roll", "put.before-ack",
    "compact.write", "compact.sync", "compact.rename", "compact.sync-folders", "compact.apply",
    "compact.flush", "compact.flushed", "compact.unlink", "compact.remove-log",
    "catalog.before-flush", "catalog.after-flush", "seal.before", "seal.after", "seal.producer",
    "hint.before-sync", "hint.after-sync", "hint.delivered", "repair.before-ack",
    "move.hand-over", "move.take-over", "move.raise-ring", "move.let-go",
    "retire.observed", "retire.drop", "retire.erased",
)  # fmt: skip
_ERRORS = {"eio": errno.EIO, "enospc": errno.ENOSPC}
EXIT_CODE = 70


@dataclass(slots=True)
class _Armed:
    """What one place does. `at`: the pass that acts, 0 for each."""

    action: str
    at: int = 0
    passes: int = 0


_armed: dict[str, _Armed] = {}
_log_path = ""


def failpoint(name: str) -> None:
    """Passes a named place; does nothing unless it is armed.

    Raises:
        OSError: the place is armed with an error.
    """
    if _armed:
        _pass(name)


def arm(environment: Mapping[str, str]) -> list[str]:
    """Arms what the environment names, and nothing else; the names.

    Raises:
        InvalidSettings: a name that is none of POINTS, or no such action.
    """
    global _log_path
    _armed.clear()
    _log_path = environment.get(LOG_VARIABLE, "")
    for item in filter(None, (one.strip() for one in environment.get(VARIABLE, "").split(";"))):
        name, _, what = item.partition("=")
        action, _, at = what.partition("@")
        kind, _, number = action.partition(":")
        if name not in POINTS:
            raise InvalidSettings(f"{VARIABLE}: there is no failpoint {name!r}")
        good = kind in ("kill", "exit", *_ERRORS) and not number
        good |= kind == "sleep" and number.isdecimal()
        if not good or (at and not at.isdecimal()):
            raise InvalidSettings(f"{VARIABLE}: {what!r} is no action for {name}")
        _armed[name] = _Armed(action, int(at or 0))
    if _armed:
        log.warning("failpoints are armed", points=sorted(_armed))
    return sorted(_armed)


def _pass(name: str) -> None:
    armed = _armed.get(name)
    if armed is None:
        return
    armed.passes += 1
    if armed.at and armed.passes != armed.at:
        return
    _note(name)
    kind, _, number = armed.action.partition(":")
    if kind == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
    elif kind == "exit":
        os._exit(EXIT_CODE)
    elif kind == "sleep":
        time.sleep(int(number) / 1000)
    else:
        raise OSError(_ERRORS[kind], f"failpoint {name}")


def _note(name: str) -> None:
    """Appends the name to the log; without one, or if it cannot be written, it acts all the same."""
    if not _log_path:
        return
    try:
        handle = os.open(_log_path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o640)
        try:
            os.write(handle, name.encode() + b"\n")
        finally:
            os.close(handle)
    except OSError as error:
        log.warning("a failpoint could not be noted", point=name, error=error)
