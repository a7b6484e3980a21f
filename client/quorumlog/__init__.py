"""Client of quorumlog, a clustered log store: producers, queries, a logging handler.

Stands alone: nothing of the server is imported. `producer` numbers rows, keeps them in `buffer` and
has `sender` repeat them until a quorum holds them; `client` asks; `sync` is the synchronous twin of
both; `handler` connects the standard logging module. Pure parts: `window` (what is acked), `leaders`
(whom to ask), `answers` (what an HTTP answer means), `frames` and `recovery` (the buffer's format).
"""

from .answers import Rejected
from .errors import (
    BufferCorrupt,
    BufferFailed,
    BufferFull,
    BufferLocked,
    BufferMismatch,
    ConnectionLost,
    Fenced,
    FlushTimeout,
    InvalidRequest,
    InvalidRow,
    LeaderHint,
    LocalError,
    MissingExtra,
    NotLeader,
    Overloaded,
    ProducerClosed,
    QuorumlogError,
    QuorumUnavailable,
    Refused,
    ServerFailed,
    TooLarge,
    Unauthorized,
    Unknown,
)
from .producer import Producer
from .sender import ProducerStats

__all__ = [
    "BufferCorrupt",
    "BufferFailed",
    "BufferFull",
    "BufferLocked",
    "BufferMismatch",
    "ConnectionLost",
    "Fenced",
    "FlushTimeout",
    "InvalidRequest",
    "InvalidRow",
    "LeaderHint",
    "LocalError",
    "MissingExtra",
    "NotLeader",
    "Overloaded",
    "Producer",
    "ProducerClosed",
    "ProducerStats",
    "QuorumUnavailable",
    "QuorumlogError",
    "Refused",
    "Rejected",
    "ServerFailed",
    "TooLarge",
    "Unauthorized",
    "Unknown",
]
