"""Where data belongs: keys to shards, shards to owners, and the change from one ring to the next.

    (tenant, service) --mmh3--> Token --equal arcs--> Shard --table--> owners, in order
       hashing.py                tokens.py, shards.py          ring.py

    members --rule--> table, fewest moves --> next Ring --> what moves --> bytes
      builder.py, placement.py, assignment.py, flow.py      delta.py       serde.py

Everything here is pure: no clock, no network, no randomness, nothing that depends on the process.
The builder proposes a ring, Raft commits it under a new `ring_epoch`, everyone reads the table.

**Why not simply the first n nodes clockwise from the key?** That is Dynamo's first strategy, and it
ties two things together: adding a node then changes which keys belong together, so Merkle trees are
built anew, and a replica has to scan for what it must hand over. With fixed arcs a shard's content
never changes by membership; it moves as a whole or not at all (Dynamo 6.2, strategy 3).

**Why not random virtual nodes, or rendezvous hashing, for the owners?** With 32 shards they leave
loads of twice the mean: chance evens out only over thousands of places, and here each place costs a
stream of blocks, a lease and a Merkle tree. We want floor or ceiling of the exact share, n zones and
the fewest moves all at once. Stated as a flow, this has an exact answer in milliseconds. Rendezvous
hashing still breaks the ties.

**Why is the table stored, if it can be computed?** It cannot be computed from the members alone: the
fewest moves depend on where the replicas are. And two versions of a builder may disagree, but two
readers of one committed table cannot (Swift's lesson).

**Why does the zone rule come before balance?** Losing a zone must leave a read quorum where it can.
A zone with one small node and n = 3 zones gets a replica of every shard, however light it is; that
is visible in `loads()`, and the remedy is a second node in that zone.

**Why not fewer, larger groups of owners?** Copysets (Cidon et al., 2013) would make fewer
combinations of three nodes fatal, and let one block carry more shards; replicas that are mixed
let every node help to rebuild a lost one, which shortens the time in which a second loss hurts, and
keep moves few. For few nodes the question does not arise: at n nodes there is one group, at n + 1
there are n + 1.

**Why may a ring have fewer owners than n?** A cluster of one or two storage nodes is a good way to
begin. Each node then holds every shard, `effective_n` tells, and the rest comes with the third node.

Reading: DeCandia et al., "Dynamo" (SOSP 2007), sections 4.2, 4.3, 6.2.
"""
