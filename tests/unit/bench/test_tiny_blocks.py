"""The benchmark of merging runs, and finds equal answers, on a tiny store."""

from pathlib import Path

from bench.tiny_blocks import QUESTIONS, compare


async def test_runs_and_compares_answers(tmp_path: Path) -> None:
    """Eighty blocks: merged and unmerged answer alike; one has fewer pieces."""
    found = await compare(80, 3, 1, tmp_path)

    assert set(found) == {*QUESTIONS, "blocks and segments"}
    assert found["blocks and segments"][0] == 80
    assert found["blocks and segments"][1] <= 8
