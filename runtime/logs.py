"""Structured logs: one JSON object per event on stderr, text in lower case, facts as fields.

    log = get_logger(__name__)
    log.warning("put failed", target=member.id, error=error)

info: the cluster's state changes; warning: degraded, still correct; error: somebody must look.
Contents of rows, and secrets, stay out.
"""

import json
import logging
import sys
from datetime import UTC, datetime
from typing import Any

_FIELDS = "quorumlog_fields"


class Logger:
    """Events with fields over a standard logger of the same name."""

    __slots__ = ("_logger",)

    def __init__(self, name: str) -> None:
        self._logger = logging.getLogger(name)

    def _emit(self, level: int, event: str, fields: dict[str, Any]) -> None:
        if self._logger.isEnabledFor(level):
            self._logger.log(level, "%s", event, extra={_FIELDS: fields})

    def debug(self, event: str, **fields: Any) -> None:
        """For developers."""
        self._emit(logging.DEBUG, event, fields)

    def info(self, event: str, **fields: Any) -> None:
        """The cluster's state changed."""
        self._emit(logging.INFO, event, fields)

    def warning(self, event: str, **fields: Any) -> None:
        """Degraded, still correct."""
        self._emit(logging.WARNING, event, fields)

    def error(self, event: str, **fields: Any) -> None:
        """Somebody must look."""
        self._emit(logging.ERROR, event, fields)


def get_logger(name: str) -> Logger:
    """The logger of a module."""
    return Logger(name)


class JsonFormatter(logging.Formatter):
    """One JSON object a line; field values that JSON lacks become their text."""

    def format(self, record: logging.LogRecord) -> str:
        """The line of one event."""
        stamp = datetime.fromtimestamp(record.created, UTC).isoformat(timespec="microseconds")
        line: dict[str, Any] = {
            "timestamp": stamp,
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        for key, value in getattr(record, _FIELDS, {}).items():
            line[key] = repr(value) if isinstance(value, BaseException) else value
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return json.dumps(line, default=str, ensure_ascii=False)


def configure(node_id: str, level: str = "info") -> None:
    """Sends all logs of this process to stderr as JSON lines, each with the node's id."""

    class _WithNode(JsonFormatter):
        def format(self, record: logging.LogRecord) -> str:
            fields = {**getattr(record, _FIELDS, {}), "node": node_id}
            setattr(record, _FIELDS, fields)
            return super().format(record)

    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_WithNode())
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level.upper())
