"""The door of a node's store: whether peers, and this node's own coordinators, may use it.

It is shut from each start until the registration of this start is committed, so until the replicated state
has said that it knows this store under this node's name. A disk that was replaced, and is plugged in once
more, lacks what was promised since; like an empty one it must answer neither puts nor what is sealed or
told of producers, and it cannot know by itself which of the two it is. So a node that starts while the Raft
group has no majority waits; those that serve already go on. Whoever asks meanwhile is told NOT_READY.
"""

from typing import Any

from cluster.peer_server import PeerServer
from cluster.repair_http import repair_operations
from cluster.replica_client import ReplicaSet
from cluster.server import Answer, Operation, StorageOperations
from cluster.sync_loop import SyncLoop
from node.moving import Moving
from node.retention_http import progress_operation
from records.errors import NotReady
from runtime.deadline import Deadline
from storage.service import StorageService


class StoreDoor:
    """One per store."""

    def __init__(
        self,
        node_id: str,
        storage: StorageService,
        peers: PeerServer,
        replicas: ReplicaSet,
        moving: Moving,
        sync: SyncLoop,
    ) -> None:
        self._node_id, self._storage = node_id, storage
        self._peers, self._replicas, self._moving = peers, replicas, moving
        self._sync = sync
        self._open = False

    @property
    def is_open(self) -> bool:
        """Whether the store may be asked."""
        return self._open

    def enter(self) -> None:
        """The node starts: peers may ask, and are told to wait."""
        self._peers.add({name: self._guarded(one) for name, one in self._operations().items()})

    def admitted(self) -> None:
        """The registration with this store is committed."""
        self._open = True
        self._moving.open_local(self._storage)
        self._replicas.open_local(self._node_id, self._storage)

    def refused(self) -> None:
        """The cluster knows another store under this name."""
        self._open = False
        self._replicas.close_local(self._node_id)
        self._moving.close_local()

    def _guarded(self, operation: Operation) -> Operation:
        async def perform(head: dict[str, Any], payload: memoryview, deadline: Deadline) -> Answer:
            if not self._open:
                raise NotReady("the store here is not admitted yet", retry_after_seconds=0.5)
            return await operation(head, payload, deadline)

        return perform

    def _operations(self) -> dict[str, Operation]:
        return {
            **StorageOperations(self._storage).table(),
            **progress_operation(self._storage),
            **self._moving.operations(),
            **repair_operations(self._sync),
        }
