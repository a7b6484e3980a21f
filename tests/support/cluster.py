"""A real cluster for tests: that of the chaos suite, with what tests want around it."""

import json
import time
import urllib.error
import urllib.request
from typing import Any

from chaos.local_cluster import LocalCluster, free_port_base, running_cluster

__all__ = ["LocalCluster", "eventually", "free_port_base", "http", "running_cluster"]


def http(
    method: str,
    url: str,
    body: bytes | None = None,
    headers: dict[str, str] | None = None,
    timeout: float = 30.0,
) -> tuple[int, Any, dict[str, str]]:
    """(status, JSON or text, headers) of one request; an error status is an answer, not an exception."""
    request = urllib.request.Request(url, data=body, headers=headers or {}, method=method)
    try:
        with urllib.request.urlopen(request, timeout=timeout) as answer:
            return answer.status, _decoded(answer.read()), dict(answer.headers)
    except urllib.error.HTTPError as error:
        with error:
            return error.code, _decoded(error.read()), dict(error.headers)


def _decoded(body: bytes) -> Any:
    try:
        return json.loads(body)
    except ValueError:
        return body.decode("utf-8", "replace")


def eventually(check: Any, seconds: float = 10.0, every: float = 0.1) -> Any:
    """The first truthy value of `check()`; fails when time is up."""
    until = time.monotonic() + seconds
    while True:
        value = check()
        if value:
            return value
        assert time.monotonic() < until, f"not within {seconds} s: {check}"
        time.sleep(every)
