"""`send`: a file of logs into the cluster, with progress, resumable, each row stored once."""

import argparse
import asyncio
import contextlib
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from node.cli_api import Api
from node.cli_errors import OK, PARTIAL, USAGE, CliError
from node.render import bytes_text, is_terminal, note, print_json
from node.send import Progress, Shipper, join
from node.send_state import StateFile, describe, file_identity, starting_point
from runtime.entropy import SystemEntropy

FORMATS = ("auto", "json", "array", "csv", "plain")
#: Seconds between two saves of the state; what is sent since the last one may be sent again.
SAVE_SECONDS = 1.0


def add(commands: Any, common: argparse.ArgumentParser) -> None:
    """Adds this group's commands."""
    parser = commands.add_parser(
        "send",
        parents=[common],
        help="send a file of logs",
        description="Sends JSON lines, a JSON array, CSV or plain lines; .gz and .zst are opened."
        " It may be stopped and started again: no row is stored twice.",
        epilog="exit code 3: all is stored but rows that the cluster refused, which are listed",
    )
    parser.add_argument("file", metavar="FILE", help="a file, or - for standard input")
    parser.add_argument("--format", choices=FORMATS, default="auto", help="default: by the content")
    parser.add_argument("--service", help="service of rows that name none")
    parser.add_argument("--source", help="source of rows that name none")
    parser.add_argument(
        "--again", action="store_true", help="send all as new rows, whatever was sent before"
    )
    parser.set_defaults(run=lambda options: asyncio.run(run(options)))


class _Job:
    """One run of `send`: what was done before, and where it is kept."""

    def __init__(self, options: argparse.Namespace, cluster: str) -> None:
        self.path = options.file
        self.identity = SystemEntropy().bytes(16).hex()
        self._store: StateFile | None = None
        self.state = None
        if self.path == "-":
            return
        if not Path(self.path).exists():
            raise CliError(f"there is no file {self.path}", "check the name", USAGE)
        path = Path(self.path)
        if not path.is_file():
            return  # a pipe or a device: read once
        self.state, head = describe(path)
        self._store = StateFile(cluster, path)
        if options.again:
            self._store.forget()
            return
        self.identity = file_identity(path)
        self.state = starting_point(self._store.load(), self.state, head)

    def save(self, progress: Progress, complete: bool = False) -> None:
        """Keeps how far all is acknowledged."""
        if self._store is not None and self.state is not None:
            now = replace(
                self.state, offset=progress.done, rows=progress.done_rows, complete=complete
            )
            self._store.save(now)


async def run(options: argparse.Namespace) -> int:
    """The command `send`."""
    from node.send_source import CONTENT_TYPES, Format, Pieces, Source

    async with Api(options.server, options.tenant) as api:
        cluster = await join(api)
        job = _Job(options, cluster)
        offset, rows = (job.state.offset, job.state.rows) if job.state else (0, 0)
        if job.state and job.state.complete:
            return _nothing_new(options, rows)
        source = Source(options.file)
        wanted = None if options.format == "auto" else Format(options.format)
        if wanted is Format.LINES:
            wanted = None  # the content tells lines from an array
        pieces = Pieces(source, wanted, offset, rows + 1)
        params = {
            name: value
            for name, value in (("service", options.service), ("source", options.source))
            if value
        }
        shipper = Shipper(api, job.identity, CONTENT_TYPES[pieces.format], params)
        started = time.monotonic()
        try:
            with _progress_bar(options, source, shipper):
                await _with_saves(job, shipper, iter(pieces), pieces.start, rows)
            job.save(shipper.progress, complete=True)
        except BaseException as error:
            job.save(shipper.progress)
            _say_how_to_resume(options, job, shipper.progress, error)
            raise
        finally:
            source.close()
    return _summary(options, shipper.progress, rows, time.monotonic() - started)


async def _with_saves(job: _Job, shipper: Shipper, pieces: Iterator, start: int, row: int) -> None:
    async def save_often() -> None:
        while True:
            await asyncio.sleep(SAVE_SECONDS)
            job.save(shipper.progress)

    saver = asyncio.create_task(save_often(), name="send:save")
    try:
        await shipper.run(pieces, start, row)
    finally:
        saver.cancel()
        await asyncio.gather(saver, return_exceptions=True)


@contextlib.contextmanager
def _progress_bar(options: argparse.Namespace, source: Any, shipper: Shipper) -> Iterator[None]:
    """Bytes of the file and rows a second, if a person looks at stderr."""
    if not is_terminal(sys.stderr) or options.json:
        yield
        return
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        DownloadColumn,
        Progress,
        TextColumn,
        TimeRemainingColumn,
    )

    size = Path(options.file).stat().st_size if options.file != "-" else None
    columns = (
        TextColumn("sending"),
        BarColumn(),
        DownloadColumn(binary_units=True),
        TextColumn("{task.fields[rows]} rows/s"),
        TimeRemainingColumn(),
    )
    started = time.monotonic()
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("send", total=size, rows="0")

        def show() -> None:
            speed = shipper.progress.sent_rows / max(1e-3, time.monotonic() - started)
            bar.update(task, completed=source.position, rows=f"{speed:,.0f}")

        shipper.on_progress = show
        yield


def _say_how_to_resume(
    options: argparse.Namespace, job: _Job, progress: Progress, error: BaseException
) -> None:
    if isinstance(error, KeyboardInterrupt | asyncio.CancelledError):
        note(f"stopped: {progress.done_rows:,} rows of {options.file} are stored")
    else:
        note(f"failed after {progress.done_rows:,} rows of {options.file} were stored")
    if job.state is None:
        note("  next: standard input can't be resumed; send a file to be able to")
    else:
        note(f"  next: the same command goes on from there: quorumlog send {options.file}")


def _nothing_new(options: argparse.Namespace, rows: int) -> int:
    if options.json:
        body = {"file": options.file, "complete": True, "rows": 0, "rows_before": rows}
        print_json({**body, "accepted": 0, "duplicates": 0, "rejected": 0})
    else:
        note(f"all {rows:,} rows of {options.file} were stored before: nothing to send")
        note("  next: --again sends them as new rows")
    return OK


def _summary(options: argparse.Namespace, progress: Progress, before: int, seconds: float) -> int:
    body = {
        "file": options.file,
        "complete": True,
        "rows": progress.sent_rows,
        "rows_before": before,
        "accepted": progress.accepted,
        "duplicates": progress.duplicates,
        "rejected": progress.rejected,
        "rejected_by_code": dict(progress.codes),
        "rejected_rows": progress.listed,
        "durable": progress.durable,
        "bytes": progress.sent_bytes,
        "seconds": round(seconds, 3),
        "rows_per_second": round(progress.sent_rows / max(seconds, 1e-6)),
    }
    if options.json:
        print_json(body)
        return PARTIAL if progress.rejected else OK
    speed = f"{body['rows_per_second']:,} rows/s, {bytes_text(progress.sent_bytes)}"
    note(f"{progress.accepted:,} rows stored in {seconds:.1f} s ({speed})")
    if before:
        note(f"{before:,} rows had been stored before")
    if progress.duplicates:
        note(f"{progress.duplicates:,} rows had been stored before (found by the cluster)")
    if not progress.rejected:
        return OK
    codes = ", ".join(f"{code}: {count:,}" for code, count in progress.codes.most_common())
    note(f"{progress.rejected:,} rows were refused ({codes})")
    for one in progress.listed:
        note(f"  row {one['row']}: {one.get('code')}: {one.get('reason')}")
    note(
        "  next: their raw text is kept under the service _failed: quorumlog query --service _failed"
    )
    return PARTIAL
