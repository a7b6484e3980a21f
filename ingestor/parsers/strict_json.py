"""One row of JSON, read strictly: RFC 8259 and no more, no key twice, with the reason if it is bad.

The slow way of all JSON parsers, and the judge of the fast way. A number beyond a double stays as its
text; a lone surrogate escape (which RFC 8259 allows and cut strings contain) becomes U+FFFD later.
"""

import json
from typing import Any, NoReturn

from ingestor.limits import Limits
from ingestor.parsers.base import RowError, quoted


class _DuplicateKey(ValueError):
    pass


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    made = dict(pairs)
    if len(made) != len(pairs):
        seen: set[str] = set()
        for name, _ in pairs:
            if name in seen:
                raise _DuplicateKey(name)
            seen.add(name)
    return made


def _float(text: str) -> float | str:
    value = float(text)
    return text if value in (float("inf"), float("-inf")) else value


def _constant(text: str) -> NoReturn:
    raise json.JSONDecodeError(f"{text} is not JSON", text, 0)


DECODER = json.JSONDecoder(
    object_pairs_hook=_object, parse_float=_float, parse_constant=_constant, strict=True
)
#: Tells where a value ends when DECODER found a key twice in it.
LENIENT = json.JSONDecoder(parse_constant=_constant, strict=True)


def row_error(error: Exception) -> RowError:
    """The RowError that an exception of DECODER means."""
    if isinstance(error, _DuplicateKey):
        return RowError("duplicate_key", f"the key {quoted(error)} stands twice in one object")
    if isinstance(error, RecursionError):
        return RowError("too_deep", "nested too deep")
    if isinstance(error, json.JSONDecodeError):
        return RowError("bad_json", f"{error.msg} at character {error.pos + 1}")
    return RowError("bad_json", "a number with too many digits")


def read_row(line: bytes, limits: Limits) -> dict[str, Any]:
    """The object in `line`.

    Raises:
        RowError: row_too_large, bad_utf8, bad_json, duplicate_key, too_deep or not_an_object.
    """
    if len(line) > limits.row_bytes_max:
        raise RowError("row_too_large", f"{len(line)} bytes; at most {limits.row_bytes_max}")
    try:
        text = line.decode()
    except UnicodeDecodeError as error:
        raise RowError("bad_utf8", f"byte {error.start + 1} is not UTF-8") from error
    try:
        value = DECODER.decode(text)
    except (ValueError, RecursionError) as error:
        raise row_error(error) from None
    return checked_object(value, limits)


def checked_object(value: Any, limits: Limits) -> dict[str, Any]:
    """`value` if it is an object within the depth limit, else RowError."""
    if not isinstance(value, dict):
        raise RowError("not_an_object", f"a row is an object, not {_kind(value)}")
    if _deeper_than(value, limits.depth):
        raise RowError("too_deep", f"nested deeper than {limits.depth} levels")
    return value


def _kind(value: Any) -> str:
    if value is None:
        return "null"
    names = {
        bool: "a boolean",
        int: "a number",
        float: "a number",
        str: "a string",
        list: "an array",
    }
    return names.get(type(value), "a value")


def _deeper_than(value: Any, depth: int) -> bool:
    """Whether containers nest more than `depth` levels; level by level, so without recursion."""
    level = [value]
    for _ in range(depth + 1):
        level = [
            child
            for container in level
            for child in (container.values() if type(container) is dict else container)
            if type(child) is dict or type(child) is list
        ]
        if not level:
            return False
    return True
