"""An allow-list in front of pickle: what a peer sends, or a disk holds, cannot name code.

PySyncObj unpickles every frame and every log entry. With our dump, our journal and one bytes
argument the whole protocol needs two globals: `_codecs.encode` (how protocol 2 writes bytes) and
`bytes` (the empty one). All else is refused, and counted. `encode` is a version of our own that
knows latin-1 only: the real one would open every codec in the interpreter.
"""

import io
import pickle
from typing import Any

import pysyncobj.journal
import pysyncobj.pickle


class Unpicklable(Exception):
    """A pickle that names something outside the allow-list, or is malformed."""


class Refusals:
    """How many foreign globals were asked for, and the last one's name."""

    count = 0
    last = ""


def _latin1(text: str, encoding: str) -> bytes:
    if encoding not in ("latin1", "latin-1") or not isinstance(text, str):
        raise Unpicklable(f"codec {encoding!r}")
    return text.encode("latin-1")


def _empty(*args: Any) -> bytes:
    if args:  # bytes(10**10) would be an allocation on request
        raise Unpicklable("bytes with arguments")
    return b""


_ALLOWED: dict[tuple[str, str], Any] = {
    ("_codecs", "encode"): _latin1,
    ("__builtin__", "bytes"): _empty,
    ("builtins", "bytes"): _empty,
}


class _AllowListUnpickler(pickle.Unpickler):
    def find_class(self, module_name: str, global_name: str) -> Any:
        found = _ALLOWED.get((module_name, global_name))
        if found is None:
            Refusals.count += 1
            Refusals.last = f"{module_name}.{global_name}"[:200]
            raise Unpicklable(f"global {Refusals.last}")
        return found

    def persistent_load(self, pid: Any) -> Any:
        raise Unpicklable("persistent id")


def safe_loads(data: bytes) -> Any:
    """The plain value in `data`.

    Raises:
        Unpicklable: anything else. Never runs code that the bytes name.
    """
    try:
        return _AllowListUnpickler(io.BytesIO(bytes(data))).load()
    except Unpicklable:
        raise
    except Exception as error:
        raise Unpicklable(f"{type(error).__name__}: {error}") from error


def _no_load(file: Any) -> Any:
    raise Unpicklable("files are not unpickled")


def install() -> None:
    """Puts the allow-list in PySyncObj's place; again is harmless."""
    pysyncobj.pickle.loads = safe_loads
    pysyncobj.pickle.load = _no_load
    pysyncobj.journal.loads = safe_loads
