"""The one place where records/ looks for the optional kernel `quorumlog_native`.

Everything works without it, slower. A kernel of another meaning than this code was written for is not used.
"""

import zlib
from typing import Any

#: The kernel's meaning that this code was written for; see `kernel_version` in native/src/lib.rs.
KERNEL_VERSION = 1


def _find() -> Any:
    try:
        import quorumlog_native as found  # type: ignore[import-not-found]
    except ImportError:
        return None
    fits = getattr(found, "kernel_version", lambda: 0)() == KERNEL_VERSION
    return found if fits and hasattr(found, "token_filter") else None


#: The module, or None.
kernel: Any = _find()
_crc32: Any = getattr(kernel, "crc32", None)
#: Bytes from which the kernel's sum is worth its call, which holds the GIL; more go to zlib, which does not.
_CRC_LEAST, _CRC_MOST = 2 << 10, 8 << 20


def crc32(data: bytes | memoryview) -> int:
    """CRC-32 as zlib counts it, the same with the kernel and without."""
    if _crc32 is None or not _CRC_LEAST <= len(data) <= _CRC_MOST:
        return zlib.crc32(data)
    return _crc32(memoryview(data).cast("B"))
