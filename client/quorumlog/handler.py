"""`LogHandler`: the standard logging module, sent to quorumlog.

The application is never held up and never sees an error of ours: a record that cannot be taken is
dropped, counted by reason in `dropped`, and the first drop of each reason is told on stderr. Records
of this library and of its own thread are not taken, or a failing send would log itself for ever.

Not safe across a fork: make the handler after it (a forked copy drops, and counts, with `forked`).
"""

from __future__ import annotations

import collections
import logging
import os
import sys
import threading
from collections.abc import Mapping, Sequence
from typing import Any

from .errors import BufferFull, QuorumlogError
from .rows import rfc3339
from .sync import SyncProducer

#: Attributes that every record has; what else it carries came from `extra=`.
_STANDARD = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}
_OWN = __package__ or "quorumlog"


class LogHandler(logging.Handler):
    """Takes `SyncProducer`'s arguments, and `level`; starts sending at once.

    A record becomes: `level` (trace, debug, info, warn, error, fatal), `message`, `logger`, `file`,
    `line`, `function`, `thread`, `process`, what `extra=` gave, and for exceptions
    `exception.type`, `exception.message`, `exception.stacktrace`.
    """

    def __init__(
        self,
        servers: Sequence[str],
        service: str,
        *args: Any,
        level: int | str = logging.NOTSET,
        flush_timeout_seconds: float = 5.0,
        **settings: Any,
    ) -> None:
        """Raises what `SyncProducer` raises: a wrong argument, a buffer that cannot be opened."""
        super().__init__(level)
        #: Records that were not taken, by reason.
        self.dropped: collections.Counter[str] = collections.Counter()
        self._flush_timeout_seconds = flush_timeout_seconds
        self._pid = os.getpid()
        self._closed = False
        self._counting = threading.Lock()
        settings.setdefault("close_timeout_seconds", min(2.0, flush_timeout_seconds))
        self._producer = SyncProducer(servers, service, *args, **settings).start()

    @property
    def producer(self) -> SyncProducer:
        """What sends; its `stats` and `failure` say how it goes."""
        return self._producer

    def handle(self, record: logging.LogRecord) -> bool:
        """As logging's, without its lock: `send` is thread-safe, and threads need not queue."""
        taken = self.filter(record)
        if not taken:
            return False
        self.emit(taken if isinstance(taken, logging.LogRecord) else record)
        return True

    def filter(self, record: logging.LogRecord) -> Any:
        """Leaves out this library's own records."""
        name = record.name
        if name == _OWN or name.startswith(_OWN + "."):
            return False
        if record.thread is not None and record.thread == self._producer.thread_id:
            return False
        return super().filter(record)

    def emit(self, record: logging.LogRecord) -> None:
        """Takes the record, or counts why not. Never blocks, never raises."""
        if os.getpid() != self._pid:
            self._drop("forked")
            return
        try:
            self._producer.send(**self._fields(record))
        except BufferFull:
            self._drop("buffer_full")
        except QuorumlogError as error:
            self._drop(error.code.lower())
        except Exception:  # noqa: BLE001  (a record's own __str__ may raise anything)
            self._drop("unprintable")
            self.handleError(record)

    def _drop(self, reason: str) -> None:
        with self._counting:
            self.dropped[reason] += 1
            first = self.dropped[reason] == 1
        if first and logging.raiseExceptions and sys.stderr is not None:
            print(f"quorumlog: log records are dropped: {reason}", file=sys.stderr)

    def _fields(self, record: logging.LogRecord) -> dict[str, Any]:
        fields: dict[str, Any] = {
            "level": level_name(record.levelno),
            "message": record.getMessage(),
            "timestamp": rfc3339(round(record.created * 1e6) * 1000),
            "logger": record.name,
            "file": record.pathname,
            "line": record.lineno,
            "function": record.funcName,
            "thread": record.threadName,
            "process": record.process,
        }
        fields.update(_exception_fields(record))
        if record.stack_info:
            fields["stack"] = record.stack_info
        for name, value in vars(record).items():
            if name not in _STANDARD:
                taken = name in fields or name in ("seq", "service")
                fields[f"extra.{name}" if taken else name] = value
        return fields

    def flush(self) -> None:
        """Waits up to `flush_timeout_seconds` for acks; what is late is sent on, nothing raised."""
        if self._closed or os.getpid() != self._pid:
            return
        try:
            self._producer.flush(self._flush_timeout_seconds)
        except QuorumlogError as error:
            self._warn(f"not all log records are acknowledged yet: {error}")

    def close(self) -> None:
        """Waits for acks, then ends the thread. Records that are lost with it are counted."""
        if not self._closed and os.getpid() == self._pid:
            self._closed = True
            try:
                self._producer.close()
            except QuorumlogError as error:
                self.dropped["unsent_at_close"] += self._producer.waiting
                self._warn(f"log records are lost: {error}")
        super().close()

    def _warn(self, text: str) -> None:
        if logging.raiseExceptions and sys.stderr is not None:
            print(f"quorumlog: {text}", file=sys.stderr)


def level_name(number: int) -> str:
    """logging's numbers in the store's words; in-between levels belong to the one below."""
    for least, name in ((50, "fatal"), (40, "error"), (30, "warn"), (20, "info"), (10, "debug")):
        if number >= least:
            return name
    return "trace"


def _exception_fields(record: logging.LogRecord) -> Mapping[str, Any]:
    if not record.exc_info or record.exc_info[0] is None:
        return {}
    kind, value, _ = record.exc_info
    text = record.exc_text or logging.Formatter().formatException(record.exc_info)
    return {
        "exception.type": f"{kind.__module__}.{kind.__qualname__}",
        "exception.message": str(value),
        "exception.stacktrace": text,
    }
