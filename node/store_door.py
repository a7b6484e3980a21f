"""The door of a node's store: whether peers, and this node's own coordinators, may use it.

It is shut while the store is new (node.joining), and again when the cluster says that it knows another store
under this node's name: a disk that was replaced, and is plugged in once more, lacks what was promised since.
Such a store is not new, so it was open until then; reads wait for the registration in any case.
"""

from pathlib import Path

from cluster.peer_server import PeerServer
from cluster.repair_http import repair_operations
from cluster.replica_client import ReplicaSet
from cluster.server import Operation, StorageOperations
from cluster.sync_loop import SyncLoop
from node import joining
from node.moving import Moving
from node.retention_http import progress_operation
from runtime.logs import get_logger
from storage.service import StorageService

log = get_logger(__name__)


class StoreDoor:
    """One per store. `folder` is the store's."""

    def __init__(
        self,
        folder: Path,
        node_id: str,
        storage: StorageService,
        peers: PeerServer,
        replicas: ReplicaSet,
        moving: Moving,
        sync: SyncLoop,
    ) -> None:
        self._folder, self._node_id, self._storage = folder, node_id, storage
        self._peers, self._replicas, self._moving = peers, replicas, moving
        self._sync = sync
        self._joining = joining.is_joining(folder)
        self._open = False

    def enter(self) -> None:
        """The node starts: opens, unless the store is new."""
        if not self._joining:
            self._open_it()

    def admitted(self) -> None:
        """The registration with this store is committed."""
        if self._joining:
            joining.admitted(self._folder)
            self._joining = False
        if not self._open:
            self._open_it()

    def refused(self) -> None:
        """The cluster knows another store under this name: shuts, also for the next start."""
        if self._open:
            self._open = False
            self._peers.remove(self._operations())
            self._replicas.close_local(self._node_id)
            self._moving.close_local()
        if not self._joining:
            self._joining = True
            try:
                joining.mark(self._folder)
            except OSError as error:
                log.error("the store could not be marked as not admitted", error=error)

    def _open_it(self) -> None:
        self._open = True
        self._moving.open_local(self._storage)
        self._replicas.open_local(self._node_id, self._storage)
        self._peers.add(self._operations())

    def _operations(self) -> dict[str, Operation]:
        return {
            **StorageOperations(self._storage).table(),
            **progress_operation(self._storage),
            **self._moving.operations(),
            **repair_operations(self._sync),
        }
