"""The adapters against a server that notes what it is sent and answers as the real one is documented to."""

import json
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import pytest

from bench import corpus
from bench.peers.base import Answered
from bench.peers.choose import NoPeer, make, parse_server
from bench.peers.clickhouse import ClickHouse
from bench.peers.loki import Loki
from bench.peers.victorialogs import VictoriaLogs
from bench.questions import QUESTIONS, canonical, facts, micros

BODIES = list(corpus.cut(corpus.table_of("rich", 60, 0), 30))
BY_NAME = {one.name: one for one in QUESTIONS}
FACTS = facts(1, 60)
Reply = Callable[[str, dict[str, str], bytes], tuple[int, bytes]]


class Server:
    """Requests as (path, parameters, headers, body); answers by `reply`."""

    def __init__(self, reply: Reply) -> None:
        self.seen: list[tuple[str, dict[str, str], dict[str, str], bytes]] = []
        outer = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                parts = urlsplit(self.path)
                params = {k: v[0] for k, v in parse_qs(parts.query).items()}
                body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
                outer.seen.append((parts.path, params, dict(self.headers), body))
                status, text = reply(parts.path, params, body)
                self.send_response(status)
                self.send_header("Content-Length", str(len(text)))
                self.end_headers()
                self.wfile.write(text)

            do_POST = do_GET

            def log_message(self, *_: object) -> None:
                pass

        self._http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._http.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._http.server_address[1]}"
        threading.Thread(target=self._http.serve_forever, args=(0.01,), daemon=True).start()

    def at(self, path: str) -> list[tuple[str, dict[str, str], dict[str, str], bytes]]:
        """The requests to a path."""
        return [one for one in self.seen if one[0] == path]

    def close(self) -> None:
        """Stops it."""
        self._http.shutdown()
        self._http.server_close()


@pytest.fixture
def serve() -> Iterator[Callable[[Reply], Server]]:
    """Makes servers, and stops them."""
    made: list[Server] = []

    def make_server(reply: Reply) -> Server:
        made.append(Server(reply))
        return made[-1]

    yield make_server
    for one in made:
        one.close()


def test_victorialogs_gets_json_lines_in_a_tenant_of_its_own(
    serve: Callable[[Reply], Server],
) -> None:
    """Field names are told, rows are as they are; counting asks the server to show them first."""

    def reply(path: str, params: dict[str, str], body: bytes) -> tuple[int, bytes]:
        if path == "/metrics":
            return (
                200,
                b'vl_data_size_bytes{type="indexdb"} 5\nvl_data_size_bytes{type="storage"} 1e3\n',
            )
        return 200, b'{"n":"60"}\n' if path == "/select/logsql/query" else b""

    server = serve(reply)
    peer = VictoriaLogs(server.url)
    peer.open("rich")
    taken = peer.load("rich", BODIES, 2)
    peer.close()

    sent = server.at("/insert/jsonline")
    assert sorted(body for *_, body in sent) == sorted(body.json for body in BODIES)
    assert sent[0][1]["_time_field"] == "timestamp"
    assert sent[0][1]["_msg_field"] == "message"
    assert taken.rows == 60
    assert taken.cpu_seconds is None
    assert len({one[2]["AccountID"] for one in (*sent, *server.at("/select/logsql/query"))}) == 1
    assert server.at("/internal/force_flush")
    assert peer._before == {"rich": 1005}


def test_victorialogs_answers_become_plain(serve: Callable[[Reply], Server]) -> None:
    """All its values are text."""
    answers = {
        "rows per minute per service": b'{"_time":"2026-01-01T00:01:00Z","service":"auth","n":"7"}\n',
        "one user_id": b'{"_time":"2026-01-01T00:00:00.000007Z","_msg":"hello"}\n',
        "p95 duration by service": b'{"service":"auth","n":"12.5"}\n',
        "top 10 hosts by errors": b'{"host":"h1","n":"3"}\n',
    }
    now = [b""]
    server = serve(lambda *_: (200, now[0]))
    peer = VictoriaLogs(server.url)
    peer.bind("rich", FACTS)
    found = {}
    for name, text in answers.items():
        now[0] = text
        found[name] = peer.ask(BY_NAME[name])
    peer.close()

    assert found == {
        "rows per minute per service": [(1_767_225_660_000_000, "auth", 7)],
        "one user_id": [(1_767_225_600_000_007, "hello")],
        "p95 duration by service": [("auth", 12.5)],
        "top 10 hosts by errors": [("h1", 3)],
    }


