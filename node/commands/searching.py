"""`query`, `stats`, `histogram`: reading logs through `/query*`, with the exit code 3 for partial answers."""

import argparse
import asyncio
import json
import sys
from collections.abc import AsyncIterator
from typing import Any

from node.cli_api import Api
from node.cli_errors import FAILED, OK, PARTIAL, USAGE, CliError
from node.render import (
    is_terminal,
    note,
    print_json,
    print_rows,
    print_table,
    safe_json,
)

#: The most rows one JSON answer holds; more are streamed.
PAGE_ROWS_MAX = 10_000
ACCEPT = {
    "ndjson": "application/x-ndjson",
    "csv": "text/csv",
    "arrow": "application/vnd.apache.arrow.stream",
}
FORMATS = ("text", "json", *ACCEPT)


def add(commands: Any, common: argparse.ArgumentParser) -> None:
    """Adds this group's commands."""
    query = commands.add_parser(
        "query",
        parents=[common],
        help="find rows",
        description="Finds rows, newest first. Without --limit all, at most 100.",
        epilog="example: quorumlog query 'level:error AND payment' --since 1h",
    )
    _filters(query)
    query.add_argument("--limit", default="100", help="rows, or `all` (default 100)")
    query.add_argument("--order", choices=("desc", "asc"), help="newest or oldest first")
    query.add_argument("--fields", help="only these fields, comma separated")
    query.add_argument("--cursor", help="next_cursor of the page before")
    query.add_argument("--format", choices=FORMATS, help="default text; --json is --format json")
    query.add_argument("-o", "--output", metavar="FILE", help="write the result to FILE")
    query.set_defaults(run=lambda options: asyncio.run(run_query(options)))

    stats = commands.add_parser(
        "stats",
        parents=[common],
        help="count and aggregate rows by fields",
        epilog="example: quorumlog stats --by service,level --agg 'count,p95(duration_ms)'",
    )
    _filters(stats)
    stats.add_argument("--by", default="service,level", help="fields to group by")
    stats.add_argument("--agg", default="count", help="count, sum(x), avg(x), min(x), p95(x) …")
    stats.add_argument("--step", help="also by time, in steps such as 1m")
    stats.set_defaults(run=lambda options: asyncio.run(run_fold(options, "/query/stats")))

    histogram = commands.add_parser("histogram", parents=[common], help="rows over time")
    _filters(histogram)
    histogram.add_argument("--step", help="such as 1m; chosen by the server if absent")
    histogram.add_argument("--by", help="fields to split by")
    histogram.set_defaults(run=lambda options: asyncio.run(run_fold(options, "/query/histogram")))


