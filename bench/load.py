"""Sends batches over some connections at once and says what it took."""

import http.client
import json
import sys
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TypeVar
from urllib.parse import urlsplit

from bench import nodes
from bench.corpus import Body

T = TypeVar("T")
#: Seconds without an answer until a request fails.
ANSWER_SECONDS = 120.0
#: Seconds, after the last acknowledgement, until all rows must be seen.
VISIBLE_SECONDS = 60.0
#: Seconds for replicas that were not waited for to finish, so that their CPU is counted.
SETTLE_SECONDS = 0.3


@dataclass(slots=True)
class Load:
    """What sending took. Seconds; `acks`: one a batch; `cpu_seconds`: of the store, of ours by process too.

    `overcounts`: answers, while it became visible, that counted more rows than were ever sent.
    """

    rows: int = 0
    acked_seconds: float = 0.0
    visible_seconds: float = 0.0
    cpu_seconds: float | None = None
    cpu_by_process: list[float] = field(default_factory=list)
    overcounts: int = 0
    acks: list[float] = field(default_factory=list)

    @property
    def micros_per_row(self) -> float | None:
        """CPU of the store, microseconds a row."""
        return None if self.cpu_seconds is None else self.cpu_seconds * 1e6 / self.rows


Send = Callable[[http.client.HTTPConnection, int, T], None]


def connect(url: str) -> http.client.HTTPConnection:
    """A connection to a server's address."""
    parts = urlsplit(url)
    assert parts.hostname, url
    kind = http.client.HTTPSConnection if parts.scheme == "https" else http.client.HTTPConnection
    return kind(parts.hostname, parts.port, timeout=ANSWER_SECONDS)


def drive(payloads: Sequence[T], urls: Sequence[str], connections: int, send: Send[T]) -> Load:
    """Each payload once, over `connections` threads that take turns at the addresses.

    Raises:
        RuntimeError: one was refused: the figures would be worthless.
    """
    load = Load()
    queue = iter(list(enumerate(payloads)))
    lock, errors = threading.Lock(), []

    def work(url: str) -> None:
        link = connect(url)
        try:
            while not errors:
                with lock:
                    item = next(queue, None)
                if item is None:
                    return
                started = time.perf_counter()
                send(link, *item)
                load.acks.append(time.perf_counter() - started)
        except Exception as error:  # noqa: BLE001 - rises in the thread that waits
            errors.append(error)
        finally:
            link.close()

    threads = [
        threading.Thread(target=work, args=(urls[i % len(urls)],)) for i in range(connections)
    ]
    started = time.perf_counter()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    load.acked_seconds = time.perf_counter() - started
    if errors:
        raise RuntimeError(f"the load failed: {errors[0]}") from errors[0]
    return load


def wait_for(count: Callable[[], int], wanted: int, seconds: float = VISIBLE_SECONDS) -> int:
    """Until a reader counts `wanted` rows; how often it counted more, which no store ever should.

    Raises:
        RuntimeError: it does not, in time: acknowledged rows are missing, or some are there twice.
    """
    until, over = time.monotonic() + seconds, 0
    while (seen := count()) != wanted:
        if seen > wanted:
            over += 1
            sys.stderr.write(f"WRONG: {wanted:,} rows were sent, {seen:,} are seen\n")
        if time.monotonic() > until:
            raise RuntimeError(f"{wanted:,} rows were acknowledged, {seen:,} are seen")
        time.sleep(0.02)
    return over


def send(
    cluster: nodes.Cluster, bodies: Sequence[Body], connections: int, held: int | None = None
) -> Load:
    """Sends batches to our nodes, in turn, and waits until a quorum read counts them all.

    A batch that was sent before is acknowledged and not stored again: send fresh rows.
    `held`: rows there before, asked for if not given. The load's CPU is that of all nodes.

    Raises:
        RuntimeError: a row was refused, or is not seen: the figures would be worthless.
    """
    before = nodes.count(cluster.ports[0]) if held is None else held
    cpu = cluster.cpu_seconds()

    def post(link: http.client.HTTPConnection, _: int, body: Body) -> None:
        link.request("POST", "/logs", body.json, {"Content-Type": "application/x-ndjson"})
        answer = link.getresponse()
        text = answer.read()
        told = json.loads(text) if answer.status == 200 else {}
        if told.get("accepted", 0) + told.get("duplicates", 0) != body.rows:
            raise RuntimeError(f"POST /logs: {answer.status} {text[:300]!r}")

    started = time.perf_counter()
    load = drive(bodies, cluster.urls, connections, post)
    load.rows = sum(body.rows for body in bodies)
    load.overcounts = wait_for(lambda: nodes.count(cluster.ports[0]), before + load.rows)
    load.visible_seconds = time.perf_counter() - started
    time.sleep(SETTLE_SECONDS)
    load.cpu_by_process = [
        after - was for after, was in zip(cluster.cpu_seconds(), cpu, strict=True)
    ]
    load.cpu_seconds = sum(load.cpu_by_process)
    return load
