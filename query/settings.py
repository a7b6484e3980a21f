"""Settings of the read path."""

from dataclasses import dataclass

from records.errors import InvalidSettings


@dataclass(frozen=True, slots=True)
class QuerySettings:
    """Documented numbers; see docs for each."""

    #: Queries that run at once, streams' pages included. From: the security bar, 14.
    running_max: int = 14
    #: Seconds a query waits for its turn; then 429. Well below the default timeout.
    queue_seconds: float = 10.0
    #: Seconds until a query without `timeout` answers with what it has, or 504.
    timeout_seconds: float = 30.0
    #: Bytes of tables that all queries together hold at the coordinator; beyond it 429. Half as much again
    #: may lie in streams whose clients read slowly; further streams wait, in the end for 429.
    memory_bytes: int = 256 << 20
    #: Rows of one page of a stream, all shards together; two pages of each group are held.
    page_rows: int = 32_768
    #: Groups (of stats, histograms, values) in one answer; more are cut, and the answer says so.
    groups_max: int = 10_000
    #: Lower bound of the hedge delay, seconds; it follows the 95th percentile of recent scans.
    hedge_min_seconds: float = 0.05
    #: Whether folds that read many rows are cut into slices of time, each read from another owner:
    #: on, off, or auto: where the owners live on different hosts. On one machine one owner's threads
    #: use all cores already.
    spread: str = "auto"
    #: Rows to read below which a fold is not cut: one owner is done with them in about 0.1 s of CPU.
    spread_rows: int = 500_000
    #: With more missing entries than this another owner becomes the base of the shard, if it has them.
    rebase_entries: int = 1_000
    #: Live tails at once; more are refused with 429. Each asks all shards once a `tail_seconds`.
    tail_max: int = 20
    #: Seconds between two looks of a live tail.
    tail_seconds: float = 1.0
    #: SQL queries that run at once, each in a process of its own; others wait as `queue_seconds` says.
    sql_running_max: int = 2
    #: Bytes that DuckDB may use for one SQL query (it has no disk). Beyond it 413 with advice.
    sql_memory_bytes: int = 256 << 20
    #: Bytes of rows kept for a SQL query that reads `logs` more than once; other queries read a stream.
    sql_input_bytes: int = 128 << 20
    #: Bytes, and rows, of one SQL result (JSON: 10,000 rows); beyond it 413 with advice.
    sql_result_bytes: int = 32 << 20
    sql_result_rows: int = 1_000_000
    #: Threads of a SQL query.
    sql_threads: int = 2
    #: Seconds until a difference is looked at again before it is repaired: writes in flight settle.
    repair_delay_seconds: float = 1.0
    #: Repairs waiting; more are dropped and counted (anti-entropy finds them as well).
    repair_queue_max: int = 64

    def __post_init__(self) -> None:
        for name in self.__dataclass_fields__:
            value = getattr(self, name)
            if isinstance(value, int | float) and value <= 0:
                raise InvalidSettings(f"query {name} must be positive, got {value}")
        if self.spread not in ("auto", "on", "off"):
            raise InvalidSettings(f"query spread must be auto, on or off, got {self.spread!r}")
        if self.queue_seconds > self.timeout_seconds:
            raise InvalidSettings("query queue_seconds must not exceed timeout_seconds")
