"""What is fuzzed: a target takes one input and raises if something is not as it has to be.

Targets of one kind compare two ways to the same answer (the kernel and Python); of the other kind hand
hostile bytes to a decoder, which may refuse them by its own error, and by nothing else.
"""

import json
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from random import Random
from typing import Any

import numpy as np
import pyarrow as pa

from cluster.peer_frames import FrameReader
from ingestor.limits import Limits
from ingestor.parsers import json_document, native, strict_lines
from ingestor.parsers.detect import Format
from query import cursor, language
from records import block_codec, envelope, sidecar, token_filter
from records.errors import QuorumlogError
from records.hint import Hint
from storage import hints, log_format
from tests.fuzz.mutate import EDGES, JSON_TOKENS, mutated
from tests.native import test_batches_with_and_without as batches
from tests.native.test_json_kernel import same
from tests.unit.ingestor.test_arrow_rows import ROWS, batch_of, stream, typed
from tests.unit.records.blocks import small_block

LIMITS = Limits()
SMALL = Limits(
    row_bytes=40,
    row_bytes_max=60,
    row_fields=3,
    name_bytes=5,
    depth=2,
    columns_sure=4,
    document_rows=3,
)


@dataclass(frozen=True, slots=True)
class Target:
    """`make`: an input from a number; `run`: shows that all is well with it; `inputs`: how many in one."""

    make: Callable[[Random], bytes]
    run: Callable[[bytes], None]
    inputs: int = 1


def keep(_: str) -> bool:
    """No field is kept by name."""
    return False


# -- JSON ------------------------------------------------------------------------------------------

LINES = [
    b'{"timestamp":"2026-01-01T00:00:00.123456Z","service":"shop","level":"info","message":"paid 5"}',
    b'{"a":1,"b":2.5,"c":true,"d":null,"e":"x"}',
    b'{"a":{"b":{"c":[1,{"d":"e"},[]]},"f":-1.5e3},"message":"x\\ty\\u00e9\\ud83d\\ude00"}',
    b'{"a":"1","b":[],"c":{}}', b"{}", b'{"":0,"a.b":1}', b'  {"a" : [ 1 , 2.0 , "z" ] }  ', b'{"a":1}',
    b'{"trace_id":"%s","duration_ms":12.5,"status":200}' % (b"0123456789abcdef" * 2),
    '{"message":"Größe 😀","level":"WARN","é":"\u2028"}'.encode(),
]  # fmt: skip
LINES_A_BODY = 24


def make_lines(rng: Random) -> bytes:
    """Lines, each broken by itself, so that one body holds many inputs."""
    count = rng.choice((1, 2, LINES_A_BODY, LINES_A_BODY))
    return rng.choice((b"\n", b"\n", b"\r\n", b"\n\n")).join(
        mutated(rng, LINES) for _ in range(count)
    )


def run_lines(body: bytes) -> None:
    """The kernel's columns and verdicts are Python's; a body it declines is asked line by line."""
    for limits in (LIMITS, SMALL):
        found = native.parse(body, limits)
        if found is not None:
            same(found, strict_lines.parse_slowly(body, limits, keep))
        elif b"\n" in body and limits is LIMITS:
            for line in body.split(b"\n"):
                run_lines(line)


DOCUMENTS = [
    b"[" + b",".join(LINES[1:4]) + b"]",
    b'{"service":"a","producer":"p","epoch":1,"logs":[' + LINES[0] + b',{"seq":2}],"skip":[1]}',
    b" [ ] ", b'{"logs":[]}', b'[{"a":1},{"a":"x"}]', b'{"service":"s","logs":[{"service":"t"}]}',
]  # fmt: skip


def run_document(body: bytes) -> None:
    """Where the kernel answers, walking the document gives the same."""
    for limits in (LIMITS, SMALL):
        found = json_document._with_kernel(body, limits, native.NO_HINTS)
        if found is not None:
            slow = json_document.parse_slowly(body, limits, keep)
            same(found.parsed, slow.parsed)
            assert (found.enveloped, found.envelope) == (slow.enveloped, slow.envelope)


def run_batch(body: bytes) -> None:
    """The whole way to a batch (times, levels, dictionaries) with the kernel and without."""
    batches.both(body, batches.Options())


def run_any_body(body: bytes) -> None:
    """Bytes of no known format under one of the formats: rows, bad rows, or a refusal."""
    forms = [form for form in Format if form is not Format.ARROW]
    try:
        batches.take(body, batches.Options(), forms[zlib.crc32(body) % len(forms)])
    except QuorumlogError:
        return


# -- filters ---------------------------------------------------------------------------------------

