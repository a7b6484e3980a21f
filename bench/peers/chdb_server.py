"""chDB (ClickHouse as a library) behind the part of ClickHouse's HTTP interface that the adapter uses.

    python bench/peers/chdb_server.py --port 18123 --folder DIR

Stands alone: any Python that has `chdb` runs it, so that chDB is no dependency of ours. Statements run one
at a time, as chDB has it; each uses all cores.
"""

import argparse
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

BODY_BYTES_MAX = 256 << 20


def handler(session: Any) -> type[BaseHTTPRequestHandler]:
    """A handler class bound to a chDB session."""
    lock = threading.Lock()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        disable_nagle_algorithm = True

        def do_GET(self) -> None:
            self._answer(200, b"Ok.\n")

        def do_POST(self) -> None:
            length = int(self.headers.get("Content-Length", 0))
            if length > BODY_BYTES_MAX:
                self.close_connection = True
                self._answer(413, b"too large")
                return
            body = self.rfile.read(length)
            params = {k: v[0] for k, v in parse_qs(urlsplit(self.path).query).items()}
            try:
                with lock:
                    found = self._run(params, body)
            except Exception as error:  # noqa: BLE001 - goes to the asking side
                self._answer(500, str(error).encode())
                return
            self._answer(200, found)

        def _run(self, params: dict, body: bytes) -> bytes:
            insert = params.get("query", "")
            if insert:
                head, _, form = insert.rpartition(" FORMAT ")
                dates = f"date_time_input_format='{params['date_time_input_format']}'"
                session.query(f"{head} SETTINGS {dates} FORMAT {form} " + body.decode())
                return b""
            text = body.decode()
            found = session.query(text, params["default_format"])
            return found.bytes() if text.lstrip()[:6].upper() == "SELECT" else b""

        def _answer(self, status: int, body: bytes) -> None:
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    return Handler


def main() -> None:
    """Serves until it is ended."""
    from chdb import session

    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--folder", required=True)
    options = parser.parse_args()
    serve = session.Session(options.folder)
    serve.query("SELECT 1 SETTINGS output_format_json_quote_64bit_integers = 0")
    server = ThreadingHTTPServer(("127.0.0.1", options.port), handler(serve))
    sys.stderr.write("ready\n")
    server.serve_forever()


if __name__ == "__main__":
    main()
