"""Layer 4, the write path: bytes in, acknowledged rows out. Reads are `query`'s; neither imports the other.

    listeners/ -> decompress -> parsers/ -> validate, schema, enrich, identity     one request: a Batch
    shards     rows to shards, entry ids and headers: Pieces, one for each set of owners
    batcher    Pieces of several requests for the same owners become one block
    encode     the block, once, in a worker thread
    block_put  the same bytes to all owners; outcomes counts, entry by entry, until each has W acks
    answers    what the client is told

A sequenced batch first needs the right to write (leases: seal N-W+1 owners) and its producer's state
(recovery: ask N-W+1 owners, put the thin tail again); dedupe does the arithmetic of ackTill.

Nothing here is remembered that could not be rebuilt from the owners, so an ingestor may die at any point:
the client sends the same bytes to another one, which gives them the same entry ids.

Why not remember what was seen, and answer duplicates from here? The memory would be lost with the node,
or have to be replicated: the owners have it already, and compare bytes. Why not refuse at once when W
cannot be met? Many agents drop what they hold after one or two refusals; holding a request over a failover
costs bounded memory (`pending_bytes`), dropping it costs rows. Why not wait for all owners, if all will
get the block anyway? The slowest of three disks would set the latency of every write.
"""
