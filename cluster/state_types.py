"""The values of the replicated state: who there is, who leads what, what was decided.

Every value is frozen and every mapping is replaced, never changed, so that a reader in any thread
may hold a `ClusterState` for as long as it likes. Nothing here decides anything; see state_ops.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from ring.generations import Generation

#: The newest command level that this binary understands; SetFeatureLevel may not go past it here.
SUPPORTED_LEVEL = 1
#: Bytes of one encoded command, and of the encoded state, beyond which a command is refused.
COMMAND_BYTES_MAX = 32 << 10
STATE_BYTES_MAX = 4 << 20
#: Results kept per proposer; it may have DEDUPE_RESULTS / 4 proposals in flight.
DEDUPE_RESULTS = 1024
#: A longer result is remembered as ["ok", None]; it keeps the dump bounded.
RESULT_BYTES_MAX = 1024
#: The state hash is noted whenever the log passes a multiple of this index.
CHECKPOINT_EVERY = 1000

ROLES = ("dashboard", "ingestor", "query", "storage")

Result = list[Any]
"""`["ok", value]` or `["err", code, text]`; equal on every node."""


@dataclass(frozen=True, slots=True)
class Member:
    """A process of the cluster. Addresses are `host:port` or a URL, empty when it has none."""

    id: str
    roles: tuple[str, ...]
    incarnation: int
    http: str = ""
    peer: str = ""
    raft: str = ""
    zone: str = ""
    weight: float = 1.0
    #: The incarnation of its store's directory; empty if unknown. Another one is another disk.
    store: str = ""

    def has(self, role: str) -> bool:
        """Whether the member runs `role`."""
        return role in self.roles


class Quorum(NamedTuple):
    """N replicas, W to acknowledge, R to read; R + W > N."""

    n: int
    w: int
    r: int


class ShardLeader(NamedTuple):
    """Who leads a shard, by which shard epoch, and the incarnation it was given the shard in.

    A restarted process finds its shards led by an older incarnation: not by itself.
    """

    node: str
    epoch: int
    incarnation: int = 0


class Versioned(NamedTuple):
    """A named document and how often it was written."""

    version: int
    body: Any


@dataclass(frozen=True, slots=True)
class DedupeRow:
    """What one proposer was answered. Counters below `floor` are forgotten and refused."""

    incarnation: int
    floor: int = 0
    results: Mapping[int, Result] = field(default_factory=dict)


class Checkpoint(NamedTuple):
    """The hash over all commands before the log index `number * CHECKPOINT_EVERY`."""

    number: int
    digest: bytes


#: Stages of a shard's move. COPYING: write to both, read the old owners. SETTLING: write to both,
#: read the new ones. Without a move a shard is written and read where the ring says.
COPYING, SETTLING = "copying", "settling"


class ShardMove(NamedTuple):
    """One replica of a shard under way. Empty `source`: it is added; empty `target`: given up.

    Both empty: nothing moves, the owners are compared and filled up in place.
    """

    source: str
    target: str
    stage: str


@dataclass(frozen=True, slots=True)
class RingChange:
    """A change of the ring that is being carried out; `id` is the ring epoch it began with.

    `target` and `before` are rings as ring.serde.to_dict gives them; only members, n and table count.
    `quorum`: (n, w, r) in force when it has ended. `settle`: each shard's owners are compared and filled
    up (`settled`: done) before it ends. `retire`: a member that leaves with it.
    """

    id: int
    reason: str
    target: Mapping[str, Any]
    before: Mapping[str, Any]
    quorum: Quorum
    parallel: int = 4
    bytes_per_second: int = 0
    aborting: bool = False
    retire: str = ""
    settle: bool = False
    settled: frozenset[int] = frozenset()


_DEFAULT_QUORUM = Quorum(3, 2, 2)
_NO_CHECKPOINT = Checkpoint(0, bytes(32))


@dataclass(frozen=True, slots=True)
class ClusterState:
    """The whole replicated state at one log index. Readable from any thread, never changed."""

    applied_index: int = 0
    cluster_id: str = ""
    cluster_epoch: int = 0
    feature_level: int = 1
    quorum: Quorum = _DEFAULT_QUORUM
    #: The least W that rows may have been acknowledged with and not been filled up since; 0: W.
    w_floor: int = 0
    #: The least R that a reader may go by who has not heard of the newest one; 0: R.
    r_floor: int = 0
    shard_count: int = 32
    members: Mapping[str, Member] = field(default_factory=dict)
    retired: Mapping[str, int] = field(default_factory=dict)
    #: How far the store of each member has come, as it told last (storage.mark).
    marks: Mapping[str, int] = field(default_factory=dict)
    ring: Mapping[str, Any] | None = None
    ring_epoch: int = 0
    ring_stage: str = ""
    moves: frozenset[int] = frozenset()
    change: RingChange | None = None
    moving: Mapping[int, ShardMove] = field(default_factory=dict)
    leaders: Mapping[int, ShardLeader] = field(default_factory=dict)
    #: By (tenant, service), its generations, the oldest (factor 1) first; absent: never split.
    splits: Mapping[tuple[str, str], tuple[Generation, ...]] = field(default_factory=dict)
    schemas: Mapping[str, Versioned] = field(default_factory=dict)
    watermarks: Mapping[tuple[str, str], int] = field(default_factory=dict)
    deletes: Mapping[str, Any] = field(default_factory=dict)
    grants: Mapping[str, Versioned] = field(default_factory=dict)
    dedupe: Mapping[str, DedupeRow] = field(default_factory=dict)
    history: bytes = bytes(32)
    checkpoint: Checkpoint = _NO_CHECKPOINT

    def with_role(self, role: str) -> list[Member]:
        """Members that run `role`, by id."""
        return [m for _, m in sorted(self.members.items()) if m.has(role)]

    @property
    def acked_on(self) -> int:
        """On how many owners each acknowledged row is, at least."""
        return self.w_floor or self.quorum.w

    @property
    def read_by(self) -> int:
        """How many owners each reader asks, at least: one that was cut off goes by the R it knew."""
        return self.r_floor or self.quorum.r

    def shards_of(self, node: str) -> dict[int, int]:
        """Shards that `node` leads, with their epochs."""
        return {s: lead.epoch for s, lead in sorted(self.leaders.items()) if lead.node == node}


class CommandError(Exception):
    """A command that the rules refuse; becomes an error value, never leaves `apply`."""

    def __init__(self, code: str, text: str) -> None:
        super().__init__(text)
        self.code = code
        self.text = text


class BinaryTooOld(Exception):
    """The cluster agreed on an operation that this binary does not know: it must stop."""
