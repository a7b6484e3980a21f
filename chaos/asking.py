"""Asks a cluster under attack: any of its nodes that answers, within a time. Blocks."""

import http.client
import json
import time
from collections.abc import Callable, Collection, Mapping
from typing import Any, TypeVar

from chaos.local_cluster import LocalCluster
from node.cli_errors import CliError

#: Seconds for one node to answer, and for any node to do so.
ASK_SECONDS, ANY_SECONDS = 5.0, 30.0
POLL_SECONDS = 0.01
T = TypeVar("T")
Answer = tuple[int, Any]


def ask(
    cluster: LocalCluster,
    path: str,
    body: Mapping[str, Any] | None = None,
    *,
    method: str = "",
    avoid: Collection[str] = (),
) -> Answer | None:
    """(status, JSON) of the first node that answers below 500, none of `avoid` asked; None if none does."""
    data = None if body is None else json.dumps(body).encode()
    verb = method or ("GET" if body is None else "POST")
    for node in cluster.plan.nodes:
        if node.id in avoid or node.id not in cluster.running:
            continue
        connection = http.client.HTTPConnection(node.host, node.http_port, timeout=ASK_SECONDS)
        try:
            connection.request(verb, path, data, {"Content-Type": "application/json"})
            reply = connection.getresponse()
            answer = json.loads(reply.read())
        except (OSError, ValueError, http.client.HTTPException):
            continue
        finally:
            connection.close()
        if reply.status < 500:
            return reply.status, answer
    return None


def until(what: str, look: Callable[[], T | None], seconds: float, step: float = POLL_SECONDS) -> T:
    """The first value of `look` that is not None.

    Raises:
        CliError: there is none in time.
    """
    end = time.monotonic() + seconds
    while True:
        found = look()
        if found is not None:
            return found
        if time.monotonic() > end:
            raise CliError(f"{what}: not within {seconds:.0f} s")
        time.sleep(step)


def told(cluster: LocalCluster, path: str, avoid: Collection[str] = ()) -> Any:
    """The JSON of a GET that some node answers with 200.

    Raises:
        CliError: none does in ANY_SECONDS.
    """

    def look() -> Any:
        answer = ask(cluster, path, avoid=avoid)
        return answer[1] if answer is not None and answer[0] == 200 else None

    return until(f"an answer to {path}", look, ANY_SECONDS)
