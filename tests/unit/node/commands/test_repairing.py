"""`quorumlog repair`: told by all nodes, followed to the end, honest about what failed."""

import json
from collections.abc import AsyncIterator
from typing import Any

import pytest

from node.cli import parse
from node.commands import repairing
from node.commands.repairing import run_repair
from tests.unit.client.fake_query import FakeQueryNode, fail_with


@pytest.fixture
async def node(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[FakeQueryNode]:
    """A server; looks follow one another at once."""
    monkeypatch.setattr(repairing, "POLL_SECONDS", 0.0)
    async with FakeQueryNode() as made:
        yield made


def told(number: int, state: str, **more: Any) -> dict:
    """What a node says of its pass."""
    one = {"number": number, "state": state, "peers_total": 2, "peers_done": 2, "found": 0}
    return {"pass": {**one, "repaired": 0, "bytes": 0, "failures": {}, **more}}


def script(node: FakeQueryNode, *looks: dict, failures: dict | None = None) -> None:
    """The answers: to the POST, then to each look."""
    begun = {"started": {"a": 3, "b": 1}, "failures": failures or {}}
    node.faults.append(fail_with(202, begun))
    node.faults.extend(fail_with(200, {"nodes": one, "failures": {}}) for one in looks)


async def test_it_waits_for_all_nodes_and_says_what_they_did(
    node: FakeQueryNode, capsys: pytest.CaptureFixture[str]
) -> None:
    """Older passes do not count; the table has a line a node."""
    done = told(3, "done", found=7, repaired=7, bytes=2048)
    script(
        node,
        {"a": told(3, "running"), "b": told(1, "running")},
        {"a": done, "b": told(1, "running")},
        {"a": done, "b": told(1, "done")},
    )
    code = await run_repair(parse(["repair", "--server", node.url]))

    out = capsys.readouterr().out.splitlines()
    assert code == 0
    assert out[1].split() == ["a", "2", "of", "2", "7", "7", "2.0", "KiB"]
    assert out[2].split()[0] == "b"


async def test_what_failed_is_named_and_the_exit_code_says_partial(
    node: FakeQueryNode, capsys: pytest.CaptureFixture[str]
) -> None:
    """A peer that could not be reached, and a node that was not told."""
    script(
        node,
        {"a": told(3, "done", failures={"c": "gone"}), "b": told(1, "done")},
        failures={"c": "cannot connect"},
    )
    code = await run_repair(parse(["repair", "--server", node.url]))

    err = capsys.readouterr().err
    assert code == 3
    assert "a with c: gone" in err
    assert "c: cannot connect" in err


async def test_a_node_that_forgot_its_pass_is_not_waited_for(
    node: FakeQueryNode, capsys: pytest.CaptureFixture[str]
) -> None:
    """It was started anew: its repair is not known to have ended."""
    script(node, {"a": told(3, "done"), "b": {"pass": None}})
    code = await run_repair(parse(["repair", "--json", "--server", node.url]))

    answer = json.loads(capsys.readouterr().out)
    assert code == 3
    assert answer["complete"] is False
    assert answer["failures"] == {"b": "was started anew"}


async def test_a_repair_behind_another_one_says_so_and_is_waited_for(
    node: FakeQueryNode, capsys: pytest.CaptureFixture[str]
) -> None:
    """The end of the one before is not taken for its own."""
    before = {**told(2, "running"), "next_pass": 3}
    script(
        node,
        {"a": before, "b": told(1, "done")},
        {"a": {**told(2, "done"), "next_pass": 3}, "b": told(1, "done")},
        {"a": told(3, "done", found=7, repaired=7), "b": told(1, "done")},
    )
    code = await run_repair(parse(["repair", "--server", node.url]))

    shown = capsys.readouterr()
    assert code == 0
    assert shown.err.count("a: another repair is running") == 1
    assert shown.out.splitlines()[1].split()[4:6] == ["7", "7"]


async def test_a_silent_node_is_given_up_after_a_while(
    node: FakeQueryNode, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """It answers no more; nobody waits for ever."""
    monkeypatch.setattr(repairing, "SILENT_SECONDS", -1.0)
    script(node, {"a": told(3, "done")})
    code = await run_repair(parse(["repair", "--server", node.url]))

    assert code == 3
    assert "b: does not answer any more" in capsys.readouterr().err


async def test_a_loss_is_accepted_only_if_it_is_asked_for(node: FakeQueryNode) -> None:
    """`--accept-loss` travels with the shard; without it nothing of it is said."""
    for options, body in (
        (["--shard", "3", "--accept-loss"], {"shard": 3, "accept_loss": True}),
        (["--shard", "3"], {"shard": 3}),
    ):
        node.bodies.clear()
        script(node, {"a": told(3, "done"), "b": told(1, "done")})
        await run_repair(parse(["repair", *options, "--server", node.url]))
        assert json.loads(node.bodies[0]) == body
