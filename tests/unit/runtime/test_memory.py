"""The C library's memory: what is asked of it is accepted, and kept memory is used again."""

import json
import platform
import subprocess
import sys

import pytest

#: In a process of its own: it is set for good. Page faults of 50 pairs of blocks, written and freed.
PROGRAM = """
import json, resource, sys
from runtime.memory import keep_freed_memory
done = keep_freed_memory() if sys.argv[1] == "keep" else None
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(50):
    one, other = b"x" * (4 << 20), b"x" * (4 << 20)
    del one, other
print(json.dumps([done, resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before]))
"""


def faults(how: str) -> tuple[bool | None, int]:
    """(what `keep_freed_memory` said, page faults)."""
    out = subprocess.run(
        [sys.executable, "-c", PROGRAM, how], capture_output=True, check=True, timeout=30
    ).stdout
    said, count = json.loads(out)
    return said, count


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="musl and macOS have no mallopt")
def test_freed_blocks_are_used_again_without_page_faults() -> None:
    """Two of 4 MiB at once, as when one piece is parsed and the next is read."""
    said, kept = faults("keep")

    assert said is True
    assert kept < faults("default")[1]
