"""The command line against a real cluster: up, send, query, and what a user does wrong."""

import gzip
import json
import os
import signal
import subprocess
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import duckdb
import polars as pl
import pytest

from tests.support.cluster import eventually
from tests.support.shell import Shell, ended

pytestmark = [pytest.mark.integration, pytest.mark.beside, pytest.mark.timeout(150)]


@pytest.fixture(scope="module")
def shell(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shell]:
    """A detached cluster of three, stopped at the end with the signal that `up` would send."""
    shell = Shell(tmp_path_factory.mktemp("cli"))
    shell.up()
    yield shell
    pids = shell.pids()
    for pid in pids:
        os.kill(pid, signal.SIGTERM)
    eventually(lambda: all(ended(pid) for pid in pids), seconds=60)


def rows_of(shell: Shell) -> int:
    """All rows that a reader sees."""
    return sum(row["count"] for row in shell.json("stats", "--by", "level")["rows"])


def test_a_file_is_sent_found_and_not_doubled(shell: Shell) -> None:
    """JSON lines, then the same again, then the same after the state was lost, then grown."""
    file = shell.home / "shop.jsonl"
    shell.run("simulate", "--rows", "30000", "--seed", "1", "--to", str(file))
    before = rows_of(shell)

    first = shell.json("send", str(file))
    again = shell.json("send", str(file))
    for state in (shell.home / "state").rglob("*.json"):
        state.unlink()
    lost = shell.json("send", str(file))
    with file.open("ab") as out:
        out.write(b'{"message":"one more","service":"tail"}\n')
    grown = shell.json("send", str(file))

    assert (first["accepted"], first["duplicates"], first["rejected"]) == (30_000, 0, 0)
    assert (again["rows"], again["rows_before"]) == (0, 30_000)
    assert (lost["accepted"], lost["duplicates"]) == (0, 30_000)
    assert (grown["accepted"], grown["rows_before"]) == (1, 30_000)
    assert rows_of(shell) == before + 30_001


def test_other_tools_count_what_the_api_counts(shell: Shell) -> None:
    """`quorumlog files`: DuckDB and Polars agree with a quorum read, though each row lies on three nodes."""
    url = f"http://127.0.0.1:{shell.base}/insert/jsonline"
    for number in range(12):
        line = {"message": f"small {number}", "service": "small", "code": number}
        request = urllib.request.Request(url, json.dumps(line).encode(), method="POST")
        urllib.request.urlopen(request, timeout=20).close()
    merged = "*/store/segments/date=*/hour=*/*.parquet"
    eventually(lambda: list(shell.data.glob(merged)), seconds=30)

    listed = shell.run("files").splitlines()
    source = shell.run("files", "--sql").strip()  # the last two snapshots are kept
    found = shell.json("files")

    wanted = rows_of(shell)
    paths = [one["path"] for one in found["files"]]
    counted = duckdb.connect().execute(f"SELECT count(*) FROM {source}").fetchone()
    assert found["complete"]
    assert len(listed) == len(paths)
    assert counted == (wanted,)
    assert found["rows"] == wanted == sum(pl.scan_parquet(p).collect().height for p in paths)
    small = duckdb.connect().execute(f"SELECT sum(code) FROM {source} WHERE service = 'small'")
    assert small.fetchone() == (66,)


def test_formats_of_files_are_told_apart(shell: Shell) -> None:
    """A gzipped array, CSV, plain lines: the rows can be found by what they say."""
    rows = [{"message": f"array row {number}", "service": "formats"} for number in range(50)]
    files = {
        "a.json.gz": gzip.compress(json.dumps(rows, indent=2).encode()),
        "b.csv": b"timestamp,message,path\n2026-01-02T00:00:00Z,csv row,/x\n",
        "c.log": b"plain row one\n\nplain row two\n",
    }
    for name, data in files.items():
        (shell.home / name).write_bytes(data)
        shell.run("send", str(shell.home / name), "--service", "formats")

    found = shell.json("query", "--service", "formats", "--limit", "1000", "--order", "asc")
    messages = [row["message"] for row in found["rows"]]

    assert sorted(message for message in messages if message.startswith("array")) == sorted(
        row["message"] for row in rows
    )
    assert {"csv row", "plain row one", "plain row two"} <= set(messages)
    assert found["complete"]


def test_bad_rows_are_named_by_their_line_and_cost_only_themselves(shell: Shell) -> None:
    """Exit code 3; a blank line counts as a line, as in any editor."""
    file = shell.home / "bad.jsonl"
    good = '{"message":"good","service":"badfile"}'
    file.write_text(f"{good}\n\n{{broken\n{good}\n[1]\n", encoding="utf-8")

    told = shell.json("send", str(file), code=3)

    assert (told["accepted"], told["rejected"]) == (2, 2)
    assert [row["row"] for row in told["rejected_rows"]] == [3, 5]
    assert len(shell.json("query", "--service", "badfile")["rows"]) == 2


