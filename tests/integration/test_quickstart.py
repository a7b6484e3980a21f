"""What a user does on the first day: up, look, send, ask, break, repair; by commands alone.

Each command is a process; its answer is read as a script would (`--json`, exit codes), and once as a person.
"""

import csv
import gzip
import io
import json
import os
import signal
import subprocess
import time
import urllib.request
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from tests.support.cluster import eventually, http
from tests.support.shell import Shell, ended

pytestmark = [pytest.mark.integration, pytest.mark.beside, pytest.mark.timeout(150)]


@pytest.fixture(scope="module")
def user(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shell]:
    """Somebody with a fresh cluster, which `down` ends."""
    user = Shell(tmp_path_factory.mktemp("quickstart"))
    user.up("--nodes", "3")
    try:
        yield user
    finally:
        pids = [node["pid"] for node in user.nodes()]
        user.run("down", "--data", str(user.data))
        assert all(map(ended, pids))
        assert user.code("down", "--data", str(user.home / "nothing")) == 2


def rows_found(user: Shell, service: str) -> int:
    """Rows of a service."""
    found = user.json("stats", "--by", "service")["rows"]
    return sum(row["count"] for row in found if row["service"] == service)


def rows_of(service: str, count: int) -> list[dict[str, Any]]:
    """Rows with numbers, over two hours."""
    return [
        {"service": service, "level": "info" if n % 10 else "error", "message": f"{service} {n}",
         "timestamp": f"2026-03-01T{10 + n % 2}:00:{n % 60:02d}Z", "n": n}
        for n in range(count)
    ]  # fmt: skip


def test_cluster_json_tells_where_everything_is(user: Shell) -> None:
    """For each node: id, a living pid, addresses that answer, folders and files that are there."""
    nodes = user.nodes()

    assert [node["id"] for node in nodes] == ["node1", "node2", "node3"]
    for number, node in enumerate(nodes):
        assert not ended(node["pid"])
        assert node["http"] == f"http://127.0.0.1:{user.base + 10 * number}"
        with urllib.request.urlopen(node["http"] + "/ready") as answer:
            assert answer.status == 200
        assert node["peer"] == f"127.0.0.1:{user.base + 10 * number + 1}"
        assert node["raft"] == f"127.0.0.1:{user.base + 10 * number + 2}"
        assert Path(node["data"]).is_dir()
        assert Path(node["log"]).is_file()


def test_each_kind_of_file_is_sent_once_however_often(user: Shell) -> None:
    """NDJSON, a gzipped array, CSV: all fields are found; sent again, nothing is stored."""
    made = {
        "lines.jsonl": lambda rows: "".join(json.dumps(row) + "\n" for row in rows).encode(),
        "array.json.gz": lambda rows: gzip.compress(json.dumps(rows, indent=1).encode()),
        "array.json": lambda rows: json.dumps(rows).encode(),
        "table.csv": _csv,
        "lines.jsonl.gz": lambda rows: gzip.compress(
            b"".join(json.dumps(row).encode() + b"\n" for row in rows)
        ),
    }

    def check(name: str) -> None:
        make, service = made[name], name.replace(".", "-")
        rows = rows_of(service, 1500)
        file = user.home / name
        file.write_bytes(make(rows))

        first = user.json("send", str(file))
        again = user.json("send", str(file))
        anew = user.json("send", str(file), "--again") if name == "table.csv" else None

        assert (first["accepted"], first["rejected"]) == (1500, 0), name
        assert again["accepted"] == 0, name
        assert anew is None or anew["accepted"] == 1500
        found = user.json("query", "--service", service, "--limit", "10000")
        expected = Counter(row["n"] for row in rows)
        if anew is not None:
            expected.update(expected)
        assert found["complete"], name
        assert Counter(int(row["n"]) for row in found["rows"]) == expected, name
        assert {row["message"] for row in found["rows"]} == {row["message"] for row in rows}

    with ThreadPoolExecutor(4) as pool:  # files of different services do not meet
        list(pool.map(check, made))


def _csv(rows: list[dict[str, Any]]) -> bytes:
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, list(rows[0]))
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue().encode()


def test_a_send_that_was_interrupted_goes_on_where_it_was(user: Shell) -> None:
    """SIGINT, then kill -9 in the middle; the third run ends it, and each row is there once."""
    count = 300_000
    file = user.home / "long.jsonl"
    with file.open("w") as out:
        for n in range(count):
            out.write(f'{{"service":"long","message":"long {n}","filler":"{"x" * 150}"}}\n')
    codes = []
    question = f"http://127.0.0.1:{user.base}/query/stats?service=long&agg=count"

    def stored() -> int:
        rows = http("GET", question)[1]["rows"]
        return rows[0]["count"] if rows else 0

    for number, more in ((signal.SIGINT, 100_000), (signal.SIGKILL, 1)):
        before = stored()
        process = user.start("send", str(file))
        until = time.monotonic() + 30
        while process.poll() is None and stored() < before + more:
            assert time.monotonic() < until
        process.send_signal(number)
        process.communicate(timeout=30)
        codes.append(process.returncode)

    last = user.json("send", str(file))

    assert codes[0] in (130, -signal.SIGINT), "the first run ended before it was interrupted"
    assert codes[1] == -signal.SIGKILL, "the second run ended before it was killed"
    assert last["rows_before"] > 0, "the second and third run began anew"
    assert last["rows_before"] + last["rows"] == count
    assert rows_found(user, "long") == count
    text = user.run("query", "--service", "long", "--limit", "all", "--format", "ndjson")
    messages = [json.loads(line)["message"] for line in text.splitlines()]
    assert sorted(messages) == sorted(f"long {n}" for n in range(count))


