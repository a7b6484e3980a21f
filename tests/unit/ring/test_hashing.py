"""Tokens are MurmurHash3_x64_128, seed 0, for ever; keys of different parts differ."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ring.hashing import affinity, favourite, hash128, key_bytes, token_of

MASK = (1 << 64) - 1

# (input, first word, second word): the test vectors that implementations of x64_128 share.
REFERENCE = [
    (b"", 0x0000000000000000, 0x0000000000000000),
    (b"hello", 0xCBD8A7B341BD9B02, 0x5B1E906A48AE1D19),
    (b"hello, world", 0x342FAC623A5EBC8E, 0x4CDCBC079642414D),
    (b"19 Jan 2038 at 3:14:07 AM", 0xB89E5988B737AFFC, 0x664FC2950231B2CB),
    (b"The quick brown fox jumps over the lazy dog", 0xE34BBC7BBC071B6C, 0x7A433CA9C49A9347),
]


@pytest.mark.parametrize(("data", "first", "second"), REFERENCE)
def test_hash_gives_the_reference_vectors(data: bytes, first: int, second: int) -> None:
    """Golden values: if one of them changes, every cluster loses sight of its rows."""
    assert token_of(data) == first
    assert hash128(data) == (first << 64) | second


def rotl(value: int, bits: int) -> int:
    return ((value << bits) | (value >> (64 - bits))) & MASK


def fmix(value: int) -> int:
    value = ((value ^ (value >> 33)) * 0xFF51AFD7ED558CCD) & MASK
    value = ((value ^ (value >> 33)) * 0xC4CEB9FE1A85EC53) & MASK
    return value ^ (value >> 33)


def slow_murmur(data: bytes) -> tuple[int, int]:
    """MurmurHash3_x64_128, seed 0, written from its description: an independent, slow model."""
    c1, c2 = 0x87C37B91114253D5, 0x4CF5AD432745937F
    h1 = h2 = 0
    whole = len(data) - len(data) % 16
    for at in range(0, whole, 16):
        k1 = int.from_bytes(data[at : at + 8], "little")
        k2 = int.from_bytes(data[at + 8 : at + 16], "little")
        h1 ^= (rotl((k1 * c1) & MASK, 31) * c2) & MASK
        h1 = ((rotl(h1, 27) + h2) * 5 + 0x52DCE729) & MASK
        h2 ^= (rotl((k2 * c2) & MASK, 33) * c1) & MASK
        h2 = ((rotl(h2, 31) + h1) * 5 + 0x38495AB5) & MASK
    tail = data[whole:]
    k2 = int.from_bytes(tail[8:], "little")
    h2 ^= (rotl((k2 * c2) & MASK, 33) * c1) & MASK
    k1 = int.from_bytes(tail[:8], "little")
    h1 ^= (rotl((k1 * c1) & MASK, 31) * c2) & MASK
    h1, h2 = h1 ^ len(data), h2 ^ len(data)
    h1 = (h1 + h2) & MASK
    h2 = (h2 + h1) & MASK
    h1, h2 = fmix(h1), fmix(h2)
    h1 = (h1 + h2) & MASK
    return h1, (h2 + h1) & MASK


@given(st.binary(max_size=70))
@settings(max_examples=200)
def test_hash_equals_a_slow_model_at_each_length(data: bytes) -> None:
    """The library against the algorithm's description, over all lengths of tail."""
    first, second = slow_murmur(data)

    assert token_of(data) == first
    assert hash128(data) == (first << 64) | second


@given(st.lists(st.text(max_size=5), max_size=4), st.lists(st.text(max_size=5), max_size=4))
def test_key_bytes_of_different_parts_differ(some: list[str], others: list[str]) -> None:
    """("a", "bc") and ("ab", "c") must not be one key, nor ("a",) and ("a", "")."""
    assert (key_bytes(*some) == key_bytes(*others)) == (some == others)


def test_key_bytes_are_each_part_behind_its_length() -> None:
    """The format, fixed: 4 bytes of length, big end first, then UTF-8."""
    assert key_bytes("ab", "", "é") == b"\0\0\0\2ab\0\0\0\0\0\0\0\2\xc3\xa9"


def test_key_bytes_of_a_lone_surrogate_exist() -> None:
    """Text that is not Unicode is refused at ingestion, but placing it must not raise."""
    assert key_bytes("\ud800") == b"\0\0\0\3\xed\xa0\x80"


def test_affinity_is_stable_and_depends_on_each_name() -> None:
    """Ties are broken alike on every node: the token of the parts behind the word "affinity"."""
    assert affinity("a", "b") == slow_murmur(key_bytes("affinity", "a", "b"))[0]
    assert (
        len({affinity("a", "b"), affinity("b", "a"), affinity("ab"), affinity("a", "b", "")}) == 4
    )


@pytest.mark.parametrize("count", [1, 2, 33, 500])
def test_the_favourite_number_has_the_highest_affinity(count: int) -> None:
    """It places rows for ever: the same as by asking for each."""
    for name in ("", "p1", "ключ", "\ud800"):
        best = max(range(count), key=lambda n, name=name: affinity("t", "s", name, str(n)))
        assert favourite(count, "t", "s", name) == best
