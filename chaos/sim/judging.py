"""Verdicts on a simulated run: each acknowledgement when it is given (I9), the history when it is over."""

from collections.abc import Iterable

from chaos.checkers import CHECKERS, VIOLATED
from chaos.checkers_nodes import no_vanishing
from chaos.checkers_time import writes_go_on
from chaos.history import History, Op
from chaos.sim.clients import Traffic, Writer
from chaos.sim.consensus import SimLog
from chaos.sim.corpus import SimFacts
from chaos.sim.node import SimNode
from chaos.sim.owning import owner_sets
from chaos.sim.splitting import factor_of
from cluster.state_types import ClusterState
from records.ids import digest_id
from ring.shards import shard_of

TENANT = "default"


class Acks:
    """I9: what is being acknowledged is on the platters of W owners of each owner set now."""

    def __init__(
        self, log: SimLog, nodes: dict[str, SimNode], broken: list[tuple[str, str]]
    ) -> None:
        self._log, self._nodes, self._broken = log, nodes, broken

    def begin(self, traffic: Traffic) -> None:
        """Whose acknowledgements they are."""
        self._traffic = traffic

    def acked(
        self, client: str, writer: Writer | None, numbers: Iterable[int], content: bytes, since: int
    ) -> None:
        """Judges one; see Traffic.on_ack."""
        shards = self._log.newest.shard_count
        if writer is None:
            if not self._below(client, numbers):
                self._judge_batch(client, content, shards, since)
            return
        key = (TENANT, writer.service, writer.producer)
        held = {id: one.disk.seqs_on_platter(key, writer.epoch) for id, one in self._nodes.items()}
        factor = factor_of(self._log.newest, TENANT, writer.service, writer.epoch)
        shard = shard_of(TENANT, writer.service, factor, writer.producer, shards)
        for number in numbers:
            having = {id for id, one in held.items() if number in one}
            self._judge(f"{client}:{number}", int(shard), having, since)

    def _judge_batch(self, client: str, content: bytes, shards: int, since: int) -> None:
        service = self._traffic.services[client].encode()
        wanted: dict[bytes, int] = {}
        for shard in range(shards):
            name = str(shard).encode()
            away = digest_id(content, b"split", service, name)
            wanted |= {digest_id(content, name): shard, digest_id(away, name): shard}
        found: dict[int, set[str]] = {}
        for id, node in self._nodes.items():
            for one in wanted.keys() & node.disk.contents_on_platter():
                found.setdefault(wanted[one], set()).add(id)
        ways = sorted(found.items()) or [(0, set[str]())]
        met = (self._is_met(shard, having, since) for shard, having in ways)
        if not any(met):  # a try of before a split may lie elsewhere, in part
            self._judge(f"a batch of {client}", *ways[0], since)

    def _below(self, client: str, numbers: Iterable[int]) -> bool:
        """Whether watermarks hide all these rows, whatever services their entry may hold: they are
        acknowledged, and not stored."""
        marks = self._log.newest.watermarks
        service, corpus = self._traffic.services[client], self._traffic.corpus
        latest = max(corpus.row(client, number, service)["_micros"] for number in numbers)
        return (TENANT, "") in marks and latest < min(marks.values())

    def _judge(self, what: str, shard: int, having: set[str], since: int) -> None:
        """`since`: the answering node went by the state of this log index, or a later one."""
        if self._is_met(shard, having, since):
            return
        newest = self._log.newest
        sets = " and of ".join("".join(owners) for owners in owner_sets(newest, shard))
        text = f"{what} was acknowledged, on {', '.join(sorted(having)) or 'none'}"
        self._broken.append(("I9", f"{text}; {newest.quorum.w} of {sets} must have it"))

    def _is_met(self, shard: int, having: set[str], since: int) -> bool:
        return any(_met(state, shard, having) for state in reversed(self._log.states[since:]))


def _met(state: ClusterState, shard: int, having: set[str]) -> bool:
    sets = owner_sets(state, shard)
    return all(len(having.intersection(owners)) >= state.quorum.w for owners in sets)


#: I7 of rows that nobody had acknowledged: with their only holder dead they may flicker. L1: a fault is never
#: alone here, and of cuts, losses and failing disks the history says nothing.
_NOT_HERE = (no_vanishing, writes_go_on)


def judge(history: History, hidden: frozenset[str] = frozenset()) -> list[tuple[str, str]]:
    """What chaos.checkers find wrong with a history. `hidden`: names of rows that reads may lack."""
    facts = SimFacts(history, hidden=hidden)
    found = []
    for checker in CHECKERS:
        if checker in _NOT_HERE:
            continue
        verdict = checker(facts)
        if verdict.status == VIOLATED:
            found += [(verdict.id, example) for example in verdict.examples]
    return found


def line(op: Op) -> str:
    """An op as a line of the trace."""
    return f"{op.t_inv} {op.t_ret} {op.client} {op.kind} {op.node} {op.rows} {op.outcome} {op.resp}"
