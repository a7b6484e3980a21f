"""The benchmark on a few rows, so that it can't rot. No time is asserted."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.support.source import ROOT

pytestmark = [pytest.mark.integration, pytest.mark.beside]


def run(*words: str) -> str:
    """Runs `python -m bench` with `words`; what it printed."""
    command = [sys.executable, "-m", "bench", *words]
    done = subprocess.run(
        command, cwd=ROOT, capture_output=True, text=True, timeout=220, check=False
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout


def read(file: Path) -> Any:
    """A result."""
    return json.loads(file.read_text(encoding="utf-8"))


@pytest.mark.timeout(240)
def test_the_table_of_goals_is_made_and_stores_agree(tmp_path: Path) -> None:
    """Three nodes and DuckDB take both corpora; ten questions, whose answers are compared; a kill -9."""
    text = run("--tiny", "--out", str(tmp_path))

    (file,) = tmp_path.glob("goals-*.json")
    found = read(file)
    ours = "quorumlog N=3 W=2"
    assert set(found["stores"]) == {ours, "DuckDB"}
    questions = [one for part in found["corpora"].values() for one in part["questions"]]
    assert len(questions) == 10
    assert [one["differs"] for one in questions] == [{}] * 10
    assert all(set(one["ms"]) == {ours, "DuckDB"} for one in questions)
    assert sum(one["answer_rows"] > 0 for one in questions) >= 9
    assert found["corpora"]["slim"]["rows"] == 6_000
    assert found["loss"]["acked_rows"] == 2_000
    assert found["loss"]["lost_rows"] == 0
    assert "rows per minute per service" in text


@pytest.mark.timeout(240)
def test_growth_is_measured_drawn_and_projected(tmp_path: Path) -> None:
    """Two sizes with a restart each, and a run that finds its points there already; then the rest."""
    words = ("scale", "--tiny", "--part", "growth", "--part", "nodes", "--out", str(tmp_path))
    run(*words, "--data", str(tmp_path / "data"))
    before = (tmp_path / "scale-growth.json").read_bytes()

    run(*words, "--data", str(tmp_path / "data"))
    run("plot", "--results", str(tmp_path), "--to", str(tmp_path / "pictures"))
    text = run("project", "--results", str(tmp_path), "--shards", "32")

    points = json.loads(before)["points"]
    assert (tmp_path / "scale-growth.json").read_bytes() == before
    assert [one["rows"] for one in points] == [2_000, 4_000]
    assert [one["restart"]["rows_seen"] for one in points] == [2_000, 4_000]
    assert not any("error" in one for point in points for one in point["questions"].values())
    assert not list((tmp_path / "data").glob("growth/*"))
    assert [one["nodes"] for one in read(tmp_path / "scale-nodes.json")["points"]] == [3]
    assert (tmp_path / "pictures" / "growth-questions.svg").stat().st_size > 1_000
    assert "memory after questions" in text


@pytest.mark.timeout(240)
def test_the_grid_has_each_batch_and_connection_beside_duckdb(tmp_path: Path) -> None:
    """Both corpora, N=1 and N=3; what each of our processes costs."""
    text = run("grid", "--tiny", "--connections", "2", "--out", str(tmp_path))

    (file,) = tmp_path.glob("grid-*.json")
    found = read(file)
    assert list(found["stores"]) == ["quorumlog N=3 W=2", "quorumlog N=1 W=1", "DuckDB"]
    places = [(one["kind"], one["batch"], one["connections"]) for one in found["cells"]]
    assert places == [("slim", 100, 2), ("slim", 500, 2), ("rich", 100, 2), ("rich", 500, 2)]
    processes = [len(one["cpu_micros_by_process"]) for one in found["cells"][0]["stores"].values()]
    assert processes == [3, 1, 0]
    assert "quorumlog N=3 W=2 x DuckDB" in text


@pytest.mark.timeout(240)
def test_reading_is_timed_with_and_without_the_kernel(tmp_path: Path) -> None:
    """Whatever ways there are make the same rows."""
    text = run("parse", "--tiny", "--out", str(tmp_path))

    found = read(tmp_path / "parse.json")["found"]
    assert set(found) == {"slim", "rich"}
    assert all(one["python"]["median"] > 0 for one in found.values())
    assert "JSON lines to a batch" in text


@pytest.mark.timeout(240)
def test_the_other_parts_of_scale_measure_their_points(tmp_path: Path) -> None:
    """Connections, batches, questions beside ingest, memory: each with the figures that its curve needs."""
    parts = ("connections", "batches", "beside", "memory")
    words = [word for part in parts for word in ("--part", part)]
    text = run("scale", "--tiny", *words, "--out", str(tmp_path))
    run("plot", "--results", str(tmp_path), "--to", str(tmp_path / "pictures"))

    points = {part: read(tmp_path / f"scale-{part}.json")["points"] for part in parts}
    assert [one["connections"] for one in points["connections"]] == [1, 4]
    assert [one["batch"] for one in points["batches"]] == [100, 500]
    assert [one["what"] for one in points["beside"]] == ["questions", "ingest", "both"]
    both = points["beside"][2]
    assert both["rows_sent"] == points["beside"][1]["rows_sent"] == 6_000
    assert both["rounds"] >= 1
    (memory,) = points["memory"]
    assert [name for name, _ in memory["phases"]] == [
        "idle", "slim rows", "rich rows", "questions", "rows and questions", "rest",
    ]  # fmt: skip
    assert len(memory["peak_bytes"]) == len(memory["samples"][0][1]) == 3
    assert all(f"### {part}" in text for part in parts)
    assert {file.stem for file in (tmp_path / "pictures").iterdir()} == {
        "connections-cost", "connections-acks", "batches-cost", "memory",
    }  # fmt: skip
