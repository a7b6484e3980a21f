"""Deterministic simulation: whole clusters in one process, in virtual time, broken as a seed says.

    clock      an event loop that jumps instead of waiting · dice: all randomness
    disk       files with a page cache (pages); power cuts, torn pages, failed fsyncs, lost names, no space
    system     `os` over these disks
    network    messages delayed, lost, doubled, overtaken, corrupted, cut off in one direction or both
    consensus  an agreed log with delays, lost answers, stale readers; the product's `apply`
    twins      what else a node has of its machine, replaced where the product uses it
    node       the product's store, write path and read path, put together on these
    healing    the product's hints, anti-entropy, merging and scrub; each seed has some of them
    rot        damage at rest: flipped bits, zeroed pages, lost files
    plan       which troubles a seed has (swarm), as data · clients  what is asked of the cluster
    election   who leads the agreed log · steering  the product's leases, executor of changes, retention
    operating  the operator · moving  changes of the ring · hiding  retention, deletes, what is hidden
    splitting  hot services · wiping  lost disks · rifts  rare orders of events, made likely
    producers  numbered writers and their epochs · repeats  what may become of a request sent twice
    owning     who owns what, what may be let go of: the checks' own reckoning
    taps       what stores did, seen from beside · looks  at stores, while they run and after the heal
    checks, judging, chaos.checkers  the invariants
    cluster    one run from founding to verdict · run  seeds, replay, shrinking · jobs  on all cores
    command  `chaos sim`

One seed is one run: the same trace each time, on each machine, under each hash seed. So a failing seed is
a bug report that can be run again, and its plan can be made smaller while the same invariant breaks.

What runs is the real code: log, recovery, engine, catalog, batching, quorum calls, leases, takeover, ack
arithmetic, scans, comparing, read repair, all that heals, changes of the ring, retention and deletes. Not
simulated: Raft itself (PySyncObj has threads and a clock of its own), HTTP, parsers, and disks that lie about
what they have synced before.

Why not simulate the cores alone, which is faster? The bugs are mostly between them: an await too many, a
put that is not waited for, a state read before a restart and used after it. So a seed costs about
half a second of CPU, and there are fewer of them.

Source: FoundationDB (simulated network, disk and time; swarm of faults), TigerBeetle's VOPR (liveness mode).
"""
