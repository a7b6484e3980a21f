"""`LogHandler`: the standard logging module, from threads, without ever hurting the application."""

from __future__ import annotations

import logging
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from quorumlog import LogHandler
from quorumlog.handler import level_name
from tests.unit.client.fake_server import FakeNode, answer_with
from tests.unit.client.test_sync import Background


@pytest.fixture
def background() -> Iterator[Background]:
    found = Background()
    yield found
    found.stop()


@pytest.fixture
def logger() -> Iterator[logging.Logger]:
    found = logging.Logger("app.payments")
    yield found
    for handler in found.handlers:
        handler.close()


def _rows(node: FakeNode) -> list[dict]:
    return node.store.all_rows("pay")


def test_a_record_becomes_a_row(background: Background, logger: logging.Logger) -> None:
    """Level, text, place, what `extra=` gave, and the exception."""
    node = background.start(FakeNode())
    handler = LogHandler([node.url], "pay")
    logger.addHandler(handler)
    logger.warning("paid %d %s", 3, "EUR", extra={"order": 7, "trace_id": "t", "seq": 9, "line": 1})
    try:
        raise ValueError("declined")
    except ValueError:
        logger.exception("failed")
    handler.flush()

    first, second = _rows(node)
    assert (first["level"], first["message"], first["logger"]) == (
        "warn",
        "paid 3 EUR",
        "app.payments",
    )
    assert (first["order"], first["traceId"], first["extra.seq"], first["extra.line"]) == (
        7,
        "t",
        9,
        1,
    )
    assert first["file"].endswith("test_handler.py")
    assert first["timestamp"].endswith("Z")
    assert second["level"] == "error"
    assert second["exception.type"] == "builtins.ValueError"
    assert second["exception.message"] == "declined"
    assert 'raise ValueError("declined")' in second["exception.stacktrace"]


@pytest.mark.parametrize(
    ("number", "name"),
    [
        (0, "trace"),
        (9, "trace"),
        (10, "debug"),
        (25, "info"),
        (30, "warn"),
        (40, "error"),
        (99, "fatal"),
    ],
)
def test_levels(number: int, name: str) -> None:
    """logging's numbers in the store's words."""
    assert level_name(number) == name


def test_threads_log_without_losing_a_record(
    background: Background, logger: logging.Logger, tmp_path: Path
) -> None:
    """Eight threads, 200 records each."""
    node = background.start(FakeNode())
    handler = LogHandler([node.url], "pay", tmp_path / "b")
    logger.addHandler(handler)

    def work(number: int) -> None:
        for at in range(200):
            logger.info("%d-%d", number, at)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    handler.flush()

    messages = {row["message"] for row in _rows(node)}
    assert messages == {f"{number}-{at}" for number in range(8) for at in range(200)}
    assert not handler.dropped


def test_a_full_buffer_drops_and_counts(
    background: Background, logger: logging.Logger, capsys: pytest.CaptureFixture[str]
) -> None:
    """The application goes on; one line on stderr, a count in `dropped`."""
    node = background.start(FakeNode())
    node.gate = answer_with(503, {})
    handler = LogHandler([node.url], "pay", max_buffer_bytes=2000, flush_timeout_seconds=0.1)
    logger.addHandler(handler)
    for _ in range(50):
        logger.info("x" * 100)

    assert handler.dropped["buffer_full"] > 30
    assert capsys.readouterr().err.count("dropped") == 1
    handler.flush()
    handler.close()
    assert handler.dropped["unsent_at_close"] + handler.dropped["buffer_full"] == 50
    assert "lost" in capsys.readouterr().err


class _Broken:
    def __str__(self) -> str:
        raise RuntimeError("no text")


def test_a_record_without_a_text_hurts_nobody(
    background: Background, logger: logging.Logger, capsys: pytest.CaptureFixture[str]
) -> None:
    """Wrong arguments and broken objects are counted; the next record goes in."""
    node = background.start(FakeNode())
    handler = LogHandler([node.url], "pay")
    logger.addHandler(handler)
    logger.info("%s", _Broken())
    logger.info("%d", "x")
    logger.info("fine", extra={"odd": _Broken()})
    logger.info("good")
    handler.flush()

    assert [row["message"] for row in _rows(node)] == ["good"]
    assert handler.dropped == {"unprintable": 2, "invalidrow": 1}
    capsys.readouterr()


def test_the_librarys_own_records_are_not_taken(
    background: Background, logger: logging.Logger
) -> None:
    """A failing send logs a warning; taking that would feed on itself."""
    node = background.start(FakeNode())
    handler = LogHandler([node.url], "pay")
    for name in ("quorumlog", "quorumlog.courier"):
        handler.handle(logging.makeLogRecord({"name": name, "msg": "own", "levelno": 20}))
    own_thread = {
        "name": "asyncio",
        "msg": "own",
        "levelno": 20,
        "thread": handler.producer.thread_id,
    }
    handler.handle(logging.makeLogRecord(own_thread))
    handler.handle(logging.makeLogRecord({"name": "quorumlogger", "msg": "theirs", "levelno": 20}))
    handler.flush()
    handler.close()
    handler.handle(logging.makeLogRecord({"name": "app", "msg": "late", "levelno": 20}))

    assert [row["message"] for row in _rows(node)] == ["theirs"]
    assert handler.dropped == {"producerclosed": 1}
    assert logger.handlers == []


def test_a_forked_copy_drops_and_counts(background: Background, logger: logging.Logger) -> None:
    """Threads do not survive a fork: nothing hangs, nothing is silent."""
    node = background.start(FakeNode())
    handler = LogHandler([node.url], "pay")
    logger.addHandler(handler)
    handler._pid = os.getpid() + 1

    logger.info("x")

    assert handler.dropped == {"forked": 1}
    handler._pid = os.getpid()


PROGRAM = """
import logging, sys
from quorumlog import LogHandler
logging.getLogger().addHandler(LogHandler([sys.argv[1]], "pay"))
logging.getLogger("app").error("last words")
"""


def test_a_program_that_ends_sends_its_last_words(background: Background) -> None:
    """logging.shutdown flushes at exit, while daemon threads still run."""
    node = background.start(FakeNode())
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, node.url.replace("127.0.0.1", "localhost")],
        capture_output=True,
        text=True,
        timeout=30,
        check=True,
    )

    assert [row["message"] for row in _rows(node)] == ["last words"]
    assert done.stderr == ""
