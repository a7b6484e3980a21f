"""The load of `bench heal` goes on whatever its node does, and says what went wrong."""

import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from bench.heal import Load, Plan, caught_up_with

PLAN = Plan(rows_per_second=10_000, batch_rows=10, services=2)


class Handler(BaseHTTPRequestHandler):
    """Ends the first connection without a word, refuses the second request, takes the others."""

    protocol_version = "HTTP/1.1"
    seen: list[int]
    enough: threading.Event

    def do_POST(self) -> None:
        self.seen.append(len(self.rfile.read(int(self.headers["Content-Length"])).splitlines()))
        if len(self.seen) == 1:
            self.close_connection = True
            return
        body = json.dumps({"accepted": self.seen[-1]}).encode()
        self.send_response(503 if len(self.seen) == 2 else 200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
        if len(self.seen) >= 5:
            self.enough.set()

    def log_message(self, *_: Any) -> None:
        """Nothing."""


def test_a_connection_that_ends_is_told_and_the_load_goes_on() -> None:
    """Five batches: one lost, one refused, the rest counted."""
    handler = type("Fresh", (Handler,), {"seen": [], "enough": threading.Event()})
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        load = Load(server.server_address[1], PLAN)
        reached = handler.enough.wait(20)
        load.stop()
        server.shutdown()

    assert reached
    assert len(load.failures) == 2
    assert load.acked == 10 * (len(handler.seen) - 2)


def test_caught_up_is_each_shard_compared_with_each_other_owner() -> None:
    """Twice with one of them is not enough, nor is a comparison that left something to be copied."""
    whole = {"compared_at": {"a": 1, "b": 2}, "lacking": 0}

    assert caught_up_with({"shards": [whole, whole]}, 2)
    assert not caught_up_with({"shards": [whole, whole | {"compared_at": {"a": 3}}]}, 2)
    assert not caught_up_with({"shards": [whole, whole | {"lacking": 1}]}, 2)
    assert not caught_up_with({"shards": []}, 2)
    assert not caught_up_with({}, 2)
