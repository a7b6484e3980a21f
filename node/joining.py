"""A store that is new: nobody may read or write it until the cluster has admitted its node.

A marker lies in the store's folder from before the store is made until the registration is committed. The
replicated state knows the store of each member: an owner that comes back with another one (its disk was
lost) is not admitted, so the marker stays, also over restarts, and an empty disk never answers for rows
that were promised on the one before.
"""

import os
from pathlib import Path

MARKER = "joining"


def mark_if_new(store: Path) -> None:
    """Leaves the marker if there is no store yet; durable when it returns."""
    if not (store / "node.json").exists():
        mark(store)


def mark(store: Path) -> None:
    """Leaves the marker: the store is not admitted; durable when it returns."""
    store.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(store / MARKER, os.O_WRONLY | os.O_CREAT, 0o640)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
    _sync(store)


def is_joining(store: Path) -> bool:
    """Whether the node was not admitted with this store yet."""
    return (store / MARKER).exists() or not (store / "node.json").exists()


def admitted(store: Path) -> None:
    """The registration with this store is committed."""
    (store / MARKER).unlink(missing_ok=True)
    _sync(store)


def _sync(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
