"""The write path's metrics, declared once; docs/metrics.md says what each is for."""

from runtime.metrics import Metrics

_ROW_BUCKETS = (1, 10, 100, 1_000, 5_000, 10_000, 20_000, 40_000, 65_536, 262_144)


class WriteMetrics:
    """Counters, gauges and histograms by step of a write."""

    def __init__(self, metrics: Metrics) -> None:
        make = metrics.histogram
        self.write = make("quorumlog_write_seconds", "From a parsed batch to its outcome")
        self.route = make("quorumlog_write_route_seconds", "Rows to shards and entry headers")
        self.encode = make("quorumlog_write_encode_seconds", "Encoding one block")
        self.put = make("quorumlog_write_put_seconds", "One put to one owner", ("target",))
        self.quorum = make("quorumlog_write_quorum_seconds", "From sending a block to its quorum")
        self.block_rows = make(
            "quorumlog_write_block_rows", "Rows in a block", buckets=_ROW_BUCKETS
        )
        self.takeover = make("quorumlog_takeover_seconds", "From an assignment to a sealed shard")
        count = metrics.counter
        self.rows = count("quorumlog_write_rows_total", "Rows acknowledged for the first time")
        self.bytes = count("quorumlog_write_block_bytes_total", "Bytes of encoded blocks")
        self.duplicates = count("quorumlog_write_duplicate_rows_total", "Rows that were held")
        self.conflicts = count(
            "quorumlog_id_conflicts_total", "Rows whose name is held with other bytes"
        )
        self.put_failures = count(
            "quorumlog_write_put_failures_total", "Puts that failed", ("target", "code")
        )
        self.quorum_failures = count(
            "quorumlog_write_quorum_failures_total", "Writes that were not confirmed in time"
        )
        self.errors = count(
            "quorumlog_write_errors_total", "Writes that ended in an error, by its code", ("code",)
        )
        self.late = count(
            "quorumlog_write_late_replicas_total",
            "Owners' results that came after the quorum",
            ("target", "outcome"),
        )
        self.rerouted = count(
            "quorumlog_write_rerouted_total", "Writes begun anew under a new ring"
        )
        self.split_lookups = count(
            "quorumlog_write_split_lookups_total",
            "Unnumbered requests looked up where they went before a split, by what was found",
            ("found",),
        )
        self.fenced = count("quorumlog_write_fenced_total", "Writes refused by an epoch", ("kind",))
        self.takeovers = count(
            "quorumlog_takeovers_total", "Shards taken over, by how it ended", ("outcome",)
        )
        self.recovered = count(
            "quorumlog_takeover_rows_total", "Rows of a tail that a takeover put again"
        )
        gauge = metrics.gauge
        self.queue_rows = gauge("quorumlog_write_queue_rows", "Rows that gather for a block")
        self.queue_bytes = gauge("quorumlog_write_queue_bytes", "Arrow bytes that gather")
        self.queue_age = gauge(
            "quorumlog_write_queue_age_seconds", "Age of the longest gathering request"
        )
        self.pending_bytes = gauge("quorumlog_write_pending_bytes", "Arrow bytes not yet settled")
        self.blocks_in_flight = gauge("quorumlog_write_blocks_in_flight", "Blocks under way")
        self.shards_led = gauge("quorumlog_shards_led", "Shards this node leads and has sealed")
        self.producers = gauge("quorumlog_producers_remembered", "Producers with ack arithmetic")
