"""Settings: frozen dataclasses filled from TOML and environment, each value checked, none unknown.

A package keeps its own small dataclass of settings with defaults; this module fills any such class from
a TOML table. The environment wins over the file: `QUORUMLOG_STORAGE__CACHE_BYTES=1048576` sets
`[storage] cache_bytes`. An unknown key is an error that names the nearest known one.
"""

import dataclasses
import difflib
import json
import tomllib
import types
import typing
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

from records.errors import InvalidSettings

T = TypeVar("T")
ENVIRONMENT_PREFIX = "QUORUMLOG_"
SEPARATOR = "__"


def load_toml(path: Path) -> dict[str, Any]:
    """The tables of a TOML file.

    Raises:
        InvalidSettings: missing, unreadable or malformed; says where.
    """
    try:
        with path.open("rb") as file:
            return tomllib.load(file)
    except OSError as error:
        raise InvalidSettings(f"cannot read {path}: {error.strerror}") from error
    except tomllib.TOMLDecodeError as error:
        raise InvalidSettings(f"{path}: {error}") from error


def overlay_environment(
    tables: Mapping[str, Any], environment: Mapping[str, str]
) -> dict[str, Any]:
    """`tables` with QUORUMLOG_TABLE__KEY=value from the environment on top; values are JSON or text."""
    result = {name: dict(t) if isinstance(t, Mapping) else t for name, t in tables.items()}
    for name, text in environment.items():
        if not name.startswith(ENVIRONMENT_PREFIX) or SEPARATOR not in name:
            continue
        table, key = name[len(ENVIRONMENT_PREFIX) :].lower().split(SEPARATOR, 1)
        try:
            value = json.loads(text)
        except ValueError:
            value = text
        result.setdefault(table, {})[key] = value
    return result


def build(kind: type[T], table: Mapping[str, Any], where: str) -> T:
    """An instance of the dataclass `kind` from a TOML table; absent keys keep their defaults.

    Raises:
        InvalidSettings: an unknown key, a missing one without default, a wrong type, or what the
            class's own checks say; each names `where`.
    """
    hints = typing.get_type_hints(kind)
    fields = {f.name: f for f in dataclasses.fields(kind) if f.init}  # type: ignore[arg-type]
    for key in table:
        if key not in fields:
            near = difflib.get_close_matches(key, fields, 1)
            hint = f"; did you mean {near[0]!r}?" if near else ""
            raise InvalidSettings(f"[{where}] has no setting {key!r}{hint}")
    values = {k: _converted(hints[k], v, f"[{where}] {k}") for k, v in table.items()}
    for name, field in fields.items():
        bare = field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING
        if bare and name not in values:
            raise InvalidSettings(f"[{where}] {name} is missing")
    try:
        return kind(**values)
    except (TypeError, ValueError) as error:
        raise InvalidSettings(f"[{where}]: {error}") from error


def _converted(hint: Any, value: Any, where: str) -> Any:
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin in (typing.Union, types.UnionType):
        if value is None:
            return None
        return _converted(next(a for a in arguments if a is not type(None)), value, where)
    if hint is Path and isinstance(value, str):
        return Path(value)
    if hint is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if origin is tuple and isinstance(value, list):
        return tuple(_converted(arguments[0], item, where) for item in value)
    if origin in (dict, Mapping) or str(origin).endswith("Mapping'>"):
        if isinstance(value, Mapping):
            return {str(k): _converted(arguments[1], v, where) for k, v in value.items()}
    elif hint is int and isinstance(value, bool):
        pass
    elif isinstance(hint, type) and isinstance(value, hint):
        return value
    name = getattr(hint, "__name__", str(hint))
    raise InvalidSettings(f"{where} must be {name}, got {value!r}")
