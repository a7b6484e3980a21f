"""What a request's head says: tenant, who sends, how many acks, when to give up. Pure but for the clock."""

from dataclasses import dataclass

from aiohttp import web

from ingestor.limits import Limits
from ingestor.listeners.proxy import DEADLINE, PROXIED
from ingestor.options import Options, read_options
from ingestor.validate import check_identifier
from records.errors import InvalidRequest
from records.ids import DEFAULT_TENANT
from runtime.clock import Clock

_UINT32 = 1 << 32

#: Bytes of an Idempotency-Key.
KEY_MAX_BYTES = 1024


@dataclass(frozen=True, slots=True)
class Head:
    """A request without its body. `hold_seconds`: for how long a write is held before it is refused;
    counted from when the rows are there, since a slow client's time is its own."""

    tenant: str
    surface: str
    principal: str
    peer: str
    key: str | None
    query: str
    options: Options
    ack: str | None
    hold_seconds: float
    received_at: int
    proxied: bool
    wants_hint: bool


def read_head(request: web.Request, limits: Limits, clock: Clock) -> Head:
    """The head of `request`.

    Raises:
        InvalidRequest: a tenant, number or list that cannot be read.
    """
    headers = request.headers
    surface = request.path
    options = read_options(request.query, headers)
    insert = surface.startswith("/insert/")
    key = headers.get("Idempotency-Key") or None
    if key is not None and len(key) > KEY_MAX_BYTES:
        raise InvalidRequest(f"Idempotency-Key is longer than {KEY_MAX_BYTES} bytes")
    proxied = PROXIED in headers
    return Head(
        tenant=_tenant(request, insert),
        surface=surface,
        principal=headers.get("Authorization", ""),
        peer=request.remote or "",
        key=key,
        query=request.query_string,
        options=options.for_insert() if insert else options,
        ack=_ack(request),
        hold_seconds=_hold_seconds(request, limits, proxied),
        received_at=clock.wall_micros(),
        proxied=proxied,
        wants_hint=headers.get("X-Quorumlog-Redirect", "").strip().lower() == "hint",
    )


def _tenant(request: web.Request, insert: bool) -> str:
    named = request.headers.get("X-Scope-OrgID")
    if named:
        return check_identifier(named, "tenant")
    if not insert:
        return DEFAULT_TENANT
    account, project = (_uint32(request, name) for name in ("AccountID", "ProjectID"))
    return f"{account}:{project}" if account or project else DEFAULT_TENANT


def _uint32(request: web.Request, name: str) -> int:
    text = request.headers.get(name, "0").strip()
    if text.isascii() and text.isdigit() and len(text) <= 10 and int(text) < _UINT32:
        return int(text)
    raise InvalidRequest(f"{name} must be a whole number below 2^32", reason="bad_tenant")


def _ack(request: web.Request) -> str | None:
    text = request.headers.get("X-Quorumlog-W") or request.query.get("ack")
    if text is None or text in ("one", "quorum", "all"):
        return text
    if text.isascii() and text.isdigit() and 1 <= len(text) <= 2:
        return text
    raise InvalidRequest("X-Quorumlog-W is a number of owners; ack is one, quorum or all")


def _hold_seconds(request: web.Request, limits: Limits, proxied: bool) -> float:
    left = request.headers.get(DEADLINE, "")
    if proxied and left.isascii() and left.isdigit() and len(left) < 7:
        return min(limits.hold_seconds, int(left) / 1000)
    return limits.hold_seconds
