"""Clock, deadline, supervisor, workers, retry, metrics, logs, settings: the ports' own promises."""

import asyncio
import json
import logging
import threading
from dataclasses import dataclass
from pathlib import Path

import pytest

from records.errors import ConnectionLost, DeadlineExceeded, InvalidSettings
from runtime.clock import SystemClock
from runtime.deadline import Deadline
from runtime.entropy import SeededEntropy, SystemEntropy
from runtime.logs import JsonFormatter, get_logger
from runtime.metrics import Metrics
from runtime.retry import retrying
from runtime.settings import build, load_toml, overlay_environment
from runtime.tasks import Supervisor, Workers


class FakeClock(SystemClock):
    """Time that moves only when somebody sleeps."""

    def __init__(self) -> None:
        self.now = 100.0

    def monotonic(self) -> float:
        return self.now

    async def sleep(self, seconds: float) -> None:
        self.now += seconds


def test_a_deadline_is_absolute_and_never_negative() -> None:
    """It is made once; what is left only shrinks."""
    clock = FakeClock()
    deadline = Deadline.after(clock, 2.0)
    assert deadline.clamp(5) == 2.0
    assert deadline.sooner(1.0).remaining() == 1.0
    assert deadline.sooner(9.0).remaining() == 2.0

    clock.now += 3

    assert deadline.expired
    assert deadline.remaining() == 0.0


async def test_waiting_past_the_deadline_is_an_unknown_outcome() -> None:
    """A time-out is not a failure: the error says that the outcome is not known."""
    with pytest.raises(DeadlineExceeded) as caught:
        await Deadline.after(SystemClock(), 0.01).wait(asyncio.sleep(5))
    assert not caught.value.definite


async def test_a_supervisor_outlives_a_failing_task_and_ends_the_others() -> None:
    """One late replica's error must not end the node; nothing outlives its owner."""
    supervisor = Supervisor("test")

    async def fails() -> None:
        raise ValueError("no")

    failing = supervisor.spawn("fails", fails())
    lasting = supervisor.spawn("lasts", asyncio.sleep(60))
    await asyncio.wait([failing])
    assert supervisor.failures == 1
    assert not lasting.done()

    await supervisor.stop()

    assert lasting.cancelled()
    assert len(supervisor) == 0
    with pytest.raises(RuntimeError):
        supervisor.spawn("late", asyncio.sleep(0))


