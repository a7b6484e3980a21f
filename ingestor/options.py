"""What a request says about its rows: parameters of the query string, or headers of the same meaning.

The query string wins over the header. Names are VictoriaLogs' (`_time_field`, `VL-Time-Field`, …) plus
`service` and `source`; see docs/protocol.md, section 2.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace

from records.errors import InvalidRequest

#: parameter -> header
HEADERS = {
    "_time_field": "VL-Time-Field",
    "_msg_field": "VL-Msg-Field",
    "_stream_fields": "VL-Stream-Fields",
    "ignore_fields": "VL-Ignore-Fields",
    "decolorize_fields": "VL-Decolorize-Fields",
    "extra_fields": "VL-Extra-Fields",
    "debug": "VL-Debug",
    "service": "X-Quorumlog-Service",
    "source": "X-Quorumlog-Source",
}
_LIST_MAX = 256


@dataclass(frozen=True, slots=True)
class Options:
    """Defaults, renames and drops for the rows of one request. Empty means: as docs/protocol.md 0.7.

    `time_fields` and `message_fields` replace the usual names; `ignore` and `decolorize` may end in `*`;
    `extra` overwrites fields of every row; `service` and `source` fill in where a row has none.
    """

    time_fields: tuple[str, ...] = ()
    message_fields: tuple[str, ...] = ()
    stream_fields: tuple[str, ...] = ()
    ignore: tuple[str, ...] = ()
    decolorize: tuple[str, ...] = ()
    extra: tuple[tuple[str, str], ...] = ()
    service: str = ""
    source: str = ""
    debug: bool = False

    def for_insert(self) -> "Options":
        """With the defaults of `/insert/*`: `_time` and `_msg` come first."""
        return replace(
            self,
            time_fields=self.time_fields or ("_time", *_USUAL_TIME),
            message_fields=self.message_fields or ("_msg", *_USUAL_MESSAGE),
        )


_USUAL_TIME = ("timestamp", "@timestamp")
_USUAL_MESSAGE = ("message", "msg", "log")


def read_options(query: Mapping[str, str], headers: Mapping[str, str]) -> Options:
    """The options of a request.

    Raises:
        InvalidRequest: `extra_fields` that is not `name=value,…`, or an endless list.
    """
    values = {name: query.get(name) or headers.get(header, "") for name, header in HEADERS.items()}
    return Options(
        time_fields=_names(values["_time_field"]),
        message_fields=_names(values["_msg_field"]),
        stream_fields=_names(values["_stream_fields"]),
        ignore=_names(values["ignore_fields"]),
        decolorize=_names(values["decolorize_fields"]),
        extra=_pairs(values["extra_fields"]),
        service=values["service"],
        source=values["source"],
        debug=values["debug"] in ("1", "true"),
    )


def _names(text: str) -> tuple[str, ...]:
    names = tuple(name.strip() for name in text.split(",") if name.strip())
    if len(names) > _LIST_MAX:
        raise InvalidRequest(f"a list of fields has {len(names)} names; at most {_LIST_MAX}")
    return names


def _pairs(text: str) -> tuple[tuple[str, str], ...]:
    pairs = []
    for item in _names(text):
        name, equals, value = item.partition("=")
        if not equals or not name:
            raise InvalidRequest(f"extra_fields: {item[:64]!r} is not name=value")
        pairs.append((name, value))
    return tuple(pairs)


def matches(name: str, patterns: tuple[str, ...]) -> bool:
    """Whether `name` is in `patterns`, of which each may end in `*`."""
    return any(
        name.startswith(pattern[:-1]) if pattern.endswith("*") else name == pattern
        for pattern in patterns
    )