def test_questions_have_the_same_answer_for_people_and_scripts(user: Shell) -> None:
    """query, stats, histogram, status, ring, doctor: as text and with --json, with exit code 0."""
    file = user.home / "asked.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows_of("asked", 200)))
    user.run("send", str(file))

    words = ("--service", "asked", "--from", "2026-03-01T10:00:00Z", "--to", "2026-03-01T11:00:00Z")
    by_hour = ("histogram", "--service", "asked", "--step", "1h")
    told = user.together({
        "errors": ("query", "--service", "asked", "--level", "error", "--json"),
        "one": ("query", "n=57", "--service", "asked"),
        "sums": ("stats", *words, "--by", "level", "--agg", "count,sum(n),max(n)", "--json"),
        "stats": ("stats", *words, "--by", "level"),
        "hours": (*by_hour, "--json"), "histogram": by_hour,
        "healthy": ("status", "--json"), "status": ("status",),
        "shards": ("ring", "--json"), "ring": ("ring",),
        "findings": ("doctor", "--json"), "doctor": ("doctor",),
    })  # fmt: skip

    errors = json.loads(told["errors"])
    assert sorted(row["n"] for row in errors["rows"]) == list(range(0, 200, 10))
    assert "asked 57" in told["one"]
    assert len(told["one"].strip().splitlines()) == 1
    sums = json.loads(told["sums"])["rows"]
    early = [n for n in range(200) if n % 2 == 0]
    for level, chosen in (
        ("error", [n for n in early if n % 10 == 0]),
        ("info", [n for n in early if n % 10]),
    ):
        (row,) = (row for row in sums if row["level"] == level)
        assert (row["count"], row["sum(n)"], row["max(n)"]) == (
            len(chosen),
            sum(chosen),
            max(chosen),
        )
    assert "error" in told["stats"]
    assert [row["count"] for row in json.loads(told["hours"])["rows"]] == [100, 100]
    assert "100" in told["histogram"]

    assert json.loads(told["healthy"])["healthy"] is True
    assert all(name in told["status"] for name in ("node1", "node2", "node3"))
    shards = json.loads(told["shards"])["shards"]
    assert [one["shard"] for one in shards] == list(range(32))
    assert all(len(set(one["owners"])) == 3 and one["leader"] for one in shards)
    assert told["ring"].count("\n") >= 32
    assert {one["name"] for one in json.loads(told["findings"])["findings"]} >= {"cluster"}
    assert told["doctor"]


def test_what_a_user_does_wrong_has_an_exit_code(user: Shell) -> None:
    """2: usage. 1: failed, with the reason on stderr. 3: partial. Never a traceback."""
    broken = user.home / "broken.jsonl"
    broken.write_text('{"message":"good","service":"wrong"}\n{"message":\n')
    cut = user.home / "cut.jsonl.gz"
    cut.write_bytes(gzip.compress(b'{"message":"cut","service":"cut"}\n' * 1000)[:-30])
    cases: list[tuple[int, tuple[str, ...]]] = [
        (2, ("query", "--limt", "5")),
        (2, ("no-such-command",)),
        (1, ("query", "level:(")),
        (1, ("query", "--regex", "(")),
        (1, ("stats", "--agg", "p95(")),
        (2, ("send", str(user.home / "is-not-there.jsonl"))),
        (1, ("send", str(cut))),
        (3, ("send", str(broken))),
        (1, ("query", "--server", "http://127.0.0.1:9")),
    ]
    for process, (code, words) in [(user.start(*case[1]), case) for case in cases]:
        out, err = process.communicate(timeout=60)
        assert process.returncode == code, f"{words}: {process.returncode}\n{out}\n{err}"
        assert "Traceback" not in err, words
        assert len(err.strip()) > 10, words
    assert rows_found(user, "wrong") == 1


def test_simulate_prints_rows_of_a_shop(user: Shell) -> None:
    """JSON, CSV, plain lines, access log; the same seed gives the same rows. It can be piped to `send`."""
    words = ("simulate", "--rows", "300", "--seed", "5", "--start", "2026-03-01T00:00:00Z")
    out = user.run(*words, "--to", "stdout")
    rows = [json.loads(line) for line in out.splitlines()]

    assert len(rows) == 300
    assert len({row["service"] for row in rows}) >= 8
    assert out == user.run(*words, "--to", "stdout")
    for form in ("csv", "plain", "clf"):
        lines = user.run(*words, "--to", "stdout", "--format", form).splitlines()
        assert len(lines) in (300, 301), form
    sender = user.start("send", "-", "--json", stdin=subprocess.PIPE)
    told, err = sender.communicate(out, timeout=60)
    assert sender.returncode == 0, err
    assert json.loads(told)["accepted"] == 300


def test_up_again_starts_only_what_was_killed(user: Shell) -> None:
    """kill -9 of one: `status` says 3, `up` starts it alone, and all rows are there."""
    file = user.home / "again.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows_of("again", 500)))
    user.run("send", str(file))
    before = {node["id"]: node["pid"] for node in user.nodes()}

    os.kill(before["node2"], signal.SIGKILL)
    eventually(lambda: user.code("status") == 3, 30)
    assert rows_found(user, "again") == 500
    user.up()

    after = {node["id"]: node["pid"] for node in user.nodes()}
    assert (after["node1"], after["node3"]) == (before["node1"], before["node3"])
    assert after["node2"] != before["node2"]
    eventually(lambda: user.code("status") == 0, 30)
    found = user.json("query", "--service", "again", "--limit", "1000", "--consistency", "all")
    assert (found["complete"], len(found["rows"])) == (True, 500)
