"""Layer 4: the read path. Any node with the role `query` answers for the whole cluster.

    http -> plan (language, times, cursor, stats, fields) -> coordinator -> scatter -> settle -> merge | fold
         <- rows_out, encode                                    `-> read_repair, behind the answer

* `plan`, `language`, `times`, `cursor`, `stats`, `fields`: text in, plans out. Pure.
* `spread`: cuts dear folds into slices of time that several owners read at once; `reading` joins them.
* `scatter`: each shard's rows from one owner, digests from R-1 others; one request a node; failover, hedging.
* `settle` with `compare`: where digests differ, entry lists, the union, supplements. Tables: `merge`,
  `fold`, `quantiles`.
* `stream`: pages of any length over one snapshot. `encode`, `rows_out`: JSON, NDJSON, CSV, Arrow, by column;
  `groups_out`: the JSON of groups.
* `sql`: POST /sql. `sql_guard` checks the tree of DuckDB's parser, `sql_where` and `sql_plan` read filter,
  times, columns and limit off it, `sql_partial` aggregates; `sql_feed` gives rows one schema; `sql_process`
  starts and talks to `sql_child`, where DuckDB runs; `sql_out`: formats.
* `facets`, `context`, `tail`: values of several fields, rows around one row, rows as they arrive.
* `read_repair`: puts what an owner lacks, once the difference is stable. `limits`: how much at once.

Invariants. A complete answer holds each row that was acknowledged before the read began, once (R + W > N and
`settle`); what falls short of it is named in `missing`. Pages of one cursor or stream share a snapshot: a row
that was there at its start comes exactly once. A body that breaks is never well-formed to its end.

Why not simply …?

* … take the rows of all owners and make them distinct? N times the work and the wire; a digest is 24 bytes.
* … trust the data owner's list when owners differ? An entry may reach it between scan and list: it would be
  in the list and not in the rows, an acknowledged row missing from a "complete" answer. `settle` looks again.
* … deal the shards of a query over all their owners? Blocks hold the rows of a whole owner set, so every node
  would open every block to use a part of it: three nodes in one process took 2.5 times as long as one for the
  same 1 M rows. Slices of time (`spread`) have blocks of their own.
* … let each slice be a read of its own? A row without a time has that of its receipt, so two copies of it may
  lie in two slices, and an owner that lacks one shows the other. Owners are compared over the whole range, by
  one set of entry lists, and where copies overlap by sequence the read is made again in one piece.
* … fix the snapshot by our clock? Clocks differ. It is the largest `received_at` that R owners of each shard
  know of. Owners are compared as of it (docs/adr/0028).
* … give a stream that fails an orderly end with a note in it? Whoever reads with a plain HTTP client would
  take it for the whole. The missing end is the one signal that every client understands.
"""
