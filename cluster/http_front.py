"""What all HTTP handlers for clients share: request ids, errors as JSON, limits, access to the node.

Every answer carries `X-Quorumlog-Request-Id`; every error is `{"error": {"code", "message", "definite",
…}}` with the status of records.errors and `Retry-After` where one applies. An exception that is none of
ours is a bug: 500, logged with the request id, no text of it to the client.
"""

import asyncio
import json
import logging
import math
from collections.abc import Awaitable, Callable
from typing import Any

from aiohttp import http_exceptions, web

from records.errors import QuorumlogError
from records.ids import block_id, ulid
from runtime.clock import Clock
from runtime.entropy import Entropy
from runtime.logs import get_logger
from runtime.metrics import Metrics

log = get_logger(__name__)
REQUEST_ID_HEADER = "X-Quorumlog-Request-Id"
REQUEST_ID: web.RequestKey[str] = web.RequestKey("request_id", str)
Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


def json_response(
    body: Any, status: int = 200, headers: dict[str, str] | None = None
) -> web.Response:
    """Compact JSON without a trailing newline."""
    text = json.dumps(body, separators=(",", ":"), ensure_ascii=False)
    return web.Response(
        text=text, status=status, headers=headers, content_type="application/json", charset="utf-8"
    )


def retry_after(error: QuorumlogError) -> dict[str, str]:
    """`Retry-After` in whole seconds for 429, 503 and 507."""
    if error.http_status not in (429, 503, 507):
        return {}
    seconds = error.retry_after_seconds or 1
    return {"Retry-After": str(max(1, math.ceil(seconds)))}


def json_error(error: QuorumlogError) -> web.Response:
    """The answer that tells an error."""
    return json_response({"error": error.to_dict()}, error.http_status, retry_after(error))


def request_id(request: web.Request) -> str:
    """The id of this request, as in our logs."""
    return request.get(REQUEST_ID, "")


class _Malformed(logging.Filter):
    """Keeps what is no HTTP out of the log: anybody can send it, and its bytes may hold a secret."""

    def __init__(self, metrics: Metrics) -> None:
        super().__init__()
        self._count = metrics.counter(
            "quorumlog_http_malformed_total",
            "Requests that are no HTTP, answered 400 and not logged.",
        )

    def filter(self, record: logging.LogRecord) -> bool:
        """Whether the record is logged; the others are counted."""
        error = record.exc_info[1] if record.exc_info else None
        malformed = isinstance(error, http_exceptions.HttpProcessingError)
        if malformed:
            self._count.inc()
        return not malformed


def http_logger(metrics: Metrics) -> logging.Logger:
    """What the HTTP server logs to: its own mistakes as errors, its clients' as a count."""
    logger = logging.getLogger(f"{__name__}.server")
    logger.filters[:] = [_Malformed(metrics)]
    return logger


def front_middleware(clock: Clock, entropy: Entropy, metrics: Metrics) -> Any:
    """Gives each request its id, turns errors into answers, counts and times."""
    seconds = metrics.histogram(
        "quorumlog_http_request_seconds",
        "Time to answer, by route and status.",
        ["route", "status"],
    )
    bugs = metrics.counter("quorumlog_http_bugs_total", "Unexpected exceptions in handlers.")

    @web.middleware
    async def middleware(request: web.Request, handler: Handler) -> web.StreamResponse:
        started = clock.monotonic()
        request[REQUEST_ID] = ulid(block_id(clock.wall_micros() // 1000, entropy.bytes(10)))
        status = 499
        try:
            answer = await _answer(request, handler, bugs)
            status = answer.status
            if not answer.prepared:
                answer.headers[REQUEST_ID_HEADER] = request[REQUEST_ID]
            return answer
        finally:
            resource = request.match_info.route.resource
            route = resource.canonical if resource else "unknown"
            seconds.labels(route, str(status)).observe(clock.monotonic() - started)

    return middleware


async def _answer(request: web.Request, handler: Handler, bugs: Any) -> web.StreamResponse:
    try:
        return await handler(request)
    except QuorumlogError as error:
        return json_error(error)
    except web.HTTPException as error:
        if error.status < 400:
            raise
        return _plain_http_error(error)
    except (asyncio.CancelledError, ConnectionResetError):
        raise
    except Exception as error:  # noqa: BLE001 - the last line of defence; counted and logged
        bugs.inc()
        log.error("handler failed", request_id=request_id(request), path=request.path, error=error)
        body = {"code": "INTERNAL", "message": "an unexpected error; see the node's log"}
        body["request_id"] = request_id(request)
        return json_response({"error": {**body, "definite": False}}, 500)


def _plain_http_error(error: web.HTTPException) -> web.Response:
    codes = {404: "NOT_FOUND", 405: "METHOD_NOT_ALLOWED", 413: "TOO_LARGE"}
    code = codes.get(error.status, "INVALID_REQUEST")
    body = {"code": code, "message": error.reason, "definite": True}
    headers = {k: v for k, v in error.headers.items() if k == "Allow"}
    return json_response({"error": body}, error.status, headers)
