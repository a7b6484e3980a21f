"""`sql`: a SELECT over the table `logs`, through POST /sql; the exit code 3 for partial answers."""

import argparse
import asyncio
import json
import sys
from typing import Any

from node.cli_api import Api
from node.cli_errors import OK, USAGE, CliError
from node.commands.searching import ACCEPT, FORMATS, partial
from node.render import is_terminal, note, print_json, print_table, safe_json
from quorumlog.answers import error_from, read_json

#: Bytes of a statement that is read from stdin.
STATEMENT_MAX = 1 << 20


def add(commands: Any, common: argparse.ArgumentParser) -> None:
    """Adds this group's command."""
    sql = commands.add_parser(
        "sql",
        parents=[common],
        help="a SELECT over the table `logs`",
        description="Runs one SELECT (DuckDB's SQL) over the table `logs`; see docs/sql.md.",
        epilog="example: quorumlog sql 'SELECT service, count(*) FROM logs GROUP BY 1' --since 1h",
    )
    sql.add_argument("statement", metavar="SELECT", help="the statement, or - for stdin")
    sql.add_argument("--since", help="only rows since then, such as 15m, 1h, 2d")
    sql.add_argument("--from", dest="start", metavar="TIME", help="first moment")
    sql.add_argument("--to", dest="end", metavar="TIME", help="end, not included")
    sql.add_argument("--service", action="append", help="only rows of it; may be repeated")
    sql.add_argument("--consistency", choices=("one", "quorum", "all"))
    sql.add_argument("--timeout", metavar="SECONDS", help="the server's deadline")
    sql.add_argument("--format", choices=FORMATS, help="default text; --json is --format json")
    sql.set_defaults(run=lambda options: asyncio.run(run_sql(options)))


def parameters(options: argparse.Namespace) -> dict[str, str]:
    """The parameters of the request."""
    given = {
        "since": options.since,
        "from": options.start,
        "to": options.end,
        "service": ",".join(options.service) if options.service else None,
        "consistency": options.consistency,
        "timeout": options.timeout,
    }
    return {name: value for name, value in given.items() if value is not None}


def _statement(text: str) -> str:
    return sys.stdin.read(STATEMENT_MAX) if text == "-" else text


async def run_sql(options: argparse.Namespace) -> int:
    """The command `sql`."""
    kind = options.format or ("json" if options.json else "text")
    if kind == "arrow" and is_terminal(sys.stdout):
        raise CliError("Arrow is not for a terminal", "add > FILE, or a pipe", USAGE)
    statement = _statement(options.statement).encode("utf-8", "surrogateescape")
    headers = {"Content-Type": "text/plain; charset=utf-8"}
    if kind in ACCEPT:
        headers["Accept"] = ACCEPT[kind]
    async with Api(options.server, options.tenant) as api:
        reply = await api.reply("POST", "/sql", parameters(options), headers, statement)
    if reply.status != 200:
        raise error_from(reply.status, reply.headers, reply.body)
    if kind in ACCEPT:
        return _raw(reply)
    answer = read_json(reply.status, reply.headers, reply.body)
    if kind == "json":
        print_json(answer)
    else:
        _table(answer)
    return partial(answer)


def _raw(reply: Any) -> int:
    if is_terminal(sys.stdout):
        sys.stdout.write(safe_json(reply.body.decode("utf-8", "replace")))
    else:
        sys.stdout.buffer.write(reply.body)
        sys.stdout.buffer.flush()
    complete = reply.headers.get("X-Quorumlog-Complete", "true") == "true"
    missing = json.loads(reply.headers.get("X-Quorumlog-Missing", "[]")) if not complete else []
    return OK if complete else partial({"complete": False, "missing": missing})


def _table(answer: dict[str, Any]) -> None:
    columns = [column["name"] for column in answer["columns"]]
    if answer["rows"]:
        print_table("", columns, [[_cell(row.get(n)) for n in columns] for row in answer["rows"]])
    else:
        note("no rows")
    for text in answer.get("notes", []):
        note(f"note: {text}")


def _cell(value: Any) -> Any:
    return json.dumps(value, ensure_ascii=False) if isinstance(value, dict | list) else value
