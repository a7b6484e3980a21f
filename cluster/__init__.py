"""Layer 3: who is there, who decides, how to reach each other.

    replicated state   state*.py (pure) <- consensus.py (port) <- consensus_pysyncobj.py (adapter)
                       lease_table.py, lease_founding.py (pure) <- lease_keeper.py (loop on the Raft leader)
                       consensus_follower.py: nodes without a vote follow through a manager
    the picture        view.py: ring, quorum, leaders, members at one index · events.py: what changed
    liveness           failure_detector.py (pure) <- membership.py: registration, heartbeats
    the wire           transport.py (port) <- peer_transport.py · peer_server.py · server.py: the operations
                       peer_frames.py (pure) <- peer_link.py: one connection, both sides
                       replica_client.py: the typed calls to a storage node, near or far
    healing            handoff.py: what an owner missed, delivered when it is back
    one operation      quorum_tally.py (pure) <- quorum_call.py: ask N, be content with W
    convergence        anti_entropy.py (pure): two trees, what one lacks <- sync_shards.py: and copies it
                       sync_turns.py, sync_book.py, sync_pass.py (pure) <- sync_loop.py: when, from whom
    for clients        http_front.py: errors as answers · cluster_http.py: /cluster, /health, /metrics
                       repair_http.py: /cluster/repair

**Why is Raft not in the path of a row?** It would cost a round and a serial log per batch, and an election
would stop writes. It decides who leads a shard and which ring is in force, a few commands a second; the
storage nodes' fences make a stale view harmless. Without a Raft leader rows are written and read on.

**Why wrap PySyncObj so thickly?** It is what the project was asked to use, and it loses data: an unsynced
journal, tails cut without conflict, pickles from strangers. Each `consensus_*` file answers some of its
defects; nothing else in the tree knows that it exists, so another adapter may take its place.

**Why not HTTP between nodes?** It was so: each block was copied several times on its way in, and a put cost
headers, a task and a parser at both ends. `peer_link` keeps what was good: one request at a time on a pooled
connection, a length in front, and a cancelled caller closes its connection, which cancels the work at the
other side. docs/adr/0013.

Reading: raft (Ongaro, Ousterhout 2014), leases (Gray, Cheriton 1989), fencing (Burrows, "Chubby", 2006).
"""
