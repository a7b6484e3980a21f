"""Opens a buffer: a new identity, or the one in the file together with its rows. Blocks on the disk."""

from __future__ import annotations

import logging
import socket
import uuid

from . import frames
from .bufferfile import BufferFile
from .errors import BufferCorrupt, BufferFailed, BufferMismatch
from .frames import Meta
from .recovery import Recovered, recover

log = logging.getLogger(__name__)


def open_buffer(
    file: BufferFile | None, service: str, producer: str | None, memory_bytes_max: int
) -> Recovered:
    """What the buffer holds; `meta.moving` says that it needs an epoch before the first send.

    Raises:
        BufferCorrupt, BufferMismatch, BufferFailed.
    """
    if file is not None and not file.is_new:
        found = _recovered(file, memory_bytes_max)
        _check_owner(file, found.meta, service, producer)
        return found
    # A name of the caller's without our own state may have been used before: no epoch yet.
    named = producer is not None
    name = producer or _new_name()
    meta = Meta(service, name, 0 if named else 1, next_seq=1, ack_till=0, moving=named)
    if file is not None:
        try:
            file.replace([frames.encode_meta(meta)])
        except OSError as error:
            raise BufferFailed(f"{file.path} cannot be written: {error}") from error
    return Recovered(meta, good_end=0)


def _recovered(file: BufferFile, memory_bytes_max: int) -> Recovered:
    kept = 0

    def keep(size: int) -> bool:
        nonlocal kept
        kept += size
        return kept <= memory_bytes_max

    try:
        found = recover(file.content(), keep)
        if found.good_end < file.size:
            log.warning("torn tail cut from buffer %s at %d", file.path, found.good_end)
            file.cut(found.good_end)
    except OSError as error:
        raise BufferFailed(f"buffer {file.path} cannot be read: {error}") from error
    except BufferCorrupt as error:
        raise BufferCorrupt(f"{file.path}: {error}") from error
    if found.damaged_bytes or found.lost:
        log.error(
            "buffer %s is damaged: %d bytes unreadable, lost seqs %s (declared as skipped)",
            file.path,
            found.damaged_bytes,
            found.lost,
        )
    return found


def _check_owner(file: BufferFile, meta: Meta, service: str, producer: str | None) -> None:
    for name, held, given in (
        ("service", meta.service, service),
        ("producer", meta.producer, producer),
    ):
        if given is not None and held != given:
            raise BufferMismatch(f"buffer {file.path} is of {name} {held!r}, not {given!r}")


def _new_name() -> str:
    """A producer name that no one else has: no epoch is asked for under it."""
    return f"{socket.gethostname()[:64]}-{uuid.uuid4().hex}"