TEXTS = [b"paid order 1234", b"GET /api/v1?id=dead0", "größe \u212a \u017f x".encode(), b"a" * 70]


def run_filter(data: bytes) -> None:
    """Both builders make the same bits, and every word of every text is found."""
    texts = [part.decode("utf-8", "replace") for part in data.split(b"\n")]
    array = token_filter.fold_letters(pa.array(texts, pa.string()))
    for words in (True, False):
        made = [token_filter.build(array, words, native=one) for one in (True, False)]
        assert made[0] == made[1]
        lanes = np.frombuffer(made[0], "<u8").reshape(-1, token_filter.LANES)
        size = np.array([len(lanes)])
        for text in texts:
            folded = token_filter.fold_letters(pa.array([text]))[0].as_py()
            keys = token_filter.words_of(text) if words else [folded.encode()]
            for key in keys:
                hashed = token_filter.hash_key(key)
                assert token_filter.maybe(hashed, lanes, np.zeros(1, np.int64), size).all(), key


# -- binary ----------------------------------------------------------------------------------------


def arrow_seeds() -> list[bytes]:
    """Streams as clients send them, and some with types that rows cannot have."""
    numbered = pa.table({"seq": [1, 2], "message": ["a", "b"]})
    tables = [
        typed(ROWS), numbered, pa.table({"x": [[1], []], "y": [{"a": 1}, None]}),
        pa.table({"x": pa.array([1, None], pa.decimal128(9, 2)), "y": [b"b", None]}),
    ]  # fmt: skip
    envelope_text = json.dumps({"service": "s", "producer": "p", "epoch": 1})
    made = [stream(table.replace_schema_metadata({"quorumlog": envelope_text})) for table in tables]
    return [*made, stream(tables[0], compression="zstd")]


def run_arrow(body: bytes) -> None:
    """A refusal, or whole columns that a block can be made of."""
    try:
        batch = batch_of(body, document_rows=10_000)
    except QuorumlogError:
        return
    batch.table.validate(full=True)
    assert batch.table.num_rows + batch.rejected_count <= 10_000
    if batch.table.num_rows:
        block_codec.encode_body(batch.table)


def run_frames(stream_bytes: bytes) -> None:
    """Any cut of the stream: frames, or a refusal; never more memory than the limit."""
    reader, at = FrameReader(1 << 16), 0
    step = 1 + len(stream_bytes) % 97
    try:
        while at < len(stream_bytes):
            room = reader.target()
            assert len(room) > 0
            part = stream_bytes[at : at + min(step, len(room))]
            room[: len(part)] = part
            reader.filled(len(part))
            at += len(part)
            while (frame := reader.take()) is not None:
                assert len(frame) <= 1 << 16
                envelope.decode(frame)
    except QuorumlogError:
        return


def run_msgpack(data: bytes) -> None:
    """What passed its checksum may still be nonsense: of a head, a header, a sidecar."""
    for decode in (envelope.unpackb, sidecar.from_bytes, _header):
        try:
            decode(data)
        except QuorumlogError:
            continue
    frame = envelope.PREFIX_BYTES
    head = data[:frame] if len(data) >= frame else data.ljust(frame, b"\0")
    try:
        envelope.frame_bytes(head)
    except QuorumlogError:
        return


def _header(data: bytes) -> None:
    """As a block whose header this is, with checksums that fit."""
    body = zlib.crc32(b"")
    prefix = block_codec.PREFIX.pack(
        block_codec.MAGIC, len(data), zlib.crc32(data), 0, body, 0, body
    )
    found = block_codec.decode_block(prefix + zlib.crc32(prefix).to_bytes(4, "big") + data)
    assert found.header.to_dict()


def run_block(data: bytes) -> None:
    """A block of a stranger: refused, or whole."""
    try:
        block_codec.decode_block(data)
        block_codec.decode_sidecar(data)
    except QuorumlogError:
        return


def run_log(data: bytes) -> None:
    """A log file after any damage is read to its end; records lie within it, one after another."""
    found = log_format.read_file(data, 1)
    at = 0
    for record in found.records:
        assert at <= record.offset < record.end <= len(data)
        at = record.end


def run_hints(data: bytes) -> None:
    """A file of hints, and what a peer sends as one: hints of that target alone, or nothing."""
    found, damaged = hints.read_hints(data, 1, "node2")
    assert damaged >= 0
    assert all(hint.target == "node2" and hint.entries >= 0 for hint in found)
    try:
        hint = Hint.from_list(envelope.unpackb(data))
    except QuorumlogError:
        return
    assert Hint.from_list(hint.to_list()) == hint


