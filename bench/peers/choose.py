"""Which peers take part: `--peer` in words, as the user names them.

    duckdb                                          in this process, if the library is installed
    postgres                                        a server of our own, if its programs are here
    chdb=PYTHON                                     an interpreter that has `chdb`
    clickhouse=URL[,pid=N][,data=DIR]               a server that runs already
    victorialogs=URL[,pid=N][,data=DIR]
    loki=URL[,pid=N][,data=DIR]

With `pid` the server's CPU and memory are told as well, with `data` Loki's size on disk.
"""

from importlib.util import find_spec
from pathlib import Path

from bench.peers.base import HttpPeer, Peer
from bench.peers.clickhouse import ClickHouse
from bench.peers.loki import Loki
from bench.peers.victorialogs import VictoriaLogs

SERVERS: dict[str, type[HttpPeer]] = {
    "clickhouse": ClickHouse,
    "victorialogs": VictoriaLogs,
    "loki": Loki,
}
NAMES = ("duckdb", "postgres", "chdb", *SERVERS)


class NoPeer(ValueError):
    """What was asked for can't take part; the text says why."""


def parse_server(words: str) -> tuple[str, int | None, str | None]:
    """`URL,pid=N,data=DIR` -> (URL, N, DIR).

    Raises:
        NoPeer: another word, no address, or a process number that is none.
    """
    url, *rest = words.split(",")
    if not url.startswith(("http://", "https://")):
        raise NoPeer(f"{url!r} is not an address: http://HOST:PORT")
    given: dict[str, str] = {}
    for one in rest:
        name, _, value = one.partition("=")
        if name not in ("pid", "data") or not value:
            raise NoPeer(f"{one!r}: only pid=N and data=DIR may follow the address")
        given[name] = value
    if "pid" in given and not given["pid"].isdigit():
        raise NoPeer(f"pid={given['pid']!r} is not a number")
    return url, int(given["pid"]) if "pid" in given else None, given.get("data")


def make(spec: str, folder: Path) -> Peer:
    """The peer that `spec` names; `folder` is for those that keep files of their own.

    Raises:
        NoPeer: it is not known, or not to be had on this machine.
    """
    name, _, words = spec.partition("=")
    if name in SERVERS:
        return SERVERS[name](*parse_server(words))
    if name == "duckdb":
        if find_spec("duckdb") is None:
            raise NoPeer("duckdb is not installed")
        from bench.peers.duck import DuckDb

        return DuckDb(folder / "duckdb")
    if name == "postgres":
        from bench.peers.postgres import Postgres, binaries

        programs = binaries()
        if programs is None:
            raise NoPeer("no PostgreSQL server found on this machine")
        return Postgres(folder / "postgres", programs)
    if name == "chdb":
        from bench.peers.chdb_process import ChDb

        if not words:
            raise NoPeer("chdb=PYTHON: which interpreter has it?")
        return ChDb(folder / "chdb", words)
    raise NoPeer(f"{name!r} is none of {', '.join(NAMES)}")
