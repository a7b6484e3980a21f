"""The kernel's CRC-32 is zlib's: blocks are written with one and checked with the other."""

import random
import zlib

import numpy as np
import pyarrow as pa
import pytest

from records import native

kernel = pytest.importorskip("quorumlog_native")
if not hasattr(kernel, "crc32"):  # an older build of the kernel: zlib does it all
    pytest.skip("the kernel has no crc32", allow_module_level=True)


@pytest.mark.parametrize("size", [0, 1, 15, 16, 63, 64, 8191, 8192, 8193, 100_000])
def test_it_is_zlibs_of_any_length_and_place(size: int) -> None:
    """Seed 7; from three places of a buffer, so that nothing relies on how it is aligned."""
    data = random.Random(7).randbytes(size + 3)

    for at in range(3):
        part = memoryview(data)[at : at + size]
        assert kernel.crc32(part) == zlib.crc32(part)


def test_buffers_of_arrow_and_views_of_signed_bytes_are_taken() -> None:
    """pyarrow's buffers say that their bytes are signed; what is summed are the bytes."""
    data = bytes(range(256)) * 40

    for view in (data, memoryview(pa.py_buffer(data)), memoryview(data)[5:]):
        assert native.crc32(view) == zlib.crc32(view)


def test_bytes_that_lie_apart_are_refused() -> None:
    """Every second byte of a buffer is no run of bytes."""
    with pytest.raises(BufferError):
        kernel.crc32(np.arange(100, dtype=np.uint8)[::2])
