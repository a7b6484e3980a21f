"""Runs a scan over a snapshot, on a worker thread: prune, then fold from rollups, fold rows, or find rows.

    visible (entry table) -> rollups | pieces (filters, sidecars) -> batches -> filter -> fold | top rows

Batches are read by all workers that are free. Before each it looks at its `Budget`: the deadline, whether
anybody still listens, what the answer may weigh. A cap never cuts silently: the reply says `truncated`. A
damaged block raises BlockCorrupt with its ordinal; the service sets the block aside and scans again without
it.
"""

from dataclasses import replace

import pyarrow as pa

from records.messages import ScanReply, ScanRequest
from storage.hot import HotSet
from storage.scan_filter import check_filter
from storage.scan_fold import fold_rows
from storage.scan_outline import outline
from storage.scan_rows import find_rows
from storage.scan_select import Snapshot, overlaps
from storage.scanner import Budget, Scanner


def run_scan(
    snapshot: Snapshot, request: ScanRequest, hot: HotSet, budget: Budget
) -> tuple[ScanReply, pa.Table]:
    """The reply and its table: ordered rows, or partial aggregates if the plan folds.

    Raises:
        InvalidRequest: a bad regular expression, or an unknown aggregate.
        DeadlineExceeded: the budget says so.
        BlockCorrupt: a block is damaged (details: `ordinal`).
    """
    check_filter(request.plan.filter)
    scanner = Scanner(snapshot, request, hot, budget)
    if request.outline:
        return scanner.reply(), outline(scanner, request.outline)
    table = fold_rows(scanner) if request.plan.fold else find_rows(scanner)
    reply = scanner.reply()
    if request.compared is not None and overlaps(snapshot, request):
        reply = replace(reply, overlaps=True)
    return reply, table
