"""`quorumlog nodes|ring|quorum`: what is asked of the cluster, and waiting for the end of a change."""

from collections.abc import AsyncIterator
from typing import Any

import pytest

from node.cli import parse
from node.commands import membering
from node.commands.membering import run_nodes
from quorumlog.errors import QuorumlogError
from tests.unit.client.fake_query import FakeQueryNode, fail_with


@pytest.fixture
async def node(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[FakeQueryNode]:
    """A server; looks follow one another at once."""
    monkeypatch.setattr(membering, "LOOK_SECONDS", 0.0)
    async with FakeQueryNode() as made:
        yield made


BEGUN = {"reason": "add d", "change": 7, "copies": 24, "gains": {"d": 24}, "losses": {}}
BEGUN |= {"n": 3, "fewest_owners": 3}
BUSY = {"error": {"code": "NOT_READY", "message": "starting"}}


def look(left: int, error: str = "") -> dict[str, Any]:
    """What is told of a change under way; none if nothing is left."""
    change = {"moves_left": left, "moving": [], "aborting": False, "id": 7, "reason": "add d"}
    figures = {"errors": {"3": error}} if error else {}
    return {"ring_epoch": 9, "change": change if left else None, "figures": figures}


def script(node: FakeQueryNode, *looks: tuple[int, dict[str, Any]]) -> Any:
    node.faults.append(fail_with(202, BEGUN))
    node.faults.extend(fail_with(status, body) for status, body in looks)
    return parse(["nodes", "add", "d", "--wait", "--server", node.url])


async def test_waiting_goes_on_over_looks_that_fail_and_says_an_error_once(
    node: FakeQueryNode, capsys: pytest.CaptureFixture[str]
) -> None:
    """A node that restarts, or has no leader for a moment, is no end of the change."""
    failing = look(4, "QUORUM_UNAVAILABLE: 1 of 3 owners answered")
    options = script(
        node, (200, look(5)), (503, BUSY), (200, failing), (200, failing), (200, look(0))
    )

    assert await run_nodes(options) == 0

    told = capsys.readouterr()
    assert "change 7 copies 24 replicas (d +24)" in told.out
    assert "ring epoch 9" in told.out
    assert told.err.count("1 of 3 owners answered") == 1


async def test_too_few_nodes_for_all_copies_are_said(
    node: FakeQueryNode, capsys: pytest.CaptureFixture[str]
) -> None:
    """Draining one node of three is allowed, and worth a line; a whole ring is not."""
    for fewest in (2, 3):
        node.faults.append(fail_with(202, {**BEGUN, "fewest_owners": fewest}))
        await run_nodes(parse(["nodes", "drain", "d", "--server", node.url]))

    assert capsys.readouterr().out.count("each row is then on 2 nodes, not on 3") == 1


async def test_waiting_ends_when_nobody_has_answered_for_long(
    node: FakeQueryNode, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(membering, "AWAY_SECONDS", 0.0)

    with pytest.raises(QuorumlogError, match="starting"):
        await run_nodes(script(node, (503, BUSY), (200, look(0))))


async def test_a_node_id_with_odd_characters_is_one_part_of_the_address(
    node: FakeQueryNode,
) -> None:
    """Unquoted, `?` would begin the parameters, and `/` another part."""
    node.faults.append(fail_with(202, BEGUN))

    await run_nodes(parse(["nodes", "add", "a/b?c d#e", "--server", node.url]))

    assert node.asked == [("/cluster/nodes/a/b?c d#e/add", {})]