def hint_seeds() -> list[bytes]:
    """A file of two hints, and a packed one alone."""
    values = Hint("node2", 3, 1 << 50, ((1, bytes(32)), (7, bytes(range(16))))).to_list()
    parts = b""
    for kind, meta in ((1, {"format": 1}), (hints.HINT, values), (hints.HINT, values)):
        packed = envelope.packb(meta)
        parts += log_format.encode(kind, packed, 0, 1, 77, 0)
        parts += bytes(log_format.padding(len(parts)))
    return [parts, envelope.packb(values)]


def log_seed() -> bytes:
    """A log file: its FILE record, a block, a note."""
    parts, block = [], bytes(small_block().data)
    for kind, meta, body in ((1, {"v": 1}, b""), (2, [1], block), (5, 7, b"")):
        packed = envelope.packb(meta)
        head = log_format.encode(kind, packed, len(body), 1, 77, 0)
        whole = head + body
        parts.append(whole + bytes(log_format.padding(len(whole))))
    return b"".join(parts)


# -- text ------------------------------------------------------------------------------------------

QUERIES = [
    b'level:error AND NOT (service:"pay*" OR host:in(a,b)) status:>=500',
    b'message:~"id=dead[0-9a-f]{4}" OR "quoted \\" text"', b"duration_ms:[1 TO 5} -x:y", b"* AND a.b:c",
]  # fmt: skip
QUERY_TOKENS = (
    b"(", b")", b"AND", b"OR", b"NOT", b":", b"~", b'"', b"[", b"]", b"{", b"}", b" TO ", b"in(", b"*",
    b"-", b">=", b"<", b"=", b"\\", b"!", *EDGES,
)  # fmt: skip


def run_query(data: bytes) -> None:
    """Text of a query: a tree that is written and read again as the same tree, or a refusal."""
    text = data.decode("utf-8", "replace")
    try:
        tree = language.parse(text)
    except QuorumlogError:
        return
    assert language.parse(language.unparse(tree)) == tree


def run_cursor(data: bytes) -> None:
    """A cursor that a client made up."""
    try:
        cursor.decode(data.decode("latin-1"), b"q" * 8)
    except QuorumlogError:
        return


def _maker(seeds: list[bytes], tokens: tuple[bytes, ...] = ()) -> Callable[[Random], bytes]:
    return lambda rng: mutated(rng, seeds, tokens)


def targets() -> dict[str, Target]:
    """All, by name."""
    block = bytes(small_block().data)
    parts = block_codec.parse_prefix(block)
    packed: list[Any] = [block[slice(*parts.header)], block[slice(*parts.sidecar)]]
    packed += [envelope.packb({"a": [1, b"x", None, {"b": 1.5}], 2: "c"})]
    frames = [envelope.encode({"n": 1, "k": [b"x"]}, b"payload" * 50), envelope.encode({})]
    arrow = arrow_seeds()
    lines = [
        b'a,b,message\n1,"x ""y""",z\n', b'level=info msg="a b" n=5\n', b"plain text\n",
        b"<34>1 2026-01-01T00:00:00Z h a - - - m",
        b'127.0.0.1 - - [10/Oct/2026:13:55:36 +0000] "GET / HTTP/1.1" 200 2326 "-" "x"\n',
    ]  # fmt: skip
    return {
        "lines": Target(make_lines, run_lines, LINES_A_BODY),
        "document": Target(_maker(DOCUMENTS, JSON_TOKENS), run_document),
        "batch": Target(make_lines, run_batch, LINES_A_BODY),
        "any_body": Target(_maker([*LINES, *DOCUMENTS, *lines], JSON_TOKENS), run_any_body),
        "filter": Target(
            _maker(TEXTS, (b"\n", b" ", b"A", "\u017f\u212a".encode(), b"0" * 64)), run_filter
        ),
        "arrow": Target(_maker(arrow, (b"\xff" * 4, b"\0" * 8)), run_arrow),
        "frames": Target(_maker([*frames, frames[0] + frames[1]], (b"QLE1",)), run_frames),
        "msgpack": Target(_maker(packed, (b"\xdd", b"\xdf\xff", b"\x81\x90", b"\xc1")), run_msgpack),
        "block": Target(_maker([block], (b"QLB1",)), run_block),
        "log": Target(_maker([log_seed()], (b"QLR1",)), run_log),
        "hints": Target(_maker(hint_seeds(), (b"QLR1", b"node2")), run_hints),
        "query": Target(_maker(QUERIES, QUERY_TOKENS), run_query),
        "cursor": Target(_maker([b"AAAA", b"q1.5.x=="], (b"=", b".")), run_cursor),
    }  # fmt: skip
