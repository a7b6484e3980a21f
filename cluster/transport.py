"""Transport port: one request to one node, one answer. Each failure says whether it may have arrived.

The frame is `records.envelope`; operations are named in `cluster.server`. `peer_transport` is the real
one, the simulator has its own.
"""

from typing import Any, Protocol

from runtime.deadline import Deadline

#: A frame may not be larger: a block is at most 16 MiB of Parquet, a scan's answer is capped below.
MAX_FRAME_BYTES = 128 << 20


class Transport(Protocol):
    """Calls operations of other nodes."""

    async def call(
        self,
        node: str,
        operation: str,
        head: dict[str, Any],
        payload: bytes | memoryview,
        deadline: Deadline,
    ) -> tuple[dict[str, Any], memoryview]:
        """(head, payload) of the answer.

        Raises:
            ConnectionLost: the peer is gone; `details["definite"]` if it was never reached.
            DeadlineExceeded: no answer in time.
            QuorumlogError: what the peer answered.
        """
        ...
