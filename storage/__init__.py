"""storage/: one node's disk. It knows no peers and no ring; a shard is only a number here.

    put  -> engine decides (pure) -> wal: append, one fdatasync for all who wait -> engine applies -> reply
    scan -> snapshot of the entry table -> rollups, or else: blocks that can match -> row groups whose filters
          say "maybe" -> batches of hot columns -> filter -> rows or folds (of whole blocks: remembered)

    small blocks -> compaction (background) -> segments, one Parquet file of an hour -> log files removed

    scrub (background) -> every file read back and verified; what is damaged is set aside, and so missing here
    hints: entries of our own that another owner missed, named in files of their own; cluster.handoff delivers

The log is the truth: files of framed records, blocks verbatim; until its rows are in a segment that is
synced, then the segment is. All else is an index over the two: the entry table (numpy, about 150 bytes an
entry), the Merkle trees (a node an hour), and the catalog, a SQLite checkpoint of both, so that a start reads
only the log's tail. Lose the catalog, and log and segments give it back.

What other owners ask to find a difference: tree_reads.py answers from the trees, less what newest.py finds
to have come too lately to be compared. Pages are compared as of their snapshot: digest_as_of.py.

Why not simply ...
* a row per entry in SQLite, asked on each put? A look-up costs more than the append, and digests, scans
  and overlap checks want columns of all entries anyhow.
* mmap of the log? A bad sector under a mapping kills the process (SIGBUS); `pread` returns EIO, which is
  a block to quarantine. And mapped pages would count as our memory.
* append to the newest file after a restart? A fresh file has a header that says where the old one ended,
  so what was torn is told from what was durable, for ever.
* retry a failed fsync? The kernel has dropped the dirty pages; the second call succeeds and lies.
"""