async def test_workers_give_back_results_and_errors() -> None:
    """The pool is a place to run, not a place where errors vanish."""
    workers = Workers(2)
    try:
        assert await workers.run(max, 3, 5) == 5
        with pytest.raises(ZeroDivisionError):
            await workers.run(lambda: 1 // 0)
    finally:
        workers.close()


async def test_shared_work_comes_back_in_order_and_is_done_by_several_threads() -> None:
    """Two items wait for one another: with the caller alone they would wait for ever."""
    workers = Workers(2)
    meet = threading.Barrier(2, timeout=10)
    try:
        both = await workers.run(workers.share, lambda item: (meet.wait(), item)[1], ["a", "b"])
        many = await workers.run(workers.share, lambda item: item * item, range(50))
    finally:
        workers.close()

    assert both == ["a", "b"]
    assert many == [item * item for item in range(50)]


async def test_shared_work_needs_no_free_thread() -> None:
    """All threads share work at once: each caller does its own, nobody waits for a helper."""
    workers = Workers(2)
    try:
        work = [workers.run(workers.share, lambda item: item + 1, range(9)) for _ in range(8)]
        found = await asyncio.wait_for(asyncio.gather(*work), 10)
    finally:
        workers.close()

    assert found == [list(range(1, 10))] * 8


async def test_an_error_ends_shared_work() -> None:
    """It rises in the caller; items that nobody has begun are left."""
    workers = Workers(1)
    done: list[int] = []

    def work(item: int) -> None:
        if item == 2:
            raise ZeroDivisionError
        done.append(item)

    try:
        with pytest.raises(ZeroDivisionError):
            await workers.run(workers.share, work, range(9))
    finally:
        workers.close()

    assert done == [0, 1]


async def test_retrying_stops_at_the_deadline_with_the_last_error() -> None:
    """It sleeps on the given clock, and what it raises is the error itself."""
    clock = FakeClock()
    calls: list[float] = []

    async def fails() -> None:
        calls.append(clock.now)
        raise ConnectionLost(f"try {len(calls)}")

    with pytest.raises(ConnectionLost, match=r"try \d+"):
        await retrying(fails, Deadline.after(clock, 3.0), (ConnectionLost,))

    assert 3 <= len(calls) <= 40
    assert clock.now <= 103.0


async def test_retrying_does_not_repeat_other_errors() -> None:
    """Only what was named is tried again."""
    calls = []

    async def fails() -> None:
        calls.append(1)
        raise ValueError("mistake")

    with pytest.raises(ValueError, match="mistake"):
        await retrying(fails, Deadline.after(FakeClock(), 3.0), (ConnectionLost,))
    assert len(calls) == 1


def test_the_same_seed_gives_the_same_numbers() -> None:
    """And the system's gives others."""
    assert SeededEntropy(7).bytes(8) == SeededEntropy(7).bytes(8)
    assert SystemEntropy().bytes(16) != SystemEntropy().bytes(16)
    assert 1.0 <= SystemEntropy().uniform(1.0, 2.0) <= 2.0


def test_a_metric_asked_for_twice_is_one_metric() -> None:
    """Modules may each declare what they count."""
    metrics = Metrics()
    metrics.counter("quorumlog_x_total", "X.", ["kind"]).labels("a").inc()
    metrics.counter("quorumlog_x_total", "X.", ["kind"]).labels("a").inc()

    assert metrics.snapshot()['quorumlog_x_total{kind="a"}'] == 2.0
    assert b'quorumlog_x_total{kind="a"} 2.0' in metrics.exposition()
    assert metrics.names() == ["quorumlog_x_total"]


def test_an_event_is_one_json_object_on_one_line(caplog: pytest.LogCaptureFixture) -> None:
    """Hostile text in a field cannot forge a second event."""
    with caplog.at_level(logging.WARNING):
        get_logger("q.test").warning(
            "put failed", target='n1"\n{"level":"error"}', error=OSError(5)
        )

    line = JsonFormatter().format(caplog.records[-1])

    assert "\n" not in line
    event = json.loads(line)
    assert event["message"] == "put failed"
    assert event["target"] == 'n1"\n{"level":"error"}'
    assert event["error"] == "OSError(5)"


@dataclass(frozen=True)
class Sample:
    """Settings of a test."""

    path: Path
    count: int = 3
    ratio: float = 0.5
    names: tuple[str, ...] = ()
    peers: dict[str, str] | None = None
    limit: int | None = None


def test_settings_fill_a_dataclass_with_checked_types() -> None:
    """Each kind of value that the settings use."""
    table = {"path": "/x", "ratio": 2, "names": ["a"], "peers": {"a": "b"}, "limit": 4}

    assert build(Sample, table, "s") == Sample(Path("/x"), 3, 2.0, ("a",), {"a": "b"}, 4)


@pytest.mark.parametrize(
    ("table", "says"),
    [
        ({}, "path is missing"),
        ({"path": "/x", "coutn": 1}, "did you mean 'count'"),
        ({"path": "/x", "count": "1"}, "count must be int"),
        ({"path": "/x", "count": True}, "count must be int"),
        ({"path": "/x", "names": "a"}, "names must be"),
        ({"path": 5}, "path must be Path"),
    ],
)
def test_a_wrong_setting_is_named(table: dict, says: str) -> None:
    """An error says which table and key, and what it wanted."""
    with pytest.raises(InvalidSettings, match=says) as caught:
        build(Sample, table, "s")
    assert "[s]" in str(caught.value)


def test_the_environment_wins_over_the_file(tmp_path: Path) -> None:
    """QUORUMLOG_TABLE__KEY, as JSON or text; other variables are left alone."""
    file = tmp_path / "a.toml"
    file.write_text("[s]\ncount = 1\npath = '/x'\n")
    environment = {"QUORUMLOG_S__COUNT": "9", "QUORUMLOG_S__PATH": "/y", "QUORUMLOG_SERVER": "z"}

    tables = overlay_environment(load_toml(file), environment)

    assert build(Sample, tables["s"], "s") == Sample(Path("/y"), 9)


def test_a_broken_settings_file_says_where(tmp_path: Path) -> None:
    """Missing and malformed are different, and both name the file."""
    with pytest.raises(InvalidSettings, match="No such file"):
        load_toml(tmp_path / "none.toml")
    (tmp_path / "bad.toml").write_text("[s\n")
    with pytest.raises(InvalidSettings, match=r"bad\.toml"):
        load_toml(tmp_path / "bad.toml")
