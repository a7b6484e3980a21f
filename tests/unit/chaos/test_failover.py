"""What is made of stalls; the measurement itself needs a cluster."""

import pytest

from chaos.failover import Result, Stall, numbers_in, quantiles, table
from node.cli import main
from node.cli_errors import CliError
from quorumlog.wire import Reply


def test_quantiles_are_by_nearest_rank() -> None:
    """Of 1..100 the 99th is 99; of one, itself."""
    found = quantiles([float(one) for one in range(100, 0, -1)])

    assert found == {"n": 100, "p50": 50.0, "p99": 99.0, "max": 100.0}
    assert quantiles([0.5])["p99"] == 0.5


def test_stalls_are_told_apart_by_what_happened_and_to_whom() -> None:
    """Shards that the broken node led, others, and appends without numbers."""
    stalls = [
        Stall("kill", "raft leader", "failover1", True, 0.4),
        Stall("kill", "raft leader", "failover2", False, 0.1),
        Stall("kill", "raft leader", "agent0", False, 0.2),
        Stall("kill", "raft leader", "agent1", True, 0.2),  # any node takes what it sends
        Stall("pause", "shard leader", "failover1", True, 0.8),
    ]

    found = Result(stalls, 2, 100, 0, 0)

    assert found.figures()["all shards led"]["n"] == 2
    assert {name: one["max"] for name, one in found.figures().items()} == {
        "all shards led": 0.8, "kill raft leader": 0.4, "other shards": 0.1,
        "unnumbered appends": 0.2, "pause shard leader": 0.8,
    }  # fmt: skip
    assert ["other shards", "1", "0.1", "0.1", "0.1"] in list(table(found))


def test_a_measurement_of_nothing_is_not_good() -> None:
    """No row was acknowledged, or none of one service: nothing lost is then no finding."""
    assert Result([], 2, 100, 0, 0).good
    assert not Result([], 2, 0, 0, 0).good
    assert not Result([], 2, 100, 0, 0, ("failover3",)).good
    assert not Result([], 2, 100, 1, 0).good
    assert not Result([], 2, 100, 0, 1).good


def test_half_an_answer_says_nothing_of_lost_rows() -> None:
    """Only a complete one is compared with what was acknowledged."""
    body = b'{"chaos_number": 1}\n{"chaos_number": 2}\n'
    complete, partial = {"X-Quorumlog-Complete": "true"}, {"X-Quorumlog-Complete": "false"}

    assert numbers_in(Reply(200, complete, body)) == [1, 2]
    for reply in (Reply(200, partial, body), Reply(200, {}, body), Reply(503, complete, b"{}")):
        with pytest.raises(CliError, match="not whole"):
            numbers_in(reply)


def test_a_number_of_kills_that_makes_no_sense_is_refused(
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Before anything starts."""
    assert main(["chaos", "failover", "--kills", "0"]) == 2
    assert "--kills is from 1" in capsys.readouterr().err
