"""Waiting for the view that a write needs: a first ring, or the ring that an owner tells of."""

from cluster.view import ClusterView, ViewSource
from records.errors import NotReady, QuorumUnavailable, StaleRingEpoch
from runtime.deadline import Deadline


async def ready_view(views: ViewSource, deadline: Deadline) -> ClusterView:
    """The current view, once there is a ring.

    Raises:
        NotReady: there is none by the deadline.
    """
    view = views.current()
    while not view.ready:
        if deadline.expired:
            raise NotReady("the cluster has no ring yet", retry_after_seconds=1)
        view = await views.changed(view.index, deadline.clamp(0.5))
    return view


async def newer_ring(
    views: ViewSource, view: ClusterView, stale: StaleRingEpoch, deadline: Deadline
) -> ClusterView:
    """The view with the ring epoch that `stale` tells of, waiting for it to arrive here.

    Raises:
        QuorumUnavailable: it has not arrived by the deadline.
    """
    wanted = int(stale.details.get("epoch", view.ring_epoch + 1))
    newest = views.current()
    while newest.ring_epoch < wanted:
        if deadline.expired:
            raise QuorumUnavailable(
                f"owners know ring epoch {wanted}, this node {newest.ring_epoch}",
                retry_after_seconds=1,
            )
        newest = await views.changed(newest.index, deadline.clamp(0.5))
    return newest
