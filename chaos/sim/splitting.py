"""Hot services are split while the run lasts; producers move on to epochs of the new generation, and linger.

Their old epochs go on beside the new ones, as those of a producer that did not hear of it (a zombie).
"""

from dataclasses import dataclass

from chaos.sim.consensus import SimLog
from chaos.sim.corpus import SERVICES
from chaos.sim.operating import Operator
from chaos.sim.plan import Fault
from chaos.sim.producers import Producers
from cluster.state_types import ClusterState

#: Part of what places rows (ring.generations), worked out here again for the checks.
EPOCHS = 1 << 20


def factor_of(state: ClusterState, tenant: str, service: str, epoch: int) -> int:
    """Over how many shards the service was spread when a producer's epoch was issued."""
    generations = state.splits.get((tenant, service), ())
    return generations[epoch // EPOCHS].factor if generations else 1


def splits_of(log: SimLog, service: str) -> list[tuple[int, int]]:
    """(nanoseconds, index of the agreed log) of each time that a service was split."""
    key = ("default", service)
    return [
        (int(log.times[index] * 1e9), index)
        for index in range(1, len(log.states))
        if log.states[index].splits.get(key) != log.states[index - 1].splits.get(key)
    ]


@dataclass(slots=True)
class Splitter:
    """One per run."""

    operator: Operator
    producers: Producers

    async def inflict(self, fault: Fault) -> None:
        """One service is spread wider."""
        service = SERVICES[fault.who % len(SERVICES)]
        body = {"service": service, "over": self.operator.dice.number(2, len(SERVICES))}
        if await self.operator.ask("split", lambda node: node.splits.split, body):
            for number, writer in enumerate(self.producers.writers[:2]):
                if writer.service == service and self.operator.dice.chance(0.7):
                    await self.producers.renew(number)
