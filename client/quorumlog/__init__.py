"""Client of quorumlog, a clustered log store: producers, queries, a logging handler.

Stands alone: nothing of the server is imported. `producer` numbers rows, keeps them in `buffer` and
has `sender` repeat them until a quorum holds them; `client` asks; `sync` is the synchronous twin of
both; `handler` connects the standard logging module. Pure parts: `window` (what is acked), `leaders`
(whom to ask), `answers` (what an HTTP answer means), `frames` and `recovery` (the buffer's format).
"""

from .answers import Rejected
from .client import Client
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
from .handler import LogHandler
from .producer import Producer
from .results import IngestResult, QueryResult
from .sender import ProducerStats
from .sync import SyncClient, SyncProducer

__all__ = [
    "BufferCorrupt",
    "BufferFailed",
    "BufferFull",
    "BufferLocked",
    "BufferMismatch",
    "Client",
    "ConnectionLost",
    "Fenced",
    "FlushTimeout",
    "IngestResult",
    "InvalidRequest",
    "InvalidRow",
    "LeaderHint",
    "LocalError",
    "LogHandler",
    "MissingExtra",
    "NotLeader",
    "Overloaded",
    "Producer",
    "ProducerClosed",
    "ProducerStats",
    "QueryResult",
    "QuorumUnavailable",
    "QuorumlogError",
    "Refused",
    "Rejected",
    "ServerFailed",
    "SyncClient",
    "SyncProducer",
    "TooLarge",
    "Unauthorized",
    "Unknown",
]
