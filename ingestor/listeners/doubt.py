"""What is sure of a request that was tried at several nodes, one after another.

An answer is definite ("surely nothing was stored") only if all tries before it were: a leader that was lost
while it answered may have stored the rows that the next one refuses.
"""

import json
from typing import Any

from aiohttp import web

from records.errors import NotLeader, NotReady, QuorumlogError


def surely(error: QuorumlogError, sure: bool) -> bool:
    """Whether nothing is stored, after this error too; `sure`: that it was so before. Tells the error."""
    if not sure:
        error.doubt()
    return error.is_definite


def as_sure(answer: web.Response, sure: bool) -> tuple[web.Response, bool]:
    """A leader's answer that claims no more than is sure, and whether still nothing is stored."""
    body = _body_of(answer)
    said = body.get("definite") is True
    if said and not sure:
        text = json.dumps({**body, "definite": False}, separators=(",", ":"), ensure_ascii=False)
        back = {name: answer.headers[name] for name in answer.headers if name != "Content-Length"}
        return web.Response(body=text.encode(), status=answer.status, headers=back), False
    return answer, said and sure


def try_again(answer: web.Response) -> bool:
    """Whether the node that was asked does not lead (yet, or any more)."""
    if answer.status != 503:
        return False
    body = _body_of(answer)
    return not body or body.get("code") in (NotLeader.code, NotReady.code)


def _body_of(answer: web.Response) -> dict[str, Any]:
    try:
        body = json.loads(answer.body or b"")  # type: ignore[arg-type]
    except ValueError:
        return {}
    return body if isinstance(body, dict) else {}
