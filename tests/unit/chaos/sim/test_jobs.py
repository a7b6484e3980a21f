"""Work in processes of their own: in order, on all that are free, and a death costs one item."""

import os
import resource
import signal
import subprocess
import sys
import time
from contextlib import closing
from pathlib import Path

import pytest

from chaos.sim.jobs import Died, each
from tests.support.source import ROOT

#: Two processes that say who they are, and work for ever.
STAYING = """
import os, signal
from chaos.sim.jobs import each
def stay(number):
    print(os.getpid(), flush=True)
    signal.pause()
list(each(stay, range(2), 2, 60))
"""


def slower_first(number: int) -> int:
    """The first of two takes longer."""
    time.sleep(0.05 if number % 2 == 0 else 0.0)
    return number * number


@pytest.mark.parametrize("jobs", [1, 2, 5])
def test_results_come_in_the_order_of_the_items(jobs: int) -> None:
    """Whoever is ready first."""
    assert list(each(slower_first, range(9), jobs, 60)) == [n * n for n in range(9)]


def test_several_processes_work_at_the_same_time() -> None:
    """Each waits until the other is there, in a process that is not this one."""
    ours, theirs = os.pipe()

    def meet(number: int) -> int:
        if number == 0:
            assert os.read(ours, 1) == b"x"
        else:
            os.write(theirs, b"x")
        return os.getpid()

    pids = list(each(meet, range(2), 2, 60))

    assert len({*pids, os.getpid()}) == 3


def test_an_item_whose_process_dies_is_known_and_the_rest_goes_on() -> None:
    """By a signal, by a bug."""

    def deadly(number: int) -> int:
        if number == 1:
            os.kill(os.getpid(), signal.SIGKILL)
        if number == 4:
            os._exit(3)
        return number

    found = list(each(deadly, range(6), 2, 60))

    assert found == [0, Died("was ended by SIGKILL"), 2, 3, Died("ended with exit code 3"), 5]


def test_an_item_without_end_is_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    """One that waits for ever; one that spins is ended by the kernel, each item anew."""
    monkeypatch.setattr("chaos.sim.jobs.WALL_FACTOR", 0.5)

    def wait(number: int) -> int:
        if number == 0:
            signal.pause()
        return number

    def limit(_: int) -> int:
        return resource.getrlimit(resource.RLIMIT_CPU)[0] - int(time.process_time())

    assert list(each(wait, range(2), 2, 1)) == [Died("came to no end"), 1]
    assert all(60 <= one <= 61 for one in each(limit, range(4), 2, 60) if isinstance(one, int))


def test_who_stops_reading_ends_the_processes(tmp_path: Path) -> None:
    """As Ctrl-C does, at any moment."""

    def stay(number: int) -> int:
        (tmp_path / str(number)).write_text(str(os.getpid()))
        if number:
            signal.pause()
        return number

    with closing(each(stay, range(3), 2, 60)) as found:
        assert next(found) == 0
        while len(list(tmp_path.iterdir())) < 2:
            time.sleep(0.01)

    for file in tmp_path.iterdir():
        with pytest.raises(ProcessLookupError):
            os.kill(int(file.read_text()), 0)


def test_who_is_killed_takes_its_processes_with_it() -> None:
    """With SIGKILL, which no handler sees."""
    words = [sys.executable, "-c", STAYING]
    with subprocess.Popen(words, cwd=ROOT, stdout=subprocess.PIPE, text=True) as run:
        assert run.stdout is not None
        pids = [int(run.stdout.readline()) for _ in range(2)]
        run.kill()

    until = time.monotonic() + 30
    while any(map(alive, pids)) and time.monotonic() < until:
        time.sleep(0.02)
    assert not any(map(alive, pids))


def alive(pid: int) -> bool:
    """Whether a process runs; one that nobody has waited for yet does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False
