"""How long to wait, and whether to try again: tenacity with the servers' own wishes.

The pause is the server's `Retry-After` if it gave one, else random and doubling ("full jitter"), so
that many producers do not come back in step after a failover.
"""

from __future__ import annotations

import tenacity
from tenacity import RetryCallState

from .errors import NotLeader, Overloaded, QuorumlogError, Unknown

#: The first random pause is up to this; a failover takes less than a second, so start well below.
FIRST_SECONDS = 0.05
#: Higher spares the servers during a long outage, lower finds their return sooner.
MAX_SECONDS = 2.0

_jitter = tenacity.wait_random_exponential(multiplier=FIRST_SECONDS, max=MAX_SECONDS)


def pause_after(state: RetryCallState) -> float:
    """Seconds until the next try after the failure in `state`; never less than the server asked."""
    error = state.outcome.exception() if state.outcome is not None else None
    asked = error.retry_after_seconds if isinstance(error, QuorumlogError) else None
    return _jitter(state) if asked is None else asked + _jitter(state) / 10


def is_transient(error: BaseException) -> bool:
    """True if the same request may succeed later, or elsewhere."""
    return isinstance(error, NotLeader | Overloaded | Unknown)
