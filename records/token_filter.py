"""Token filters: Bloom filters that say "no row of this row group holds that word, or that value".

A filter is a number of 64-byte blocks. A key's 64-bit hash picks one block by its upper half and by its
lower half one bit in each of the block's eight 64-bit lanes (a split-block Bloom filter), so that a probe
touches one cache line. Keys are *words* of a text or whole *values*:

* A word is a longest run of ASCII letters and digits, lower-case. Anything else separates, letters
  beyond ASCII too: what they stand beside is then cut alike in the text and in the question. Two letters
  beyond ASCII equal an ASCII one when case is ignored, the Kelvin sign (k) and the long s (s); they
  are replaced first. Words of other scripts are not in a filter: such a question is answered by reading.
* A value is the cell's bytes as they are.

Invariant: never a false "no". Of a key longer than 64 bytes the first 64 and the length count. The bits
depend on the keys alone, and are the same from the native builder and from the one here.

Source: Putze, Sanders, Singler, "Cache-, Hash- and Space-Efficient Bloom Filters" (2007); the lanes and
salts are those of the Parquet format's split-block filter, with lanes twice as wide.
"""

import re
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute

from records.native import kernel

pc: Any = pyarrow.compute
BLOCK_BYTES = 64
LANES = 8
KEY_BYTES_MAX = 64
#: Bits of a filter for each distinct key. 16 gives about one false "maybe" in 1,000, 12 one in 250. A row
#: group read in vain costs about a millisecond, a bit a distinct word 0.05 bytes a row of plain logs.
WORD_BITS = 16
VALUE_BITS = 12
SALTS = np.array(
    [
        0x47B6137B, 0x44974D91, 0x8824AD5B, 0xA2B7289D,
        0x705495C7, 0x2DF1424B, 0x9EFC4947, 0x5C6BFB31,
    ],
    np.uint32,
)  # fmt: skip
_M1, _M2, _M3 = 0x9E3779B97F4A7C15, 0xBF58476D1CE4E5B9, 0x94D049BB133111EB
_U64 = (1 << 64) - 1
_LOW = (
    np.array([0] + [(1 << (8 * n)) - 1 for n in range(1, 9)], np.uint64),
    tuple((1 << (8 * n)) - 1 for n in range(9)),
)
_WORD = re.compile(rb"[0-9a-z]+")
_FOLDED = {"\u212a": "k", "\u017f": "s"}


def _lower_table() -> np.ndarray:
    """Byte -> the byte in a word, 0 for separators."""
    table = np.zeros(256, np.uint8)
    for first, last in (b"09", b"az"):
        table[first : last + 1] = np.arange(first, last + 1)
    table[ord("A") : ord("Z") + 1] = np.arange(ord("a"), ord("z") + 1)
    return table


_LOWER = _lower_table()


# -- keys ------------------------------------------------------------------------------------------


def folded(text: str) -> bytes:
    """A text as the word builder sees it, but for the separators."""
    for letter, plain in _FOLDED.items():
        text = text.replace(letter, plain)
    return text.encode("utf-8", "surrogatepass").lower()


def words_of(text: str) -> list[bytes]:
    """The words that a text must hold if it holds `text` with no letter or digit beside it."""
    return list(dict.fromkeys(_WORD.findall(folded(text))))


def words_inside(text: str) -> list[bytes]:
    """The words that a text must hold if it holds `text` anywhere: a run at an end may go on there."""
    data = folded(text)
    found = (m for m in _WORD.finditer(data) if m.start() > 0 and m.end() < len(data))
    return list(dict.fromkeys(m.group() for m in found))


def hash_key(key: bytes) -> int:
    """The 64-bit hash of a word or value."""
    state = (len(key) * _M1) & _U64
    head = key[:KEY_BYTES_MAX]
    for at in range(0, len(head), 8):
        state = ((state ^ int.from_bytes(head[at : at + 8], "little")) * _M2) & _U64
        state ^= state >> 32
    state = ((state ^ (state >> 30)) * _M2) & _U64
    state = ((state ^ (state >> 27)) * _M3) & _U64
    return state ^ (state >> 31)


# -- probing ---------------------------------------------------------------------------------------


def lanes_of(key_hash: int) -> np.ndarray:
    """The bits of a key within its block, as uint64[8]."""
    bits = (SALTS * np.uint32(key_hash & 0xFFFFFFFF)) >> np.uint32(26)
    return np.left_shift(np.uint64(1), bits.astype(np.uint64))


def maybe(key_hash: int, words: np.ndarray, offset: np.ndarray, blocks: np.ndarray) -> np.ndarray:
    """Which of many filters may hold a key: one pass over all.

    Args:
        words: the filters' blocks one after another, uint64[any, 8], little-endian lanes.
        offset: each filter's first block. blocks: each filter's number of blocks; 0 is no filter, "maybe".
    """
    if not len(words):
        return np.ones(len(offset), bool)
    place = offset + place_of(key_hash, blocks)
    mask = lanes_of(key_hash)
    found = words[np.minimum(place, len(words) - 1)]
    return ((found & mask) == mask).all(axis=1) | (blocks == 0)


def place_of(key_hash: int, blocks: np.ndarray) -> np.ndarray:
    """In filters of so many blocks, the one that a key belongs to."""
    upper = np.uint64(key_hash >> 32)
    return ((upper * blocks.astype(np.uint64)) >> np.uint64(32)).astype(np.int64)


