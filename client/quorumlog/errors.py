"""What can go wrong, as a tree; an error says whether the write may exist.

```
QuorumlogError
├─ Refused            definite: the operation surely had no effect
│  ├─ NotLeader       carries the leader's address and epochs
│  ├─ Overloaded      429, 507 and definite 503; retry_after_seconds
│  ├─ InvalidRequest  400, 404, 405, 415, 422: sending the same again is useless
│  │  └─ TooLarge     413
│  ├─ Unauthorized    401, 403
│  └─ Fenced          a newer producer epoch of this name exists; carries it
├─ Unknown            not definite: the same bytes must be sent again under the same seqs
│  ├─ QuorumUnavailable  503: fewer than W owners answered in time; retry_after_seconds
│  ├─ ServerFailed    another 5xx, or an answer that cannot be read
│  └─ ConnectionLost  refused, reset, cut or timed out
├─ Incomplete         (reads) not all shards could be read; carries which
└─ LocalError         raised by this library, nothing was sent
   ├─ BufferFull      the buffer is at its cap; the row was not taken
   ├─ BufferFailed    the buffer file cannot be written or read (disk full, EIO)
   ├─ BufferCorrupt   the file is no buffer of ours, or of an unknown version
   ├─ BufferMismatch  the buffer belongs to another service or producer
   ├─ BufferLocked    another producer has the buffer open
   ├─ InvalidRow      the row cannot be written as JSON, or uses a reserved name
   ├─ FlushTimeout    also a TimeoutError; carries how many rows wait, and why
   ├─ ProducerClosed  not started, or closed already
   └─ MissingExtra    an optional library (pyarrow) is not installed
```
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class LeaderHint:
    """Who leads a shard, as one server knew it. Epochs are 0 when the server did not say."""

    node: str
    http: str
    shard: int
    shard_epoch: int
    ring_epoch: int


class QuorumlogError(Exception):
    """The root. `code` is the server's word in capitals, or the class name."""

    #: True when the operation surely had no effect.
    definite: bool = True

    def __init__(
        self,
        message: str,
        *,
        code: str = "",
        status: int = 0,
        retry_after_seconds: float | None = None,
        definite: bool | None = None,
    ) -> None:
        super().__init__(message)
        self.code = code or type(self).__name__
        self.status = status
        self.retry_after_seconds = retry_after_seconds
        if definite is not None:
            self.definite = definite


class Refused(QuorumlogError):
    """The server did nothing."""


class NotLeader(Refused):
    """The node asked does not lead the shard; `leader` is None while there is none."""

    def __init__(
        self, message: str, *, leader: LeaderHint | None, retry_after_seconds: float | None = None
    ) -> None:
        super().__init__(message, code="NOT_LEADER", retry_after_seconds=retry_after_seconds)
        self.leader = leader


class Overloaded(Refused):
    """The server has reached a limit; come back after `retry_after_seconds`."""


class InvalidRequest(Refused):
    """The request is wrong and stays wrong."""


class TooLarge(InvalidRequest):
    """The request is over a size limit; a smaller one may pass."""


class Unauthorized(Refused):
    """Credentials are missing, wrong, or not enough."""


class Fenced(Refused):
    """A newer epoch of this producer's name exists: this one must not write any more."""

    def __init__(self, message: str, *, epoch: int) -> None:
        super().__init__(message, code="FENCED", status=409)
        self.epoch = epoch


class Unknown(QuorumlogError):
    """The operation may or may not have happened."""

    definite = False


class QuorumUnavailable(Unknown):
    """Fewer owners than needed answered in time."""


class ServerFailed(Unknown):
    """The server broke, or its answer cannot be read."""


class ConnectionLost(Unknown):
    """No answer came: refused, reset, cut or timed out."""


class Incomplete(QuorumlogError):
    """Rows that were acknowledged may be missing from the answer; `missing` names where."""

    def __init__(self, message: str, *, missing: Sequence[Any]) -> None:
        super().__init__(message, code="INCOMPLETE")
        self.missing = list(missing)


class LocalError(QuorumlogError):
    """Raised on this side; nothing was sent."""


class BufferFull(LocalError):
    """The row was not taken: the buffer holds `max_buffer_bytes` of rows without an ack."""


class BufferFailed(LocalError):
    """The buffer file cannot be written or read."""


class BufferCorrupt(LocalError):
    """The file is not a buffer that this version reads. It is left as it is."""


class BufferMismatch(LocalError):
    """The buffer belongs to another service or another producer."""


class BufferLocked(LocalError):
    """Another producer, in this or another process, has the buffer open."""


class InvalidRow(LocalError):
    """The row cannot be written as JSON, or uses a name that is not the caller's."""


class FlushTimeout(LocalError, TimeoutError):
    """Rows are still without an ack; they stay in the buffer and are sent on."""

    definite = False

    def __init__(self, message: str, *, waiting: int) -> None:
        super().__init__(message)
        self.waiting = waiting


class ProducerClosed(LocalError):
    """Not started yet, or closed already."""


class MissingExtra(LocalError, ImportError):
    """An optional library is not installed; the message names the extra to install."""
