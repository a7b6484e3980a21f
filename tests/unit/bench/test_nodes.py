"""That a figure is never taken from somebody else's nodes."""

import json
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest

from bench import nodes


def test_another_cluster_on_our_ports_is_refused(tmp_path: Path) -> None:
    """Two benchmarks that chose the same ports at once: the later one's nodes could not listen."""

    class Stranger(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            body = json.dumps({"cluster_id": "theirs"}).encode()
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    server = HTTPServer(("127.0.0.1", 0), Stranger)
    threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    cluster = nodes.Cluster(tmp_path / "c", 1)
    cluster.ports = [server.server_address[1]]
    try:
        with pytest.raises(RuntimeError, match="answers for cluster theirs, not ql-bench-"):
            cluster._check()
    finally:
        server.shutdown()
        server.server_close()
