"""Every error quorumlog tells a caller, with its code, HTTP status and whether it is definite.

    QuorumlogError
    ├── Refused          definite: the operation surely had no effect
    │   ├── InvalidRequest 400 · TooLarge 413 · UnsupportedMedia 415 · NotFound 404
    │   ├── Unauthorized 401 · Forbidden 403 · MethodNotAllowed 405
    │   ├── NotLeader 503 (the leader) · NotReady 503 · Overloaded 429 (retry after) · DiskFull 507
    │   ├── Conflict 409 (same name, other bytes) · Fenced 409 (an older producer epoch)
    │   ├── StaleRingEpoch, StaleShardEpoch 409 (a node knows a newer one)
    │   └── InvalidSettings (at start)
    ├── Unknown          not definite: a write may exist; repeat it under the same identity
    │   ├── QuorumUnavailable 503 (carries the acks it had) · ConnectionLost 503 · DeadlineExceeded 504
    │   └── StorageFailed 503 (an fsync failed)
    └── Damaged          reads: quarantine and repair, never serve, never delete
        └── BlockCorrupt · EnvelopeCorrupt

`definite` follows Maelstrom's error table: a time-out with W-1 acknowledgements is not definite.
"""

from typing import Any, ClassVar


class QuorumlogError(Exception):
    """Base of the tree. `details` are extra JSON-able keys for the answer."""

    code: ClassVar[str] = "INTERNAL"
    http_status: ClassVar[int] = 500
    definite: ClassVar[bool] = False

    def __init__(self, message: str, **details: Any) -> None:
        super().__init__(message)
        self.message = message
        self.details = details

    @property
    def retry_after_seconds(self) -> float | None:
        """When to try again, if this error says so."""
        value = self.details.get("retry_after_seconds")
        return None if value is None else float(value)

    @property
    def is_definite(self) -> bool:
        """Whether this one says that the operation surely had no effect: details outweigh the class."""
        return self.details.get("definite", self.definite) is True

    def doubt(self) -> None:
        """Something of the operation may have been stored before this error came."""
        self.details["definite"] = False

    def to_dict(self) -> dict[str, Any]:
        """The body of an error answer: `{"code", "message", "definite", …details}`."""
        return {
            "code": self.code,
            "message": self.message,
            "definite": self.definite,
            **self.details,
        }


class Refused(QuorumlogError):
    """Surely had no effect."""

    code = "REFUSED"
    http_status = 503
    definite = True


class InvalidRequest(Refused):
    """The request cannot be read, or asks for what cannot be."""

    code = "INVALID_REQUEST"
    http_status = 400


class TooLarge(Refused):
    """Over a byte or row limit."""

    code = "TOO_LARGE"
    http_status = 413


class UnsupportedMedia(Refused):
    """Unknown content type or encoding."""

    code = "UNSUPPORTED_MEDIA"
    http_status = 415


class NotFound(Refused):
    """No such thing."""

    code = "NOT_FOUND"
    http_status = 404


class MethodNotAllowed(Refused):
    """The path exists, but not with this method."""

    code = "METHOD_NOT_ALLOWED"
    http_status = 405


class Unauthorized(Refused):
    """No credentials, or wrong ones."""

    code = "UNAUTHORIZED"
    http_status = 401


class Forbidden(Refused):
    """Good credentials without the right."""

    code = "FORBIDDEN"
    http_status = 403


class NotLeader(Refused):
    """A sequenced batch met an ingestor that does not lead its shard (details: `leader`)."""

    code = "NOT_LEADER"
    http_status = 503


class NotReady(Refused):
    """The node (or the cluster) is not able to serve yet."""

    code = "NOT_READY"
    http_status = 503


class Overloaded(Refused):
    """A bound was reached (details: `retry_after_seconds`)."""

    code = "OVERLOADED"
    http_status = 429


class DiskFull(Refused):
    """Below the free-space floor: read-only."""

    code = "DISK_FULL"
    http_status = 507


class Conflict(Refused):
    """The same name with other bytes: what a producer looks like that restarted its counter."""

    code = "CONFLICT"
    http_status = 409


class Fenced(Refused):
    """A producer epoch older than the newest sealed one (details: `epoch`)."""

    code = "FENCED"
    http_status = 409


class StaleRingEpoch(Refused):
    """A storage node knows a newer ring (details: `epoch`)."""

    code = "STALE_RING_EPOCH"
    http_status = 409


class StaleShardEpoch(Refused):
    """A storage node knows a newer leader of the shard (details: `shard`, `epoch`)."""

    code = "STALE_SHARD_EPOCH"
    http_status = 409


class InvalidSettings(Refused):
    """A setting is out of its bounds; said at start."""

    code = "INVALID_SETTINGS"
    http_status = 500


class Unknown(QuorumlogError):
    """The outcome is unknown: repeat the same bytes under the same identity."""

    code = "UNKNOWN_OUTCOME"
    http_status = 503


class QuorumUnavailable(Unknown):
    """Fewer than W owners confirmed in time (details: `acks`, `needed`)."""

    code = "QUORUM_UNAVAILABLE"


class ConnectionLost(Unknown):
    """The peer went away after the request may have reached it."""

    code = "CONNECTION_LOST"


class DeadlineExceeded(Unknown):
    """The deadline passed first."""

    code = "DEADLINE_EXCEEDED"
    http_status = 504


class StorageFailed(Unknown):
    """Write or fsync failed; the file takes no more."""

    code = "STORAGE_FAILED"


class Damaged(QuorumlogError):
    """Bytes that do not match their checksum."""

    code = "DAMAGED"


class BlockCorrupt(Damaged):
    """A block fails a checksum or a bound."""

    code = "BLOCK_CORRUPT"


class EnvelopeCorrupt(Damaged):
    """A node-to-node message fails a checksum or a bound."""

    code = "ENVELOPE_CORRUPT"
    http_status = 400


def _tree(root: type[QuorumlogError]) -> list[type[QuorumlogError]]:
    return [root, *(sub for child in root.__subclasses__() for sub in _tree(child))]


def error_from_dict(body: dict[str, Any]) -> QuorumlogError:
    """The error that a peer's answer describes; an unknown code becomes `Unknown` (never definite)."""
    details = {k: v for k, v in body.items() if k not in ("code", "message", "definite")}
    for kind in _tree(QuorumlogError):
        if kind.code == body.get("code"):
            return kind(str(body.get("message", "")), **details)
    return Unknown(f"{body.get('code')}: {body.get('message')}", **details)
