"""Inputs for the fuzzer: seeds, broken by small steps. Each input follows from (seeds, number) alone.

A step is one of what a coverage-guided fuzzer does as well: bytes flipped, inserted, cut, doubled, tokens
of the format put in, two inputs spliced, a number replaced by one at the edge of a type.
"""

from random import Random

EDGES = (
    b"0", b"-0", b"-1", b"1e999", b"1e-999", b"9007199254740993", b"9223372036854775807", b"0.1",
    b"9223372036854775808", b"-9223372036854775808", b"18446744073709551616", b"1e16", b"1E+2", b"-0.0",
    b"0.30000000000000004", b"5e-324", b"2.2250738585072011e-308", b"1" * 400, b"01", b"1.", b".5", b"+1",
)  # fmt: skip
JSON_TOKENS = (
    b"{", b"}", b"[", b"]", b'"', b":", b",", b"\\", b"\n", b"\r", b"\t", b" ", b"\0", b"\x1f", b"\x7f",
    b"null", b"true", b"false", b"NaN", b"Infinity", b'"a":', b'"a.b":', b'{"b":', b"[1,", b"{}", b"[]",
    b'""', b"\\u0000", b"\\ud800", b"\\udc00", b"\\ud83d\\ude00", b"\\uDBFF\\uDFFF", b"\\n", b'\\"', b"\\x",
    b"\xff", b"\xc0\x80", b"\xed\xa0\x80", b"\xf4\x90\x80\x80", b"\xef\xbb\xbf", "é😀\u2028".encode(),
    b'"timestamp":"2026-01-01T00:00:00Z"', b'"level":"WARN"', b'"service":"a"', b"//", b"/**/", *EDGES,
)  # fmt: skip


def mutated(rng: Random, seeds: list[bytes], tokens: tuple[bytes, ...] = JSON_TOKENS) -> bytes:
    """One seed after zero to eight steps."""
    data = bytearray(rng.choice(seeds))
    for _ in range(rng.choice((0, 1, 1, 1, 2, 2, 3, 5, 8))):
        _step(rng, data, seeds, tokens)
    return bytes(data)


def _step(rng: Random, data: bytearray, seeds: list[bytes], tokens: tuple[bytes, ...]) -> None:
    at = rng.randrange(len(data) + 1)
    pick = rng.randrange(9)
    if pick < 3 and tokens:
        data[at : at + rng.choice((0, 0, 1, 4))] = rng.choice(tokens)
    elif pick == 3 and at < len(data):
        data[at] ^= 1 << rng.randrange(8)
    elif pick == 4:
        data[at : at + rng.choice((1, 1, 2, 5, 40))] = b""
    elif pick == 5:
        piece = data[at : at + rng.choice((1, 4, 16, 64))]
        data[at:at] = piece * rng.choice((1, 1, 2, 40))
    elif pick == 6:
        other = rng.choice(seeds)
        begin = rng.randrange(len(other) + 1)
        data[at:] = other[begin:]
    elif pick == 7:
        data[at : at + 1] = rng.randbytes(rng.choice((1, 1, 2, 8)))
    else:
        _number(rng, data)


def _number(rng: Random, data: bytearray) -> None:
    """Another number in the place of one that is written there, or of a length in binary."""
    places = [at for at, byte in enumerate(data) if 0x30 <= byte <= 0x39]
    if places and rng.random() < 0.7:
        at = rng.choice(places)
        data[at : at + 1] = rng.choice(EDGES)
        return
    size = rng.choice((1, 2, 4, 8))
    if len(data) >= size:
        at = rng.randrange(len(data) - size + 1)
        value = rng.choice((0, 1, 0x7F, 0x80, 0xFF, (1 << 8 * size - 1) - 1, (1 << 8 * size) - 1))
        data[at : at + size] = value.to_bytes(size, rng.choice(("big", "little")))
