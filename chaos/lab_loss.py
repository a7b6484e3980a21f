"""Packets lost by lot: one in so many of those that arrive in this network namespace from elsewhere.

    python -m chaos.lab_loss put 10 10.177.0.1      one in ten, but for what 10.177.0.1 sends itself
    python -m chaos.lab_loss count                  packets met, packets dropped
    python -m chaos.lab_loss remove

A table of nftables, put there by its netlink messages: the kernel's part is common, while netem often is not
there, nor the command `nft`. TCP sends again what is lost, with its own time-outs; what it gives up ends.

Source: Linux, include/uapi/linux/netfilter/nf_tables.h and nfnetlink.h.
"""

import contextlib
import socket
import struct
import sys
from collections.abc import Iterator
from pathlib import Path

TABLE, CHAIN = b"qlloss\0", b"in\0"
_NETLINK_NETFILTER, _NF_TABLES, _IPV4 = 12, 10, 2
_BATCH_BEGIN, _BATCH_END = 0x10, 0x11
_NEW_TABLE, _DEL_TABLE, _NEW_CHAIN, _NEW_RULE, _GET_RULE = 0, 2, 3, 6, 7
_REQUEST, _ACK, _DUMP, _CREATE, _EXCLUSIVE = 0x1, 0x4, 0x300, 0x400, 0x200
_ERROR, _DONE = 2, 3
_NESTED = 0x8000
_REGISTER, _VERDICT_REGISTER, _DROP = 1, 0, 0
_LOCAL_IN, _NETWORK_HEADER, _SOURCE = 1, 1, (12, 4)
_EQUAL, _NOT_EQUAL, _RANDOM = 0, 1, 1


class LossFailed(OSError):
    """The kernel refused."""


def put(one_in: int, own: str) -> None:
    """From now on one in `one_in` packets that `own` did not send is dropped.

    Raises:
        LossFailed: no nftables here, or it is there already.
    """
    offset, length = _SOURCE
    zero, address = struct.pack("=I", 0), socket.inet_aton(own)
    source = (_REGISTER, _NETWORK_HEADER, offset, length)
    lot = (_REGISTER, one_in, _RANDOM, 0)
    expressions = (
        _expression(b"payload", *((i, _u32(one)) for i, one in enumerate(source, 1))),
        _compare(_NOT_EQUAL, address),
        _expression(b"counter"),
        _expression(b"numgen", *((i, _u32(one)) for i, one in enumerate(lot, 1))),
        _compare(_EQUAL, zero),
        _expression(b"counter"),
        _expression(b"immediate", (1, _u32(_VERDICT_REGISTER)), (2, [(2, [(1, _u32(_DROP))])])),
    )  # fmt: skip
    hook = [(1, _u32(_LOCAL_IN)), (2, _u32(0))]
    chain = ((1, TABLE), (3, CHAIN), (4, hook), (7, b"filter\0"))
    rule = ((1, TABLE), (2, CHAIN), (4, [(1, one) for one in expressions]))
    _batch(
        _message(_NEW_TABLE, _CREATE | _EXCLUSIVE, (1, TABLE)),
        _message(_NEW_CHAIN, _CREATE, *chain),
        _message(_NEW_RULE, _CREATE, *rule),
    )


def remove() -> None:
    """Nothing is dropped any more.

    Raises:
        LossFailed: nothing was.
    """
    _batch(_message(_DEL_TABLE, 0, (1, TABLE)))


def count() -> tuple[int, int]:
    """Packets that were met, and those of them that were dropped."""
    with _socket() as link:
        link.send(_message(_GET_RULE, _DUMP, (1, TABLE)))
        data = link.recv(1 << 16)
    (size,) = struct.unpack_from("=I", data)
    attributes = dict(_attributes(data[20:size]))
    found = []
    for _, element in _attributes(attributes.get(4, b"")):
        expression = dict(_attributes(element))
        if expression[1] == b"counter\0":
            found.append(struct.unpack(">Q", dict(_attributes(expression[2]))[2])[0])
    if len(found) != 2:
        raise LossFailed(f"{len(found)} counters are there, not 2")
    return found[0], found[1]


def reason_against(folder: Path) -> str:
    """Why packets cannot be lost here; empty if they can. Tries it once."""
    with contextlib.suppress(OSError):
        remove()
    try:
        put(10, "127.0.0.1")
        count()
        remove()
    except OSError as error:
        return f"no nftables: {error}"
    return ""


# ---- netlink


def _u32(value: int) -> bytes:
    return struct.pack(">I", value)


def _attribute(kind: int, value: "bytes | list") -> bytes:
    if isinstance(value, list):
        kind, value = kind | _NESTED, b"".join(_attribute(*one) for one in value)
    size = 4 + len(value)
    return struct.pack("=HH", size, kind) + value + bytes(-size % 4)


def _attributes(data: bytes) -> Iterator[tuple[int, bytes]]:
    at = 0
    while at + 4 <= len(data):
        size, kind = struct.unpack_from("=HH", data, at)
        if size < 4:
            return
        yield kind & 0x3FFF, data[at + 4 : at + size]
        at += -(-size // 4) * 4


def _expression(name: bytes, *attributes: tuple[int, "bytes | list"]) -> list:
    return [(1, name + b"\0"), (2, list(attributes))]


def _compare(how: int, value: bytes) -> list:
    return _expression(b"cmp", (1, _u32(_REGISTER)), (2, _u32(how)), (3, [(1, value)]))


def _message(what: int, flags: int, *attributes: tuple[int, "bytes | list"]) -> bytes:
    body = struct.pack(">BBH", _IPV4, 0, 0) + b"".join(_attribute(*one) for one in attributes)
    flags |= _REQUEST | (0 if flags & _DUMP == _DUMP else _ACK)
    return struct.pack("=IHHII", 16 + len(body), _NF_TABLES << 8 | what, flags, 1, 0) + body


def _socket() -> socket.socket:
    link = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, _NETLINK_NETFILTER)
    link.settimeout(5)
    link.bind((0, 0))
    return link


def _batch(*messages: bytes) -> None:
    """Sends changes as one: all of them hold, or none."""
    frame = struct.pack(">BBH", 0, 0, _NF_TABLES)
    begin, end = (
        struct.pack("=IHHII", 20, kind, _REQUEST, 0, 0) + frame
        for kind in (_BATCH_BEGIN, _BATCH_END)
    )
    with _socket() as link:
        link.send(begin + b"".join(messages) + end)
        answered = 0
        while answered < len(messages):
            data = link.recv(1 << 16)
            while data:
                size, kind = struct.unpack_from("=IH", data)
                (code,) = struct.unpack_from("=i", data, 16)
                if kind == _ERROR and code:
                    raise LossFailed(-code, "nf_tables refused")
                answered += kind == _ERROR
                data = data[-(-size // 4) * 4 :]


def main(words: list[str]) -> None:
    """One command in the namespace that this process is in."""
    match words:
        case ["put", one_in, own]:
            put(int(one_in), own)
        case ["count"]:
            print(*count())
        case ["remove"]:
            remove()
        case _:
            sys.exit("put ONE_IN ADDRESS | count | remove")


if __name__ == "__main__":
    main(sys.argv[1:])
