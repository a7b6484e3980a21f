"""The history on disk: what was recorded is what is loaded, also after a run that was killed."""

from pathlib import Path

import pytest

from chaos.history import APPEND, FAIL, OK, READ, UNKNOWN, FaultRecord, Recorder, load
from tests.unit.chaos.histories import HEAD, KILL


class Clock:
    """A second a look."""

    def __init__(self) -> None:
        self.seconds = 0.0

    def monotonic(self) -> float:
        self.seconds += 1
        return self.seconds

    def boottime(self) -> float:
        return self.seconds

    def wall_micros(self) -> int:
        return 0

    async def sleep(self, seconds: float) -> None:
        self.seconds += seconds


def record(folder: Path) -> None:
    """Two writes (one refused for sure), a read, one request that never returned, a fault."""
    recorder = Recorder(folder, HEAD, Clock())
    first = recorder.invoke("agent1", APPEND, "node1", [(1, 3)])
    second = recorder.invoke("agent2", APPEND, "node2", [(1, 1)])
    recorder.returned(second, FAIL, {"status": 429})
    third = recorder.invoke("reader1", READ, "node3", covers="agent1:0")
    recorder.returned(first, OK)
    recorder.returned(third, OK, {"complete": True, "rows": [["agent1:1", "ab"]]})
    recorder.invoke("agent1", APPEND, "node1", [(4, 9), (11, 12)])
    recorder.fault(KILL)
    recorder.gave_up("agent1", 8)
    recorder.close()


def test_a_history_survives_the_disk(tmp_path: Path) -> None:
    """Requests in the order in which they were sent, with both times, outcome and answer."""
    record(tmp_path)

    history = load(tmp_path)

    assert history.head == HEAD
    assert history.faults == (KILL,)
    assert history.unfinished == {"agent1": 8}
    first, second, third, last = history.ops
    assert (first.client, first.rows, first.outcome) == ("agent1", ((1, 3),), OK)
    assert second.outcome == FAIL
    assert first.t_inv < second.t_inv < (second.t_ret or 0) < (first.t_ret or 0)
    assert third.resp["rows"] == [["agent1:1", "ab"]]
    assert third.covers == "agent1:0"
    assert (last.outcome, last.t_ret) == (UNKNOWN, None)
    assert list(last.numbers()) == [4, 5, 6, 7, 8, 9, 11, 12]


def test_half_a_line_at_the_end_is_what_a_killed_run_leaves(tmp_path: Path) -> None:
    """It is left out; what it began is unknown. Half a line elsewhere is damage, and said."""
    record(tmp_path)
    path = tmp_path / "ops.jsonl"
    whole = path.read_text()

    path.write_text(whole + '{"type":"ret","op":4,"t":9,"outc')
    assert load(tmp_path).ops[-1].outcome == UNKNOWN

    path.write_text(whole + '{"type":"re\n')
    with pytest.raises(ValueError, match=r"ops\.jsonl, line 10"):
        load(tmp_path)


def test_a_history_without_a_head_says_nothing(tmp_path: Path) -> None:
    """Nobody knows which run it was."""
    record(tmp_path)
    path = tmp_path / "ops.jsonl"
    path.write_text(path.read_text().partition("\n")[2])

    with pytest.raises(ValueError, match="no head line"):
        load(tmp_path)


def test_a_recorder_never_writes_over_another_run(tmp_path: Path) -> None:
    """A folder holds one run."""
    record(tmp_path)

    with pytest.raises(FileExistsError):
        record(tmp_path)


def test_a_fault_that_did_not_bite_is_kept_as_such(tmp_path: Path) -> None:
    """With the reason."""
    recorder = Recorder(tmp_path, HEAD, Clock())
    missed = FaultRecord("pause", ("node1",), 1, None, 2, 2, {}, "state R")
    recorder.fault(missed)
    recorder.close()

    assert load(tmp_path).faults == (missed,)