def test_streams_have_no_cap_and_go_into_files(shell: Shell) -> None:
    """NDJSON, CSV and Arrow of all rows; text too."""
    total = rows_of(shell)
    path = shell.home / "all.out"

    shell.run("query", "--format", "ndjson", "--limit", "all", "-o", str(path))
    assert path.read_bytes().count(b"\n") == total
    shell.run("query", "--format", "arrow", "--limit", "all", "-o", str(path))
    import pyarrow as pa

    with pa.OSFile(str(path)) as file:
        assert pa.ipc.open_stream(file).read_all().num_rows == total
    assert len(shell.run("query", "--limit", "all").splitlines()) >= total


def test_hostile_text_does_not_reach_a_terminal_alive(shell: Shell) -> None:
    """ESC, C1 and bidi characters of a message come out as visible escapes."""
    file = shell.home / "hostile.jsonl"
    row = {"service": "hostile", "message": "a\x1b[2Jb\x9b31m\u202ec"}
    file.write_text(json.dumps(row) + "\n", encoding="utf-8")
    shell.run("send", str(file))

    out = shell.run("query", "--service", "hostile")

    assert "a\\x1b[2Jb\\x9b31m\\u202ec" in out
    assert "\x1b" not in out


def test_status_ring_doctor_and_histogram_answer(shell: Shell) -> None:
    """With all nodes alive each of them is content."""
    status = shell.json("status")
    assert status["healthy"]
    assert len(status["nodes"]) == 3
    assert len(shell.json("ring")["shards"]) == 32
    verdicts = {one["name"]: one["verdict"] for one in shell.json("doctor")["findings"]}
    assert verdicts["cluster"] == "ok"
    assert "node1" in shell.run("status")
    assert sum(row["count"] for row in shell.json("histogram", "--step", "1h")["rows"]) == rows_of(
        shell
    )


def is_up(shell: Shell, up: "subprocess.Popen[str]") -> None:
    """Returns when `up` has written what there is; fails at once if it ends."""

    def written() -> bool:
        assert up.poll() is None, up.communicate()
        return (shell.data / "cluster.json").exists()

    eventually(written, seconds=60)


def test_a_second_up_joins_and_ctrl_c_keeps_the_data(tmp_path: Path) -> None:
    """In the foreground with the demo: rows arrive; SIGINT ends all nodes; `up` brings the rows back.

    `down` in another terminal ends that `up` as well, and that is no failure.
    """
    shell = Shell(tmp_path)
    words = ("up", "--data", str(shell.data), "--nodes", "1", "--port-base", str(shell.base))
    up = shell.start(*words)
    is_up(shell, up)
    # At first an answer may be partial, or there is none: that is an exit code of its own.
    eventually(lambda: shell.code("stats") == 0 and rows_of(shell) > 0, seconds=60)
    joined = shell.json("up", "--data", str(shell.data), "--no-demo", "--detach")
    first = rows_of(shell)
    (pid,) = shell.pids()

    up.send_signal(signal.SIGINT)
    _, told = up.communicate(timeout=30)

    assert [one["pid"] for one in joined["nodes"]] == [pid]
    assert (up.returncode, ended(pid)) == (0, True), told
    assert "the data stays" in told
    again = shell.start("up", "--data", str(shell.data), "--no-demo")
    eventually(lambda: shell.code("status") == 0, seconds=60)
    assert rows_of(shell) >= first > 0
    shell.run("down", "--data", str(shell.data))
    _, told = again.communicate(timeout=30)
    assert again.returncode == 0, f"`down` is no failure: {told}"


def test_a_dead_node_is_reported_and_the_others_go_on(tmp_path: Path) -> None:
    """kill -9 of one of three: `up` says so, `status` exits with 3, rows can still be sent."""
    shell = Shell(tmp_path)
    up = shell.start(
        "up", "--data", str(shell.data), "--port-base", str(shell.base), "--no-demo"
    )  # fmt: skip
    try:
        is_up(shell, up)
        os.kill(shell.pids()[2], signal.SIGKILL)
        file = tmp_path / "x.jsonl"
        file.write_text('{"message":"still here"}\n', encoding="utf-8")

        assert shell.json("send", str(file))["accepted"] == 1
        eventually(lambda: shell.code("status") == 3, seconds=60)
    finally:
        up.send_signal(signal.SIGTERM)
        _, told = up.communicate(timeout=30)

    assert "node3" in told
    assert "killed by SIGKILL" in told
    assert up.returncode == 0


def test_sql_sees_what_was_sent(shell: Shell) -> None:
    """The same count as `stats`, by partial sums and by rows; a file is out of reach."""
    counted = shell.json("sql", "SELECT count(*) AS n FROM logs")
    read = shell.json("sql", "SELECT count(*) FILTER (WHERE true) AS n FROM logs")
    shell.run("sql", "SELECT * FROM read_csv('/etc/passwd')", code=1)

    assert counted["rows"] == read["rows"] == [{"n": rows_of(shell)}]
    assert (counted["stats"]["how"], read["stats"]["how"]) == ("partial aggregates", "rows")
