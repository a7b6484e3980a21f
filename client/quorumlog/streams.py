"""Rows out of an HTTP body while it arrives: pieces of bytes, lines, dicts.

A stream must never look whole when it is not. A body that ends too early is `ConnectionLost`; before
that the server may have written a last line `{"error": {"code": ...}}`, which is raised as what it is.
(A row always has an `_id`, so a row with a field `error` is not mistaken for it.)
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import AsyncGenerator, Mapping
from typing import Any

import aiohttp

from .answers import error_from
from .errors import ConnectionLost, Incomplete, ServerFailed

_COMPLETE = "X-Quorumlog-Complete"
_MISSING = "X-Quorumlog-Missing"


def require_complete(headers: Mapping[str, str]) -> None:
    """Raises Incomplete if the server said so at the start of the stream."""
    if headers.get(_COMPLETE, "true").lower() != "false":
        return
    text = headers.get(_MISSING, "")
    try:
        missing = json.loads(text or "[]")
    except ValueError:  # cut off at the header's limit
        missing = [text]
    raise Incomplete(
        "not all shards can be read (partial=True takes what there is)", missing=missing
    )


async def pieces_of(answer: aiohttp.ClientResponse) -> AsyncGenerator[bytes, None]:
    """The body as it arrives.

    Raises:
        ConnectionLost: it ended in the middle, or stood still for too long.
    """
    try:
        async for piece in answer.content.iter_any():
            yield piece
    except (aiohttp.ClientError, OSError, TimeoutError) as error:
        raise ConnectionLost(f"the stream ended in the middle: {error}") from error


async def rows_of(answer: aiohttp.ClientResponse) -> AsyncGenerator[dict[str, Any], None]:
    """One dict a line; the piece after the last newline waits for the next piece."""
    rest = b""
    async with contextlib.aclosing(pieces_of(answer)) as pieces:
        async for piece in pieces:
            *whole, rest = (rest + piece).split(b"\n")
            for line in whole:
                if line.strip():
                    yield _row(line)
    if rest.strip():
        yield _row(rest)


def _row(line: bytes) -> dict[str, Any]:
    try:
        row = json.loads(line)
    except ValueError as error:
        raise ServerFailed(f"a line of the stream is not JSON: {line[:100]!r}") from error
    if not isinstance(row, dict):
        raise ServerFailed(f"a line of the stream is not an object: {line[:100]!r}")
    if row.keys() == {"error"} and isinstance(row["error"], dict):
        detail = row["error"]
        if detail.get("code") == "INCOMPLETE":
            raise Incomplete(str(detail.get("message")), missing=detail.get("missing") or [])
        raise error_from(503, {}, line)
    return row
