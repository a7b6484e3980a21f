"""Bodies in every encoding we take, whole, in pieces, cut, damaged, and as bombs."""

import gzip
import os
import resource
import zlib

import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st

from ingestor.decompress import Decoder, decompress
from ingestor.limits import Limits
from records.errors import InvalidRequest, TooLarge, UnsupportedMedia

LIMITS = Limits(decoded_bytes=32 << 20)
TEXT = b'{"message":"hello","n":1}\n' * 5000


def raw_deflate(data: bytes) -> bytes:
    packer = zlib.compressobj(wbits=-15)
    return packer.compress(data) + packer.flush()


ENCODERS = {
    "identity": lambda data: data,
    "gzip": gzip.compress,
    "deflate": zlib.compress,
    "zstd": zstandard.ZstdCompressor().compress,
}


@pytest.mark.parametrize("encoding", ENCODERS)
@pytest.mark.parametrize("size", [1, 7, 1000, 1 << 20])
def test_a_body_in_chunks_of_any_size_decodes_to_the_same_bytes(encoding: str, size: int) -> None:
    """The wire's cuts mean nothing."""
    data = TEXT + os.urandom(20_000)
    body = ENCODERS[encoding](data)
    body = body[: 1 << 20]

    chunks = [body[i : i + size] for i in range(0, len(body), size)]

    assert decompress(chunks, encoding, LIMITS) == data


def test_raw_deflate_is_taken_as_well_as_zlib_wrapped() -> None:
    """RFC 9110 means zlib by `deflate`; many clients send the raw stream."""
    assert decompress(raw_deflate(TEXT), "deflate", LIMITS) == TEXT


@pytest.mark.parametrize("encoding", ["gzip", "zstd"])
def test_members_one_after_the_other_are_one_body(encoding: str) -> None:
    """RFC 1952 2.2: a gzip file is a series of members; zstd frames likewise."""
    pack = ENCODERS[encoding]

    assert decompress(pack(b"one ") + pack(b"two"), encoding, LIMITS) == b"one two"


def test_zeros_after_a_gzip_member_are_padding() -> None:
    """As tape and some proxies leave them; gzip(1) ignores them too."""
    assert decompress(gzip.compress(b"one") + b"\0" * 512, "gzip", LIMITS) == b"one"


@pytest.mark.parametrize("encoding", ["gzip", "deflate", "zstd"])
def test_a_body_cut_anywhere_is_refused_as_cut(encoding: str) -> None:
    """Never half a body as if it were whole: each cut of a small body, and the empty one."""
    body = ENCODERS[encoding](b"some rows\n" * 20)

    for end in range(len(body)):
        with pytest.raises(InvalidRequest):
            decompress(body[:end], encoding, LIMITS)


@pytest.mark.parametrize("encoding", ["gzip", "deflate", "zstd"])
def test_noise_instead_of_a_body_is_refused(encoding: str) -> None:
    """Definite, with the place."""
    with pytest.raises(InvalidRequest, match=r"damaged|early"):
        decompress(b"\x00\xff" * 100, encoding, LIMITS)


def bomb(encoding: str) -> bytes:
    zeros = b"\0" * (1 << 20)
    if encoding == "zstd":
        packer = zstandard.ZstdCompressor(level=3).compressobj()
        return b"".join(packer.compress(zeros) for _ in range(1024)) + packer.flush()
    bits = {"gzip": 31, "deflate": 15}[encoding]
    packer = zlib.compressobj(9, wbits=bits)
    return b"".join(packer.compress(zeros) for _ in range(1024)) + packer.flush()


@pytest.mark.parametrize("encoding", ["gzip", "deflate", "zstd"])
def test_a_bomb_is_refused_before_memory_grows(encoding: str) -> None:
    """1 GiB of zeros in at most 1 MiB: refused at the budget of 32 MiB with no more than that kept."""
    body = bomb(encoding)
    assert len(body) < 2 << 20
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss

    with pytest.raises(TooLarge):
        decompress(body, encoding, LIMITS)

    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    assert grown <= 80 * 1024


def test_a_million_empty_members_cost_no_cpu() -> None:
    """Each member costs a decompressor; almost empty ones end at a thousand."""
    with pytest.raises(InvalidRequest, match="almost empty"):
        decompress(gzip.compress(b"") * 50_000, "gzip", LIMITS)


def test_a_body_over_the_wire_budget_is_refused() -> None:
    """413, also when it would not decode to much."""
    with pytest.raises(TooLarge):
        decompress(b"x" * 101, "identity", Limits(wire_bytes=100))
    assert decompress(b"x" * 100, "identity", Limits(wire_bytes=100)) == b"x" * 100


def test_a_zstd_window_over_8_mib_is_refused() -> None:
    """The window is memory that the sender chooses."""
    parameters = zstandard.ZstdCompressionParameters(window_log=25, enable_ldm=True)
    body = zstandard.ZstdCompressor(compression_params=parameters).compressobj()
    data = body.compress(os.urandom(1 << 10)) + body.flush()

    with pytest.raises(InvalidRequest):
        decompress(data, "zstd", LIMITS)


@pytest.mark.parametrize("name", ["br", "snappy", "gzip, gzip", "x" * 5000])
def test_an_unknown_encoding_is_unsupported_media(name: str) -> None:
    """415 names what is supported."""
    with pytest.raises(UnsupportedMedia) as caught:
        Decoder(name, LIMITS)

    assert "zstd" in caught.value.details["supported"]
    assert len(caught.value.message) < 200


@settings(max_examples=60)
@given(data=st.binary(max_size=3000), flips=st.lists(st.integers(0, 10**6), max_size=3))
def test_a_damaged_body_is_refused_or_decodes_and_never_breaks(data: bytes, flips: list) -> None:
    """Whatever is flipped: an error of ours, or bytes."""
    for encoding in ("gzip", "deflate", "zstd"):
        body = bytearray(ENCODERS[encoding](data))
        for flip in flips:
            body[flip % len(body)] ^= 1 << flip % 8
        try:
            decompress(bytes(body), encoding, LIMITS)
        except (InvalidRequest, TooLarge):
            assert flips
