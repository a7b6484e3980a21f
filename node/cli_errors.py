"""How a command fails: what happened, what to do next, and the exit code that says so."""

from quorumlog.errors import (
    ConnectionLost,
    InvalidRequest,
    Overloaded,
    QuorumlogError,
    QuorumUnavailable,
    Unauthorized,
)

OK, FAILED, USAGE, PARTIAL = 0, 1, 2, 3
INTERRUPTED = 130


class CliError(Exception):
    """A failure with advice. `hint` is what the user can do."""

    def __init__(self, message: str, hint: str = "", code: int = FAILED) -> None:
        super().__init__(message)
        self.hint = hint
        self.code = code


_HINTS: tuple[tuple[type[QuorumlogError], str], ...] = (
    (ConnectionLost, "is the cluster up? `quorumlog up` starts one; --server URL names another"),
    (QuorumUnavailable, "too few storage nodes answer: see `quorumlog status`, then try again"),
    (Overloaded, "the cluster is busy or its disk is full: see `quorumlog status`, then try again"),
    (Unauthorized, "the server wants credentials that were not given"),
    (InvalidRequest, "the request is wrong as it stands: see `quorumlog COMMAND --help`"),
)


def hint_for(error: BaseException) -> str:
    """What to do about an error of the client library; empty if nothing is known."""
    if isinstance(error, CliError):
        return error.hint
    return next(
        (hint for kind, hint in _HINTS if isinstance(error, kind)), "see `quorumlog doctor`"
    )
