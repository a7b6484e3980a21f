"""Bytes to tokens: the one place where mmh3 is used, so the one place where it could be replaced.

Every node, and every version of every node, must map a key to the same token for ever: a cluster
that disagrees with its own past loses sight of its rows. The values are fixed by golden tests with
the reference vectors of MurmurHash3_x64_128, seed 0. Not for anything that an attacker may choose
and gain by: mmh3 is fast and even, and makes no secret of it.

Source: Appleby, MurmurHash3 (public domain reference implementation, smhasher).
"""

from functools import lru_cache

import mmh3

from ring.tokens import Token


def hash128(data: bytes) -> int:
    """MurmurHash3_x64_128, seed 0, as one unsigned number: first word in the high 64 bits."""
    high, low = mmh3.hash64(data, 0, True, signed=False)
    return (high << 64) | low


def token_of(data: bytes) -> Token:
    """The ring position of `data`: the first 64 bits of MurmurHash3_x64_128, seed 0."""
    return Token(mmh3.hash64(data, 0, True, signed=False)[0])


def key_bytes(*parts: str) -> bytes:
    """`parts` as bytes that no other list of parts gives: each is UTF-8 behind its 4-byte length.

    Total: text with lone surrogates, which ingestion refuses, still has a key.
    """
    encoded = [part.encode("utf-8", "surrogatepass") for part in parts]
    return b"".join(len(part).to_bytes(4, "big") + part for part in encoded)


def affinity(*parts: str) -> int:
    """64 bits that say how much two or more names "like" one another: rendezvous hashing.

    Used to break ties: the same on each node, even over all, unrelated to the order of names.
    Source: Thaler and Ravishankar, "Using name-based mappings to increase hit rates" (1998).
    """
    return token_of(key_bytes("affinity", *parts))


def favourite(count: int, *parts: str) -> int:
    """The number below `count` that `parts` like best: the one with the highest affinity(*parts, number)."""
    prefix = key_bytes("affinity", *parts)
    tokens = [token_of(prefix + number) for number in _numbers(count)]
    return tokens.index(max(tokens))


@lru_cache(maxsize=16)
def _numbers(count: int) -> tuple[bytes, ...]:
    return tuple(key_bytes(str(number)) for number in range(count))
