"""What the ingestor adds to rows, by column: one word for the level, and facts about where it runs.

Levels are normalised on the distinct values of a column, never row by row. Numbers: 1..24 as in
OpenTelemetry; 30, 40, 50 and 60 as pino and bunyan count, and with them 10 and 20, which OpenTelemetry
hardly uses; syslog's 0..7 only in fields that are known to be syslog's.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
import pyarrow as pa

from records.columns import DICTIONARY

DEFAULT_LEVEL = "info"

_WORDS = {
    "trace": "trace trc verbose vrb finest finer silly",
    "debug": "debug dbg fine",
    "info": "info information informational inf notice note log ok success",
    "warn": "warn warning wrn",
    "error": "error err eror severe failure fail",
    "fatal": "fatal critical crit alert emerg emergency panic dpanic ftl",
}
_LETTERS = {"t": "trace", "d": "debug", "i": "info", "w": "warn", "e": "error", "f": "fatal"}
LEVEL_OF_WORD = {
    word: level for level, words in _WORDS.items() for word in words.split()
} | _LETTERS
_OTEL = ("trace", "debug", "info", "warn", "error", "fatal")
_SYSLOG = {0: 21, 1: 19, 2: 18, 3: 17, 4: 13, 5: 10, 6: 9, 7: 5}
_TENS = {10: "trace", 20: "debug", 30: "info", 40: "warn", 50: "error", 60: "fatal"}
OTEL_FIELDS = frozenset({"severity_number", "severityNumber"})
SYSLOG_FIELDS = frozenset({"PRIORITY", "syslog_severity", "log.syslog.severity.code"})


def level_of_number(number: int, source: str = "level") -> str | None:
    """The level that a number means in the field `source`; None if none."""
    if source in SYSLOG_FIELDS:
        number = _SYSLOG.get(number, 0)
    elif source not in OTEL_FIELDS and number in _TENS:
        return _TENS[number]
    return _OTEL[(number - 1) // 4] if 1 <= number <= 24 else None


def level_of(value: object, source: str = "level") -> str:
    """The normal form of one value: a known level, or the word itself in lower case."""
    text = str(value).strip()
    number = text.removesuffix(".0")
    if number.isascii() and number.isdigit() and len(number) < 4:
        return level_of_number(int(number), source) or number
    word = text.lower()
    return LEVEL_OF_WORD.get(word, word) or DEFAULT_LEVEL


_ZEROS = pa.array(np.zeros(1 << 16, np.int32))


def constant(value: str, rows: int) -> pa.Array:
    """A dictionary column that says `value` in each row."""
    zeros = _ZEROS[:rows] if rows <= len(_ZEROS) else pa.array(np.zeros(rows, np.int32))
    return pa.DictionaryArray.from_arrays(zeros, pa.array([value], pa.string()))


def normal_levels(column: pa.Array, source: str) -> tuple[pa.Array, pa.Array | None]:
    """(levels, the source's words where they differ or None), both as dictionary columns.

    Null stays null in both.
    """
    encoded = column if pa.types.is_dictionary(column.type) else column.dictionary_encode()
    words = [str(value) for value in encoded.dictionary.to_pylist()]
    levels = [level_of(word, source) for word in words]
    distinct = list(dict.fromkeys(levels))
    if words == distinct and encoded.type == DICTIONARY:
        return encoded, None
    level_at = np.array([distinct.index(level) for level in levels], np.int32)
    mask = np.asarray(encoded.is_null())
    indices = np.asarray(encoded.indices.fill_null(0) if encoded.null_count else encoded.indices)
    if not words:
        return pa.nulls(len(column), DICTIONARY), None
    normal = pa.DictionaryArray.from_arrays(
        pa.array(level_at[indices], mask=mask), pa.array(distinct, pa.string())
    )
    differs = np.array([word != level for word, level in zip(words, levels, strict=True)])
    if not differs.any():
        return normal, None
    own = pa.DictionaryArray.from_arrays(
        pa.array(indices.astype(np.int32), mask=mask | ~differs[indices]),
        pa.array(words, pa.string()),
    )
    return normal, own


@dataclass(frozen=True, slots=True)
class EnrichSettings:
    """Facts added to each row as constant columns; an empty one adds nothing.

    `detect`: fill empty ones from the environment (POD_NAME, CONTAINER_NAME, …) at start.
    """

    hostname: str = ""
    environment: str = ""
    app_version: str = ""
    container: str = ""
    pod: str = ""
    detect: bool = False

    def detected(self, environment: Mapping[str, str]) -> "EnrichSettings":
        """With the empty facts filled from environment variables, if `detect` says so."""
        if not self.detect:
            return self
        names = {
            "hostname": ("NODE_NAME", "HOSTNAME"),
            "environment": ("APP_ENV", "ENVIRONMENT"),
            "app_version": ("APP_VERSION",),
            "container": ("CONTAINER_NAME", "CONTAINER_ID"),
            "pod": ("POD_NAME", "KUBERNETES_POD_NAME"),
        }
        found = {
            fact: next((environment[name] for name in known if environment.get(name)), "")
            for fact, known in names.items()
        }
        return replace(
            self, **{fact: getattr(self, fact) or value for fact, value in found.items()}
        )

    def columns(self, rows: int) -> dict[str, pa.Array]:
        """The constant columns, `rows` long."""
        facts = {
            "_hostname": self.hostname,
            "_environment": self.environment,
            "_app_version": self.app_version,
            "_container": self.container,
            "_pod": self.pod,
        }
        return {name: constant(value, rows) for name, value in facts.items() if value}
