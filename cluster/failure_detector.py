"""Who seems to be alive: an opinion from what peers did, pure. A hint for routing, never a right.

Phi-accrual: from the gaps between a member's last signs of life, how unlikely is the present silence?
phi = -log10(P(gap > silence)) with a normal tail, as in Cassandra and Akka. A refused connection is a
sign of death that outweighs silence: the member is suspect until its next sign of life.

Source: Hayashibara et al., "The phi accrual failure detector" (SRDS 2004).
"""

import math
from collections import deque
from dataclasses import dataclass, field

#: Suspicion beyond which a member counts as dead. 8 = one false alarm in 10^8 gaps of the usual kind.
PHI_THRESHOLD = 8.0
#: Gaps remembered per member; at one sign of life a 100 ms this is the last 10 s.
WINDOW = 100
#: Seconds: floor of the deviation, so that very regular signs don't make a short pause suspicious.
MIN_DEVIATION_SECONDS = 0.1
#: Seconds a member may be silent when nothing is known of its gaps yet.
FIRST_GAP_SECONDS = 1.0
#: Seconds for which a refused connection alone speaks for a member's death; then it is worth a try.
REFUSED_SECONDS = 1.0


@dataclass(slots=True)
class _Heard:
    last: float
    gaps: deque[float] = field(default_factory=lambda: deque(maxlen=WINDOW))
    refused: bool = False
    refused_at: float = -math.inf


class FailureDetector:
    """Signs of life and of death in, opinions out. Times are monotonic seconds, given by the caller."""

    def __init__(self) -> None:
        self._heard: dict[str, _Heard] = {}

    def sign_of_life(self, member: str, now: float) -> None:
        """The member answered, or sent a heartbeat."""
        known = self._heard.get(member)
        if known is None:
            self._heard[member] = _Heard(now)
            return
        if not known.refused:
            known.gaps.append(now - known.last)
        known.last, known.refused, known.refused_at = now, False, -math.inf

    def answered(self, member: str) -> None:
        """A call succeeded: takes back a refusal, but is no heartbeat (calls have no rhythm)."""
        known = self._heard.get(member)
        if known is not None:
            known.refused, known.refused_at = False, -math.inf

    def refused(self, member: str, now: float) -> None:
        """A connection to the member was refused or broke."""
        known = self._heard.setdefault(member, _Heard(now))
        known.refused, known.refused_at = True, now

    def lately_refused(self, member: str, now: float) -> bool:
        """Whether a call to the member failed within the last REFUSED_SECONDS."""
        known = self._heard.get(member)
        return known is not None and now - known.refused_at < REFUSED_SECONDS

    def phi(self, member: str, now: float) -> float:
        """Suspicion: 0 fresh, unbounded above; infinite after a refused connection."""
        known = self._heard.get(member)
        if known is None:
            return 0.0
        if known.refused:
            return math.inf
        gaps = known.gaps or (FIRST_GAP_SECONDS,)
        mean = sum(gaps) / len(gaps)
        deviation = math.sqrt(sum((gap - mean) ** 2 for gap in gaps) / len(gaps))
        score = (now - known.last - mean) / max(deviation, MIN_DEVIATION_SECONDS)
        tail = 0.5 * math.erfc(score / math.sqrt(2))
        return math.inf if tail <= 0 else -math.log10(tail)

    def alive(self, member: str, now: float) -> bool:
        """Whether suspicion is below the threshold; an unknown member is taken for alive."""
        return self.phi(member, now) < PHI_THRESHOLD

    def silence(self, member: str, now: float) -> float | None:
        """Seconds since the last sign of life, None if there was none."""
        known = self._heard.get(member)
        return None if known is None else now - known.last
