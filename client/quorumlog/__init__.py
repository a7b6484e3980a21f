"""Client of quorumlog, a clustered log store: producers, queries, a logging handler.

Stands alone: nothing of the server is imported. A row's way: `producer` takes it, `rows` makes it bytes,
`buffer` numbers it and keeps it (`bufferfile`, in the format of `frames`, read back by `recovery`),
`sender` repeats it through `courier` and `wire` until a quorum holds it. `client` asks; `sync` has the
synchronous twins; `handler` connects the standard logging module. What is decided is pure: `window` (what
is acked), `leaders` (whom to ask), `answers` (what an HTTP answer means), `batch`, `groups`, `ranges`.

Why not simply repeat the request on an error? The same rows in another request are other rows to a
server, unless they carry a name; the name is (service, producer, epoch, seq), and it must outlive a
crash together with the bytes. Hence the numbers, the file, and the rule that no row is on the network
before it is in the file.
"""

from .answers import Rejected
from .batch import ProducerStats
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
    Incomplete,
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
from .results import IngestResult, QueryResult, SqlResult
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
    "Incomplete",
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
    "SqlResult",
    "SyncClient",
    "SyncProducer",
    "TooLarge",
    "Unauthorized",
    "Unknown",
]
