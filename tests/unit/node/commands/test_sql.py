"""`quorumlog sql`: options, the table, formats, exit codes, against a fake server."""

import io
import json
import sys
from collections.abc import AsyncIterator
from typing import Any

import pytest

from node.cli import parse
from node.commands.sql import parameters, run_sql
from quorumlog.errors import InvalidRequest
from tests.unit.client.fake_query import FakeQueryNode, fail_with

ANSWER: dict[str, Any] = {
    "columns": [{"name": "a", "type": "VARCHAR"}, {"name": "n", "type": "BIGINT"}],
    "rows": [{"a": "x\x1b[2J", "n": 3}, {"a": None, "n": {"k": 1}}],
    "complete": True, "missing": [], "stats": {}, "notes": ["no row in range has the field 'y'"],
}  # fmt: skip


@pytest.fixture
async def node() -> AsyncIterator[FakeQueryNode]:
    """A server."""
    async with FakeQueryNode() as made:
        yield made


def test_options_become_parameters() -> None:
    """As of `query`."""
    words = "--since 1h --service pay --service cart --consistency one --timeout 5"
    options = parse(["sql", "SELECT 1", *words.split()])

    assert parameters(options) == {
        "since": "1h", "service": "pay,cart", "consistency": "one", "timeout": "5",
    }  # fmt: skip


async def test_a_table_is_printed_without_its_control_characters(
    node: FakeQueryNode, capsys: pytest.CaptureFixture[str]
) -> None:
    """Columns in their order, notes on stderr; the statement is the body."""
    node.faults.append(fail_with(200, ANSWER))
    code = await run_sql(parse(["sql", "SELECT a, n", "--server", node.url]))

    out, err = capsys.readouterr()
    assert code == 0
    assert "\x1b" not in out
    assert out.splitlines()[0].split() == ["a", "n"]
    assert '{"k": 1}' in out
    assert "note: no row in range" in err
    assert node.bodies == [b"SELECT a, n"]
    assert node.asked == [("/sql", {})]


async def test_json_and_partial(node: FakeQueryNode, capsys: pytest.CaptureFixture[str]) -> None:
    """Exit code 3, and what is missing is named."""
    node.faults.append(fail_with(200, {**ANSWER, "complete": False, "missing": [{"shard": 7}]}))
    code = await run_sql(parse(["sql", "SELECT 1", "--json", "--server", node.url]))

    out, err = capsys.readouterr()
    assert code == 3
    assert json.loads(out)["rows"] == ANSWER["rows"]
    assert '"shard": 7' in err


async def test_the_statement_may_come_from_stdin_and_errors_rise(
    node: FakeQueryNode, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The server's message is what the user sees."""
    monkeypatch.setattr(sys, "stdin", io.StringIO("SELECT\n1"))
    refusal = {"error": {"code": "INVALID_REQUEST", "message": "sql: no", "definite": True}}
    node.faults.append(fail_with(400, refusal))
    with pytest.raises(InvalidRequest, match="sql: no"):
        await run_sql(parse(["sql", "-", "--server", node.url]))

    assert node.bodies == [b"SELECT\n1"]
