"""The benchmark on a few rows, so that it can't rot. No time is asserted."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.source import ROOT

pytestmark = pytest.mark.integration


@pytest.mark.timeout(180)
def test_the_benchmark_runs_and_its_stores_agree(tmp_path: Path) -> None:
    """Ingest into one and three nodes and DuckDB; ten questions, whose answers are compared."""
    command = [sys.executable, "-m", "bench", "--tiny", "--corpus", "rich", "--out", str(tmp_path)]

    done = subprocess.run(
        command, cwd=ROOT, capture_output=True, text=True, timeout=170, check=False
    )

    assert done.returncode == 0, done.stderr[-2000:]
    (file,) = tmp_path.glob("bench-*.json")
    results = json.loads(file.read_text(encoding="utf-8"))
    assert {cell["store"] for cell in results["ingest"]["cells"]} == {
        "N=1 W=1",
        "N=3 W=2",
        "duckdb",
    }
    assert [len(one["same_answer"]) for one in results["queries"]["questions"]] == [8] * 10
    assert sum(one["answer_rows"] > 0 for one in results["queries"]["questions"]) >= 8
    assert "ingest (medians)" in done.stdout
    assert "queries over 3,000 rich rows" in done.stdout
