"""Faults, and the proof that nothing was lost: the layer above everything, used by tests and users alike.

A *scenario* starts a real cluster (three processes on loopback), lets *clients* write and read whose
traffic can be regenerated from a seed, breaks the cluster by a *nemesis* drawn from the same seed,
heals it, reads everything once more through each node, and hands the recorded *history* to
*checkers*, pure functions that know nothing of how the cluster works.

corpus.py     a row's content as a function of (seed, client, number): nothing sent need be kept
history.py    what clients saw, one line before each request and one after; and what was broken when
workload.py   agents, numbered writers, producers of the client library, readers
bulk.py       the same by thousands of rows a batch · bulk_corpus.py  their rows, in columns
nemesis.py    which faults come when: pure, from the seed · breaking.py  carries the plan out
faults/       what each kind of fault does, by what it is proven · processes.py  kill, pause, and the proof
lab.py        namespaces for what needs them · disks.py  file systems that lose power, fill up, freeze
lab_net.py    wires between nodes that can be cut · lab_loss.py  packets lost by lot
ground.py     what a scenario stands on
net.py        links through a server that speaks Toxiproxy's API, where there is one
failover.py   how long shards have no leader · remote.py  a cluster that is not ours · ledger.py  sums
toxid.py      a server with Toxiproxy's API · conformance.py  whether a server has it
local_cluster.py  real nodes on loopback · deadman.py  ends them if the run itself is killed
checkers.py   the named invariants · bulk_checkers.py  over spans of numbers · runner.py  one run
checkers_time.py  how long calls took · report.py  the verdict in words, the ledger
scenarios/    what is broken in which

Why not simply count the rows? A lost row and a doubled one cancel out; and a count cannot say which
row, who had acknowledged it, and through which node it is missing.

Why not trust a run without a violation? It counts only if the faults are proven to have bitten (the
process ended by SIGKILL, its state was T), requests overlapped them, and enough was acknowledged. And
each checker is tested against a history that has its violation planted.

Source: Jepsen and Maelstrom (history, nemesis, checker), Cassandra's Harry (regenerable rows).
"""
