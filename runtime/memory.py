"""How the C library gives memory back: rarely. For a process that receives megabytes many times a second.

By default glibc returns each freed block of some megabytes to the kernel, which hands the next one out page
by page, zeroed: at full ingest a page fault for every 14 rows. Kept within bounds it is one for 24, and
less system time; the peak of memory stayed the same. From: docs/performance.md, "Where the CPU of a write
goes". Arrow's buffers have a pool of their own (storage.hot) and are not concerned.
"""

import ctypes

_TRIM_THRESHOLD, _TOP_PAD, _MMAP_THRESHOLD = -1, -2, -3
#: Free bytes at the end of the heap that are kept; what is more goes back.
KEPT_BYTES = 64 << 20
#: Blocks above this come from the kernel and go back at once: above a piece of a body (8 MiB).
LARGE_BYTES = 16 << 20
_GROWTH_BYTES = 1 << 20


def keep_freed_memory() -> bool:
    """Sets this for the process; False where the C library has no such thing (musl, macOS)."""
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError):
        return False
    wanted = (
        (_TRIM_THRESHOLD, KEPT_BYTES),
        (_MMAP_THRESHOLD, LARGE_BYTES),
        (_TOP_PAD, _GROWTH_BYTES),
    )
    return all([mallopt(option, value) == 1 for option, value in wanted])