def _filters(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("expression", nargs="?", metavar="EXPR", help="see docs/protocol.md")
    parser.add_argument("--service", action="append", help="may be repeated")
    parser.add_argument("--level", help="such as error, or error,warn")
    parser.add_argument("--since", help="such as 15m, 1h, 2d")
    parser.add_argument("--from", dest="start", metavar="TIME", help="first moment")
    parser.add_argument("--to", dest="end", metavar="TIME", help="end, not included")
    parser.add_argument("--search", help='words or a "phrase" in the message')
    parser.add_argument("--regex", help="a pattern for the message (Rust syntax)")
    parser.add_argument("--trace", metavar="ID", help="rows of one trace")
    parser.add_argument("--field", action="append", metavar="K=V", help="may be repeated")
    parser.add_argument("--consistency", choices=("one", "quorum", "all"))
    parser.add_argument("--timeout", metavar="SECONDS", help="the server's deadline")


def parameters(options: argparse.Namespace) -> dict[str, str]:
    """The query parameters that the options stand for.

    Raises:
        CliError: a --field is not NAME=VALUE, or names a parameter.
    """
    given = {
        "q": options.expression,
        "service": ",".join(options.service) if options.service else None,
        "level": options.level,
        "since": options.since,
        "from": options.start,
        "to": options.end,
        "search": options.search,
        "regex": options.regex,
        "trace_id": options.trace,
        "consistency": options.consistency,
        "timeout": options.timeout,
    }
    for name in ("order", "fields", "cursor", "by", "agg", "step"):
        given[name] = getattr(options, name, None)
    result = {name: value for name, value in given.items() if value is not None}
    for pair in options.field or []:
        name, equals, value = pair.partition("=")
        if not equals or not name:
            raise CliError(f"--field {pair!r} is not NAME=VALUE", code=USAGE)
        if name in given or name in result or name == "limit":
            raise CliError(f"--field {name} has an option of its own", f"use --{name}", USAGE)
        result[name] = value
    return result


def _limit(text: str) -> int | None:
    """Rows wanted; None for all."""
    if text == "all":
        return None
    if not text.isdecimal() or int(text) < 1:
        raise CliError(f"--limit is a number from 1, or `all`, not {text!r}", code=USAGE)
    return int(text)


async def run_query(options: argparse.Namespace) -> int:
    """The command `query`."""
    kind = options.format or ("json" if options.json else "text")
    params, limit = parameters(options), _limit(options.limit)
    if kind == "arrow" and options.output is None and is_terminal(sys.stdout):
        raise CliError("Arrow is not for a terminal", "add --output FILE, or a pipe", USAGE)
    if kind == "json" and (limit is None or limit > PAGE_ROWS_MAX):
        hint = "use --format ndjson, csv or arrow: they stream any number of rows"
        raise CliError(f"--json holds at most {PAGE_ROWS_MAX} rows", hint, USAGE)
    if limit is not None:
        params["limit"] = str(limit)
    async with Api(options.server, options.tenant) as api:
        if kind in ACCEPT:
            return await _stream_to(options.output, api, params, kind)
        if limit is None or limit > PAGE_ROWS_MAX:
            return await _stream_text(options.output, api, params)
        answer = await api.get("/query", params)
    with _output(options.output) as out:
        if kind == "json":
            print_json(answer, out)
        elif print_rows(answer["rows"], out) == 0:
            note("no rows match")
    if kind == "text" and answer.get("next_cursor"):
        note(f"more rows follow: add --cursor {answer['next_cursor']}, or --limit all")
    return partial(answer)


def partial(answer: dict[str, Any]) -> int:
    """The exit code of an answer; names what is missing on stderr."""
    if answer.get("complete", True):
        return OK
    missing = ", ".join(json.dumps(one) for one in answer.get("missing", []))
    note(f"warning: partial result; missing: {missing or 'not named'}")
    note("  next: see `quorumlog status`; the same query is complete once the nodes are back")
    return PARTIAL


class _output:
    """The file named, or stdout."""

    def __init__(self, path: str | None) -> None:
        self._file = None
        if path is not None:
            try:
                self._file = open(path, "w", encoding="utf-8", errors="backslashreplace")  # noqa: SIM115
            except OSError as error:
                raise CliError(f"cannot write {path}: {error.strerror}") from error

    def __enter__(self) -> Any:
        return self._file or sys.stdout

    def __exit__(self, *_: object) -> None:
        if self._file is not None:
            self._file.close()


def _headers_complete(headers: Any) -> int:
    complete = headers.get("X-Quorumlog-Complete", "true").lower() not in ("false", "0", "no")
    if not complete:
        note("warning: partial result; see `quorumlog status`")
    return OK if complete else PARTIAL


async def _stream_to(path: str | None, api: Api, params: dict[str, str], kind: str) -> int:
    """Copies a stream as it is; harmless JSON on a terminal."""
    async with api.stream("/query", params, ACCEPT[kind]) as answer:
        with _output(path) as out:
            raw = out.buffer
            shown = is_terminal(out)
            async for line in _lines(answer) if shown else answer.content.iter_any():
                if shown:
                    out.write(safe_json(line.decode("utf-8", "replace")))
                else:
                    raw.write(line)
            out.flush()
        return _headers_complete(answer.headers)


async def _lines(answer: Any) -> AsyncIterator[bytes]:
    """Whole lines of a body of any length."""
    rest = b""
    async for piece in answer.content.iter_any():
        *lines, rest = (rest + piece).split(b"\n")
        for line in lines:
            yield line + b"\n"
    if rest:
        yield rest


async def _stream_text(path: str | None, api: Api, params: dict[str, str]) -> int:
    """Rows as lines while they arrive, in bounded memory."""
    count = 0
    async with api.stream("/query", params, ACCEPT["ndjson"]) as answer:
        with _output(path) as out:
            async for line in _lines(answer):
                row = json.loads(line)
                if "error" in row and "_id" not in row:
                    note(f"error: the stream ended early: {json.dumps(row['error'])}")
                    return FAILED
                count += print_rows([row], out)
        if count == 0:
            note("no rows match")
        return _headers_complete(answer.headers)


async def run_fold(options: argparse.Namespace, path: str) -> int:
    """The commands `stats` and `histogram`."""
    async with Api(options.server, options.tenant) as api:
        answer = await api.get(path, parameters(options))
    if options.json:
        print_json(answer)
        return partial(answer)
    rows = answer.get("rows") or answer.get("buckets") or []
    columns = list(dict.fromkeys(name for row in rows for name in row))
    if rows:
        print_table("", columns, [[row.get(name) for name in columns] for row in rows])
    else:
        note("no rows match")
    if answer.get("cut"):
        note("there are more groups than are shown: filter more, or group by less")
    return partial(answer)
