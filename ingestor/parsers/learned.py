"""Learned schemas: the types of fields as earlier rows showed them, for the reader's explicit schema.

pyarrow must not infer types (it would make times of strings that look like dates), so the types come
from here: found by the tenant, the surface and the keys of a batch's first row; made by decoding a
sample of rows; widened by what later rows bring. A schema is only a guess about how to read: a wrong
one makes the reader fail and the batch go the slow way, never a wrong row.
"""

import threading
from collections import OrderedDict
from collections.abc import Iterable, Mapping
from typing import Any

import pyarrow as pa

from ingestor.limits import Limits

#: Nested type description: field -> "int" | "double" | "bool" | "string" | "null" | nested dict.
Shape = dict[str, Any]
_SHAPES_MAX = 512
#: Batches that skip the fast way after a shape turned out not to be readable.
_HOPELESS_FOR = 16
_TYPES = {
    "int": pa.int64(),
    "double": pa.float64(),
    "bool": pa.bool_(),
    "string": pa.string(),
    "null": pa.string(),
}
_KINDS = {int: "int", float: "double", bool: "bool", str: "string", type(None): "null"}
_INT64 = range(-(1 << 63), 1 << 63)


class Unlearnable(Exception):
    """The rows have no one shape: types that conflict, arrays, too many fields."""


def widen(shape: Shape, row: Mapping[str, Any]) -> None:
    """Makes `shape` fit `row` too.

    Raises:
        Unlearnable: it cannot.
    """
    for name, value in row.items():
        kind = _kind_of(value, shape.get(name))
        known = shape.get(name, "null")
        if known == kind or (kind == "null"):
            shape.setdefault(name, kind)
        elif known == "null" or {known, kind} == {"int", "double"}:
            shape[name] = kind if known == "null" else "double"
        else:
            raise Unlearnable(name)


def _kind_of(value: Any, known: Any) -> Any:
    if type(value) is dict:
        if known not in (None, "null") and not isinstance(known, dict):
            raise Unlearnable("an object where there was a value")
        nested: Shape = {} if not isinstance(known, dict) else known
        widen(nested, value)
        return nested
    kind = _KINDS.get(type(value))
    if kind is None or (kind == "int" and value not in _INT64):
        raise Unlearnable("an array or a number beyond 64 bits")
    if isinstance(known, dict) and kind != "null":
        raise Unlearnable("a value where there was an object")
    return kind


def merge(shape: Shape, other: Shape) -> None:
    """Makes `shape` fit what `other` fits.

    Raises:
        Unlearnable: it cannot.
    """
    for name, kind in other.items():
        known = shape.get(name, "null")
        if known == "null":
            shape[name] = kind
        elif isinstance(known, dict) and isinstance(kind, dict):
            merge(known, kind)
        elif kind in ("null", known):
            continue
        elif {str(known), str(kind)} == {"int", "double"}:
            shape[name] = "double"
        else:
            raise Unlearnable(name)


def fields_of(shape: Shape, limits: Limits) -> list[pa.Field]:
    """`shape` for pyarrow.

    Raises:
        Unlearnable: an object without keys, names that collide when flattened, too many or too long.
    """
    leaves: list[str] = []
    fields = _fields(shape, "", leaves, 0)
    if len(leaves) > limits.columns_sure or len(set(leaves)) != len(leaves):
        raise Unlearnable("too many fields, or two of one name")
    if any("\0" in name or len(name.encode()) > limits.name_bytes for name in leaves):
        raise Unlearnable("a name over the limit, or with NUL")
    return fields


def _fields(shape: Shape, prefix: str, leaves: list[str], depth: int) -> list[pa.Field]:
    if depth > 8 or not shape:
        raise Unlearnable("an empty object, or nested deep")
    fields = []
    for name, kind in shape.items():
        if isinstance(kind, dict):
            fields.append(
                pa.field(name, pa.struct(_fields(kind, f"{prefix}{name}.", leaves, depth + 1)))
            )
        else:
            leaves.append(prefix + name)
            fields.append(pa.field(name, _TYPES[kind]))
    return fields


class LearnedSchemas:
    """A bounded memory of shapes. Safe for threads: a shape is replaced, never changed."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._lock = threading.Lock()
        self._known: OrderedDict[Any, tuple[Shape, list[pa.Field]]] = OrderedDict()
        self._hopeless: OrderedDict[Any, int] = OrderedDict()

    def get(self, key: Any) -> list[pa.Field] | None:
        """The fields learned under `key`."""
        with self._lock:
            found = self._known.get(key)
            if found is None:
                return None
            self._known.move_to_end(key)
            return found[1]

    def learn(self, key: Any, rows: Iterable[Mapping[str, Any]]) -> list[pa.Field] | None:
        """Fields that fit what was known and, if they have one shape, `rows`; None if there are none."""
        try:
            fresh: Shape = {}
            for row in rows:
                widen(fresh, row)
            with self._lock:
                shape = self._united(key, fresh)
                fields = fields_of(shape, self._limits)
                self._known[key] = (shape, fields)
                self._hopeless.pop(key, None)
                while len(self._known) > _SHAPES_MAX:
                    self._known.popitem(last=False)
                return fields
        except (Unlearnable, UnicodeEncodeError):
            return None

    def _united(self, key: Any, fresh: Shape) -> Shape:
        known = self._known.get(key)
        if known is None:
            return fresh
        try:
            shape = _copy(known[0])
            merge(shape, fresh)
            fields_of(shape, self._limits)
            return shape
        except Unlearnable:
            return fresh  # the newest rows are the likeliest to come again

    def hopeless(self, key: Any) -> bool:
        """Whether `key` was given up a few batches ago; counts the batches down."""
        with self._lock:
            left = self._hopeless.get(key, 0)
            if left:
                self._hopeless[key] = left - 1
            return left > 0

    def teach(self, key: Any, rows: Iterable[Mapping[str, Any]]) -> None:
        """Learns from all rows of a batch; if they have no one shape, `key` rests for some batches."""
        if self.learn(key, rows) is not None:
            return
        with self._lock:
            self._hopeless[key] = _HOPELESS_FOR
            self._known.pop(key, None)
            while len(self._hopeless) > _SHAPES_MAX:
                self._hopeless.popitem(last=False)


def _copy(shape: Shape) -> Shape:
    return {name: _copy(kind) if isinstance(kind, dict) else kind for name, kind in shape.items()}
