"""The dump: every byte is covered, and the table of start-up states."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from cluster.consensus_dump import (
    Dump,
    DumpDamaged,
    align,
    carry_out,
    decode_dump,
    dump_header,
    encode_dump,
    read_dump,
    write_dump,
)
from cluster.consensus_journal import DurableJournal
from cluster.state import ClusterState, apply, encode_command
from tests.support.raft_follower import stop

LAST, PREV = (b"\0last", 20, 3), (b"\0prev", 19, 3)


def state() -> ClusterState:
    quorum = {"expected_cluster_epoch": 0, "n": 3, "w": 2, "r": 2}
    command = encode_command("SetQuorum", quorum, ("n1", 1, 1), level=1)
    return apply(ClusterState(), command, 20)[0]


def test_a_dump_is_read_as_it_was_written(tmp_path: Path) -> None:
    """Both ways, through a file."""
    data = encode_dump(LAST, PREV, state())
    write_dump(tmp_path / "dump", data)

    assert read_dump(tmp_path / "dump") == Dump(LAST, PREV, state())
    assert dump_header(data[:32])[:2] == (20, 3)
    assert read_dump(tmp_path / "none") is None


def test_each_byte_flipped_and_each_cut_is_noticed() -> None:
    """T5, D: a damaged dump is never an empty state."""
    data = encode_dump(LAST, PREV, state())

    for place in range(len(data)):
        flipped = bytearray(data)
        flipped[place] ^= 0x10
        for bad in (bytes(flipped), data[:place], data + data[:place]):
            if bad != data:
                with pytest.raises(DumpDamaged):
                    decode_dump(bad)


def test_entries_and_state_must_fit_the_header() -> None:
    """A dump with a valid hash and senseless contents is refused too."""
    for last, prev, held in (
        (LAST, (b"", 17, 3), ClusterState()),
        (LAST, PREV, ClusterState(applied_index=21)),
    ):
        with pytest.raises(DumpDamaged):
            decode_dump(encode_dump(last, prev, held))


# -- alignment -------------------------------------------------------------------------------------


@pytest.fixture
def journal(tmp_path: Path) -> Iterator[DurableJournal]:
    made = DurableJournal(tmp_path / "journal.sqlite", stop=stop)
    yield made
    made.close_quietly()


def fill(journal: DurableJournal, first: int, last: int, term: int = 3) -> None:
    """Entries first..last; 19 and 20 are the dump's when the term is 3."""
    for index in range(first, last + 1):
        command = {19: PREV[0], 20: LAST[0]}.get(index, b"\0other")
        journal.add(command, index, term)
    journal.sync()


DUMP = Dump(LAST, PREV, ClusterState(applied_index=20))


@pytest.mark.parametrize(
    ("dump", "held", "code"),
    [
        (None, None, 0),
        (None, (1, 5), 0),
        (None, (2, 5), 76),
        (DUMP, None, 0),
        (DUMP, (1, 30), 0),
        (DUMP, (19, 20), 0),
        (DUMP, (5, 12), 0),
        (DUMP, (20, 30), 74),
        (DUMP, (25, 30), 74),
    ],
)
def test_the_table_of_start_up_states(
    journal: DurableJournal, dump: Dump | None, held: tuple[int, int] | None, code: int
) -> None:
    """raft.md 8.5, row by row."""
    if held:
        fill(journal, *held)

    assert align(dump, journal).exit_code == code


def test_a_journal_that_differs_at_the_dumps_entries_is_refused(journal: DurableJournal) -> None:
    """75: one of the two is not ours; nobody may guess which."""
    fill(journal, 10, 30, term=2)

    assert align(DUMP, journal).exit_code == 75


def test_a_difference_after_a_begun_installation_is_cleared(journal: DurableJournal) -> None:
    """Killed between the rename of a verified snapshot and the clearing of the old tail."""
    fill(journal, 10, 30, term=2)
    journal.note_install(20, 3)

    verdict = align(DUMP, journal)
    carry_out(verdict, DUMP, journal)

    assert verdict.exit_code == 0
    assert journal[:] == [PREV, LAST]
    assert journal.install is None


def test_the_acknowledged_tail_after_the_dump_stays(journal: DurableJournal) -> None:
    """G: killed between dump and trim, PySyncObj alone would clear 21-30 as well."""
    fill(journal, 1, 30)

    carry_out(align(DUMP, journal), DUMP, journal)

    assert [index for _, index, _ in journal[:]] == list(range(19, 31))
    assert journal[:2] == [PREV, LAST]


def test_a_journal_that_ends_before_the_dump_is_replaced_by_its_entries(
    journal: DurableJournal,
) -> None:
    """It holds nothing newer; term and vote stay."""
    fill(journal, 1, 12)
    journal.setCurrentTerm(8, "n3")

    carry_out(align(DUMP, journal), DUMP, journal)

    assert journal[:] == [PREV, LAST]
    assert (journal.getCurrentTerm(), journal.getVotedForNodeId()) == (8, "n3")
