"""The metrics of retention on a storage node, declared once."""

from runtime.metrics import Metrics


class RetiringGauges:
    """What was removed from disk."""

    def __init__(self, metrics: Metrics) -> None:
        self.dropped = metrics.counter(
            "quorumlog_retention_dropped_rows_total",
            "Rows of entries below the watermark that were dropped",
        )
        self.erased = metrics.counter(
            "quorumlog_retention_erased_rows_total",
            "Rows whose contents were removed for a delete or a service's watermark",
        )
        self.deletes = metrics.gauge("quorumlog_retention_deletes", "Deletes in force")
