"""The one place where records/ looks for the optional kernel `quorumlog_native`.

Everything works without it, slower. A kernel of another meaning than this code was written for is not used.
"""

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
