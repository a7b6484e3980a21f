"""Sends bodies over some connections at once and says what it took, ours and the store's."""

import http.client
import itertools
import json
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, field

from bench import nodes
from bench.corpus import Body

_run = itertools.count()


@dataclass(slots=True)
class Load:
    """What sending took. Seconds; `visible_seconds` ends when a reader counts every row."""

    rows: int = 0
    acked_seconds: float = 0.0
    visible_seconds: float = 0.0
    acks: list[float] = field(default_factory=list)


def send(cluster: nodes.Cluster, bodies: Sequence[Body], connections: int) -> Load:
    """Sends all bodies, each once, spread over the nodes; then waits until all rows are seen.

    Raises:
        RuntimeError: a row was refused, or is not seen: the figures would be worthless.
    """
    before = nodes.count(cluster.ports[0])
    load, run = Load(), next(_run)
    queue = iter(list(enumerate(bodies)))
    lock, errors = threading.Lock(), []

    def work(port: int) -> None:
        link = http.client.HTTPConnection("127.0.0.1", port, timeout=120)
        try:
            while not errors:
                with lock:
                    item = next(queue, None)
                if item is None:
                    return
                number, body = item
                started = time.perf_counter()
                _post(link, f"bench-{run}-{number}", body)
                load.acks.append(time.perf_counter() - started)
        except Exception as error:  # noqa: BLE001 - rises in the thread that waits
            errors.append(error)
        finally:
            link.close()

    threads = [
        threading.Thread(target=work, args=(cluster.ports[i % len(cluster.ports)],))
        for i in range(connections)
    ]
    started = time.perf_counter()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    load.acked_seconds = time.perf_counter() - started
    if errors:
        raise RuntimeError("the load failed") from errors[0]
    load.rows = sum(body.rows for body in bodies)
    while (seen := nodes.count(cluster.ports[0])) < before + load.rows:
        if time.perf_counter() - started > load.acked_seconds + 30:
            raise RuntimeError(f"{before + load.rows} rows were acknowledged, {seen} are seen")
    load.visible_seconds = time.perf_counter() - started
    return load


def _post(link: http.client.HTTPConnection, key: str, body: Body) -> None:
    headers = {"Content-Type": "application/x-ndjson", "Idempotency-Key": key}
    link.request("POST", "/logs", body.json, headers)
    answer = link.getresponse()
    text = answer.read()
    if answer.status != 200 or json.loads(text)["accepted"] != body.rows:
        raise RuntimeError(f"POST /logs: {answer.status} {text[:300]!r}")
