"""What is made of stalls; the measurement itself needs a cluster."""

import pytest

from chaos.failover import Result, Stall, quantiles, table
from node.cli import main


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


def test_a_number_of_kills_that_makes_no_sense_is_refused(
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Before anything starts."""
    assert main(["chaos", "failover", "--kills", "0"]) == 2
    assert "--kills is from 1" in capsys.readouterr().err
