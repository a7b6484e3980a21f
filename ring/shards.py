"""Keys to shards: fixed, equal arcs of the ring, and the split of a hot service over several.

Invariant: a shard is a pure function of (tenant, service, split factor, producer, shard count), never of
time or of who is alive. (For unnumbered rows the digest of their request stands for the producer.) The
shard count is fixed for a cluster's life, so that members can come and go without any row's shard
changing; only the owners of shards change.

A service lives whole on its *home* shard until its split factor is raised. With factor k its
producers spread over the k shards from home onward, each producer whole on one of them. Which one
is by highest affinity, so raising k by one moves only 1/(k+1) of the producers, all to the new one.
Which factor holds for which rows: ring.generations.

Source: DeCandia et al., "Dynamo" (SOSP 2007), section 6.2, strategy 3.
"""

from collections.abc import Sequence

from records.ids import ShardId
from ring.hashing import favourite, key_bytes, token_of
from ring.tokens import RING_SIZE, TOKEN_BITS, Token, TokenRange

#: Shards of a new cluster. More give a finer balance and smaller moves, at the price of more blocks
#: (one stream each), more leases and more Merkle trees. 32 keeps max/mean load within 1.1 for 3 to
#: 8 equal nodes at n = 3.
DEFAULT_SHARD_COUNT = 32

#: No ring has more: at n = 3 the owners table has to fit into one Raft command (70,000 bytes).
MAX_SHARD_COUNT = 4096


def shard_of_token(token: int, shard_count: int = DEFAULT_SHARD_COUNT) -> ShardId:
    """The shard whose arc holds `token`."""
    return ShardId((token * shard_count) >> TOKEN_BITS)


def arc_of(shard: int, shard_count: int = DEFAULT_SHARD_COUNT) -> TokenRange:
    """The arc of `shard`. Arcs are equal, to within one token if the count is no power of two."""
    if not 0 <= shard < shard_count:
        raise ValueError(f"shard must be in 0..{shard_count - 1}, got {shard}")
    start, end = (-(-edge * RING_SIZE // shard_count) for edge in (shard, shard + 1))
    return TokenRange(Token(start), Token(end % RING_SIZE))


def shard_of(
    tenant: str,
    service: str,
    split: int = 1,
    producer: str = "",
    shard_count: int = DEFAULT_SHARD_COUNT,
) -> ShardId:
    """The shard that holds `producer`'s rows of (tenant, service); `producer` counts if split > 1.

    A batch without a producer passes what it is identified by (its content digest), so that a
    repeat meets the same owners. Cost: microseconds, and `split` hashes more if split > 1.

    Raises:
        ValueError: split is not in 1..shard_count.
    """
    if not 1 <= split <= shard_count:
        raise ValueError(f"split factor must be in 1..{shard_count}, got {split}")
    home = shard_of_token(token_of(key_bytes(tenant, service)), shard_count)
    if split == 1:
        return home
    return ShardId((home + favourite(split, tenant, service, producer)) % shard_count)


def shards_of_services(
    tenant: str, services: Sequence[str], shard_count: int = DEFAULT_SHARD_COUNT
) -> list[ShardId]:
    """The home shard of each service, in order: hash the values of a dictionary column, then gather.

    For services that are not split. Cost: one hash a value, so give it the unique ones.
    """
    prefix = key_bytes(tenant)
    return [
        shard_of_token(token_of(prefix + key_bytes(service)), shard_count) for service in services
    ]


def shards_of_service(
    tenant: str, service: str, split: int = 1, shard_count: int = DEFAULT_SHARD_COUNT
) -> tuple[ShardId, ...]:
    """Every shard that may hold rows of (tenant, service) at this split factor: what a read asks.

    The home shard comes first. A factor that was once higher has left rows further on; the reader
    passes the highest factor the service ever had.
    """
    if not 1 <= split <= shard_count:
        raise ValueError(f"split factor must be in 1..{shard_count}, got {split}")
    home = shard_of_token(token_of(key_bytes(tenant, service)), shard_count)
    return tuple(ShardId((home + slot) % shard_count) for slot in range(split))
