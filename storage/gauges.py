"""The metrics of a storage node, declared once."""

from collections import Counter

from records.block import BlockHeader
from records.messages import ScanReply
from runtime.metrics import Metrics
from storage.engine import Verdict
from storage.holdings import Holdings


class Gauges:
    """Counters and gauges by what they tell."""

    def __init__(self, metrics: Metrics) -> None:
        self.put_seconds = metrics.histogram(
            "quorumlog_storage_put_seconds", "From a put's arrival to its reply"
        )
        self._entries = metrics.counter(
            "quorumlog_storage_put_entries_total",
            "Entries put, by what became of them",
            ("status",),
        )
        self._rows = metrics.counter("quorumlog_storage_put_rows_total", "Rows stored")
        self._duplicates = metrics.counter(
            "quorumlog_storage_duplicate_rows_total", "Rows put that were held already"
        )
        self._expired = metrics.counter(
            "quorumlog_storage_expired_rows_total",
            "Rows put that lie below the watermark: acknowledged, not stored",
        )
        self._conflicts = metrics.counter(
            "quorumlog_storage_conflict_rows_total", "Sequences put again with other contents"
        )
        self.comparisons = metrics.counter(
            "quorumlog_storage_comparisons_total", "Pairs of entries compared row by row"
        )
        self.refused = metrics.counter(
            "quorumlog_storage_refused_total", "Puts refused, by reason", ("reason",)
        )
        self.scan_seconds = metrics.histogram("quorumlog_storage_scan_seconds", "Time of one scan")
        self.scan_timeouts = metrics.counter(
            "quorumlog_storage_scan_timeouts_total", "Scans that were not finished in time"
        )
        self._scanned = metrics.counter("quorumlog_storage_scanned_rows_total", "Rows looked at")
        blocks = metrics.counter(
            "quorumlog_storage_scan_blocks_total", "Blocks of scans, read or pruned", ("how",)
        )
        self._read, self._pruned = blocks.labels("read"), blocks.labels("pruned")
        self._truncated = metrics.counter("quorumlog_storage_truncated_total", "Scans cut by a cap")
        self.warmed = metrics.counter(
            "quorumlog_storage_warmed_blocks_total", "Blocks whose filters were read ahead"
        )
        self.quarantined = metrics.counter(
            "quorumlog_storage_quarantine_total", "Damaged ranges and blocks set aside", ("kind",)
        )
        self.catalog_failures = metrics.counter(
            "quorumlog_storage_catalog_failures_total", "Catalog writes that failed"
        )
        self.free_bytes = metrics.gauge("quorumlog_storage_free_bytes", "Free bytes on the disk")
        self.read_only = metrics.gauge("quorumlog_storage_read_only", "1 while puts are refused")
        self.rows = metrics.gauge("quorumlog_storage_rows", "Rows stored")
        self.stored_bytes = metrics.gauge(
            "quorumlog_storage_stored_bytes", "Bytes of stored blocks"
        )

    def show(self, free_bytes: int, read_only: bool, holdings: Holdings) -> None:
        """What is free, and what is held."""
        self.free_bytes.set(free_bytes)
        self.read_only.set(int(read_only))
        self.rows.set(holdings.rows)
        self.stored_bytes.set(holdings.bytes)

    def count_put(self, header: BlockHeader, verdict: Verdict) -> None:
        """Counts what became of a block's entries."""
        for status, count in Counter(verdict.statuses).items():
            self._entries.labels(str(status)).inc(count)
        self._rows.inc(sum(header.entries[index].row_count for index in verdict.accepted))
        self._duplicates.inc(sum(verdict.duplicate_rows) - verdict.expired_rows)
        self._expired.inc(verdict.expired_rows)
        for spans in verdict.conflict_seqs:
            self._conflicts.inc(sum(b - a + 1 for a, b in spans))

    def count_scan(self, reply: ScanReply, seconds: float) -> None:
        """Counts a finished scan."""
        self.scan_seconds.observe(seconds)
        self._scanned.inc(reply.rows_scanned)
        self._read.inc(reply.blocks_scanned)
        self._pruned.inc(reply.blocks_pruned)
        if reply.truncated:
            self._truncated.inc()