def among(key_hash: int, blocks: bytes) -> np.ndarray:
    """Which of some 64-byte blocks, one of each filter at the key's place, may hold the key."""
    mask = lanes_of(key_hash)
    return ((np.frombuffer(blocks, "<u8").reshape(-1, LANES) & mask) == mask).all(axis=1)


# -- building --------------------------------------------------------------------------------------


def text_column(column: pa.ChunkedArray | pa.Array) -> pa.Array | None:
    """The column as one array of `string`; None if it is no plain text."""
    if not (pa.types.is_string(column.type) or pa.types.is_large_string(column.type)):
        return None
    array = column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column
    if isinstance(array, pa.ChunkedArray):
        array = pa.concat_arrays(array.chunks)
    return array.cast(pa.string()) if pa.types.is_large_string(array.type) else array


def fold_letters(array: pa.Array) -> pa.Array:
    """Texts with the two letters replaced that equal an ASCII one when case is ignored."""
    data, offsets = buffers_of(array)
    used = data[offsets[0] : offsets[-1]]
    if not len(used) or used.max() < 0x80:
        return array
    for letter, plain in _FOLDED.items():
        if pc.any(pc.match_substring(array, letter)).as_py():
            array = pc.replace_substring(array, letter, plain)
    return array


def buffers_of(array: pa.Array) -> tuple[np.ndarray, np.ndarray]:
    """(bytes, offsets) of a string array; a null cell is empty or harmless bytes."""
    _, offsets, data = array.buffers()
    if not len(array):
        return np.zeros(0, np.uint8), np.zeros(1, np.int32)
    place = np.frombuffer(offsets, np.int32)[array.offset : array.offset + len(array) + 1]
    return np.frombuffer(data, np.uint8) if data else np.zeros(0, np.uint8), place


def build(array: pa.Array, words: bool, *, native: bool = True) -> bytes:
    """The filter of a string array's words (see `fold_letters`) or values: whole 64-byte blocks.

    Cost a row of 80 bytes: see docs/adr/0012; the native builder releases the GIL.
    """
    data, offsets = buffers_of(array)
    bits = WORD_BITS if words else VALUE_BITS
    if kernel is not None and native:
        first, last = offsets[0], offsets[-1]
        return kernel.token_filter(data[first:last], offsets - first, words, bits)
    hashes = _word_hashes(data, offsets) if words else _value_hashes(data, offsets)
    distinct = pc.unique(pa.array(hashes)).to_numpy()
    return _filled(distinct, bits)


def _filled(hashes: np.ndarray, bits_per_key: int) -> bytes:
    """The filter of distinct hashes."""
    blocks = max(1, -(-len(hashes) * bits_per_key // (BLOCK_BYTES * 8)))
    place = ((hashes >> np.uint64(32)) * np.uint64(blocks)) >> np.uint64(32)
    lower = hashes.astype(np.uint32)
    cells = np.zeros(blocks * BLOCK_BYTES * 8, np.uint8)
    first = place.astype(np.int64) * (BLOCK_BYTES * 8)
    for lane in range(LANES):
        cells[first + lane * 64 + ((lower * SALTS[lane]) >> np.uint32(26))] = 1
    return np.packbits(cells, bitorder="little").tobytes()


def _value_hashes(data: np.ndarray, offsets: np.ndarray) -> np.ndarray:
    first, last = int(offsets[0]), int(offsets[-1])
    starts = offsets[:-1].astype(np.int64) - first
    return _hashes(data[first:last], starts, np.diff(offsets).astype(np.int64))


def _word_hashes(data: np.ndarray, offsets: np.ndarray) -> np.ndarray:
    """The hashes of all words of all rows, repeated ones too."""
    first, last = int(offsets[0]), int(offsets[-1])
    lower = _LOWER[data[first:last]]
    inside = np.zeros(len(lower) + 2, bool)
    np.not_equal(lower, 0, out=inside[1:-1])
    edge = np.zeros(len(lower) + 1, bool)
    edge[offsets - first] = True
    here, before = inside[1:], inside[:-1]
    starts = np.flatnonzero(here & (~before | edge))
    ends = np.flatnonzero(before & (~here | edge))
    return _hashes(lower, starts, ends - starts)


def _hashes(data: np.ndarray, starts: np.ndarray, lengths: np.ndarray) -> np.ndarray:
    """`hash_key` of many slices of `data`, eight bytes a step."""
    padded = np.zeros(len(data) + 8, np.uint8)
    padded[: len(data)] = data
    eights = np.ndarray((len(data) + 1,), "<u8", padded, strides=(1,))
    state = lengths.astype(np.uint64) * np.uint64(_M1)
    for at in range(0, KEY_BYTES_MAX, 8):
        left = lengths - at
        active = None if at == 0 else np.flatnonzero(left > 0)
        if active is None:
            active = np.flatnonzero(left > 0) if (left <= 0).any() else slice(None)
        elif not len(active):
            break
        part = eights[starts[active] + at] & _LOW[0][np.minimum(left[active], 8)]
        mixed = (state[active] ^ part) * np.uint64(_M2)
        state[active] = mixed ^ (mixed >> np.uint64(32))
    state = (state ^ (state >> np.uint64(30))) * np.uint64(_M2)
    state = (state ^ (state >> np.uint64(27))) * np.uint64(_M3)
    return state ^ (state >> np.uint64(31))