def test_loki_gets_a_stream_for_each_service_and_level(serve: Callable[[Reply], Server]) -> None:
    """No row is lost or changed in its wire form: times in nanoseconds, all else as structured metadata."""
    vector = {"data": {"resultType": "vector", "result": [{"metric": {}, "value": [1, "60"]}]}}
    server = serve(lambda *_: (200, json.dumps(vector).encode()))
    peer = Loki(server.url)
    peer.open("rich")
    peer.load("rich", BODIES, 2)
    peer.close()

    rows = []
    for *_, body in server.at("/loki/api/v1/push"):
        for stream in json.loads(body)["streams"]:
            assert set(stream["stream"]) == {"service", "level", "run"}
            for at, line, more in stream["values"]:
                labels = {k: stream["stream"][k] for k in ("service", "level")}
                rows.append((at, line, {**labels, **more}))
    wanted = []
    for body in BODIES:
        for row in body.table.to_pylist():
            at, line = str(micros(row.pop("timestamp")) * 1000), row.pop("message")
            wanted.append((at, line, {name: str(value) for name, value in row.items()}))
    assert sorted(rows, key=repr) == sorted(wanted, key=repr)


def test_loki_matrix_points_stand_for_the_minute_before_them(
    serve: Callable[[Reply], Server],
) -> None:
    """A range vector is open at its start and closed at its end: it is asked at the last nanosecond."""
    matrix = {
        "data": {
            "resultType": "matrix",
            "result": [
                {"metric": {"service": "auth"}, "values": [[1767225659.999, "4"], [1767225719.999, "1"]]}
            ],
        }
    }  # fmt: skip
    server = serve(lambda *_: (200, json.dumps(matrix).encode()))
    peer = Loki(server.url)
    peer.bind("slim", FACTS)
    answer = peer.ask(BY_NAME["rows per minute per service"])
    peer.close()

    start = 1_767_225_600
    assert answer == [(start * 1_000_000, "auth", 4), ((start + 60) * 1_000_000, "auth", 1)]
    ((_, params, _, _),) = server.seen
    assert params["start"] == str((start + 60) * 1_000_000_000 - 1)
    assert params["step"] == "60"


def test_loki_streams_and_vectors_become_plain(serve: Callable[[Reply], Server]) -> None:
    """Lines of several streams; counts; nothing found is a count of 0."""
    now = [b""]
    server = serve(lambda *_: (200, now[0]))
    peer = Loki(server.url)
    peer.bind("rich", FACTS)

    def asked(name: str, kind: str, result: list[object]) -> object:
        now[0] = json.dumps({"data": {"resultType": kind, "result": result}}).encode()
        question = BY_NAME[name]
        return canonical(peer.ask(question) or [], question.shape)

    streams = [{"stream": {"a": "b"}, "values": [["1767225600000007000", "hello", {"x": "y"}]]}]
    assert asked("one trace_id", "streams", streams) == [(1_767_225_600_000_007, "hello")]
    levels = [{"metric": {"level": "info"}, "value": [1, "5"]}]
    assert asked("count by level", "vector", levels) == [("info", 5)]
    assert asked("phrase count", "vector", []) == []
    p95 = [{"metric": {"service": "auth"}, "value": [1, "12.5"]}]
    assert asked("p95 duration by service", "vector", p95) == [("auth", 12.5)]
    peer.close()


def test_clickhouse_makes_its_tables_and_drops_them(serve: Callable[[Reply], Server]) -> None:
    """A database of its own, INSERTs of JSON lines, a DROP at the end."""

    def reply(path: str, params: dict[str, str], body: bytes) -> tuple[int, bytes]:
        return 200, b'{"data":[[60]]}'

    server = serve(reply)
    peer = ClickHouse(server.url)
    peer.open("rich")
    peer.load("rich", BODIES, 1)
    peer.close()

    statements = [params.get("query") or body.decode() for _, params, _, body in server.seen]
    words = [" ".join(one.split()[:2]) for one in statements]
    assert words[:2] == ["CREATE DATABASE", "CREATE TABLE"]
    assert words[-1] == "DROP DATABASE"
    inserts = [body for _, params, _, body in server.seen if "INSERT" in params.get("query", "")]
    assert inserts == [body.json for body in BODIES]
    assert all(f"{name} " in statements[1] for name in corpus.RICH)


def test_a_refused_batch_ends_the_run(serve: Callable[[Reply], Server]) -> None:
    """A figure over rows that were not taken would be a lie."""
    server = serve(lambda path, *_: (429 if path == "/insert/jsonline" else 200, b"slow down"))
    peer = VictoriaLogs(server.url)

    with pytest.raises(RuntimeError, match="429 b'slow down'") as raised:
        peer.load("rich", BODIES, 1)
    peer.close()

    assert isinstance(raised.value.__cause__, Answered)


def test_a_peer_is_named_in_words(tmp_path: Path) -> None:
    """Address, process, folder; what is wrong with them is said."""
    assert parse_server("http://h:1,pid=7,data=/d") == ("http://h:1", 7, "/d")
    for words, reason in (
        ("loki=localhost:3100", "not an address"),
        ("loki=http://h:1,pod=7", "only pid=N"),
        ("loki=http://h:1,pid=x", "not a number"),
        ("chdb", "which interpreter"),
        ("elastic=http://h:1", "none of duckdb"),
    ):
        with pytest.raises(NoPeer, match=reason):
            make(words, tmp_path)
