"""The metrics of merging, declared once."""

from collections.abc import Sequence

from records.block_codec import EncodedBlock
from runtime.metrics import Metrics
from storage.holdings import BlockPlace


class CompactionGauges:
    """How much was merged, from how many pieces into how many, and at what cost."""

    def __init__(self, metrics: Metrics) -> None:
        self._merges = metrics.counter(
            "quorumlog_compaction_merges_total", "Merges of small blocks or segments"
        )
        pieces = metrics.counter(
            "quorumlog_compaction_pieces_total",
            "Blocks and segments that merges read, and segments that they wrote",
            ("how",),
        )
        self._read, self._written = pieces.labels("read"), pieces.labels("written")
        self._rows = metrics.counter("quorumlog_compaction_rows_total", "Rows written by merges")
        self._bytes = metrics.counter("quorumlog_compaction_bytes_total", "Bytes written by merges")
        self._cpu = metrics.counter(
            "quorumlog_compaction_cpu_seconds_total", "CPU time of merges, on their worker"
        )
        self.repacked = metrics.counter(
            "quorumlog_entry_rows_dropped_total", "Rows of the entry table dropped after merges"
        )
        self.segments = metrics.gauge("quorumlog_compaction_segments", "Segments that are read")
        self.reclaimed = metrics.counter(
            "quorumlog_log_reclaimed_bytes_total", "Bytes of log files removed after merges"
        )

    def merged(
        self, gone: Sequence[BlockPlace], written: Sequence[EncodedBlock], cpu_seconds: float
    ) -> None:
        """Counts one merge."""
        self._merges.inc()
        self._read.inc(len(gone))
        self._written.inc(len(written))
        self._rows.inc(sum(block.header.rows for block in written))
        self._bytes.inc(sum(len(block.data) for block in written))
        self._cpu.inc(cpu_seconds)
