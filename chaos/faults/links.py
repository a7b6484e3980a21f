"""Faults of the clients' links: the nodes know nothing of them.

The proof is a probe: the node answers directly as always, and through the link as the fault says.
"""

import contextlib
import http.client
import json
import time
from abc import abstractmethod

from chaos.faults.base import Kind, Proof, Site, Targets
from chaos.net import LinkFailed
from chaos.processes import FaultDidNotBite

#: Seconds that a probe waits for an answer.
PROBE_SECONDS = 2.0
#: What `slow` does to a link: milliseconds of latency, and how much they vary.
SLOW_MS, SLOW_JITTER_MS = 300, 200
#: `cut-answers` ends each connection after so many bytes: in the head, between, in the body.
CUT_BYTES = (1, 250)
#: What `sliced` does: bytes of a piece, how much they vary, microseconds between pieces.
SLICE_BYTES, SLICE_VARIATION, SLICE_MICROS = 64, 24, 500


class LinkFault(Kind):
    """A fault on the links to its targets."""

    @abstractmethod
    def put(self, site: Site, target: str) -> None:
        """Puts it on one link."""

    def bite(self, site: Site, targets: Targets) -> Proof:
        """Puts it on all, then probes each."""
        site.needed_links()
        for target in targets:
            self.put(site, target)
        return {"seen": {target: self.probe(site, target) for target in targets}}

    def heal(self, site: Site, targets: Targets) -> Proof:
        """As if nothing had been."""
        for target in targets:
            site.needed_links().heal(target)
        return {}

    def undo(self, site: Site, targets: Targets) -> None:
        """What was done of it on links must not stay."""
        if site.links is not None:
            for target in targets:
                with contextlib.suppress(LinkFailed):  # the next fault will say so
                    site.links.heal(target)

    def shows(self, seen: str, seconds: float) -> bool:
        """Whether a probe's answer shows the fault."""
        return seen != "answered"

    def probe(self, site: Site, target: str) -> str:
        """What a request sees through the link, while the node answers.

        Raises:
            FaultDidNotBite: as if nothing were broken; or the node does not answer at all.
        """
        node = site.cluster.node(target)
        directly, _ = ask(f"{node.host}:{node.http_port}")
        if directly != "answered":
            raise FaultDidNotBite(f"{target} itself {directly}: nothing is shown by its link")
        seen, seconds = ask(site.addresses[target])
        if not self.shows(seen, seconds):
            raise FaultDidNotBite(f"the link to {target} answered in {seconds:.3f} s")
        return f"directly answered, through the link {seen} after {seconds:.3f} s"


class LoseReplies(LinkFault):
    """Requests arrive, answers are lost."""

    name = "lose-replies"

    def put(self, site: Site, target: str) -> None:
        """Drops what the node answers."""
        site.needed_links().cut(target, "downstream")


class Slow(LinkFault):
    """Answers come late, unevenly."""

    name = "slow"

    def put(self, site: Site, target: str) -> None:
        """Latency on answers."""
        site.needed_links().slow(target, SLOW_MS, SLOW_JITTER_MS)

    def shows(self, seen: str, seconds: float) -> bool:
        """Late is enough."""
        return seen != "answered" or seconds >= (SLOW_MS - SLOW_JITTER_MS) / 1000


class Sliced(LinkFault):
    """Answers come in pieces of a few bytes, with pauses between."""

    name = "sliced"

    def put(self, site: Site, target: str) -> None:
        """A slicer on answers."""
        site.needed_links().slice(target, SLICE_BYTES, SLICE_VARIATION, SLICE_MICROS)

    def shows(self, seen: str, seconds: float) -> bool:
        """A few hundred bytes are several pieces, and so many pauses."""
        return seen == "answered" and seconds >= 2 * SLICE_MICROS / 1e6


class CutAnswers(LinkFault):
    """Connections end in the middle of their first answer, at a byte by lot."""

    name = "cut-answers"

    def put(self, site: Site, target: str) -> None:
        """A limit on answers."""
        site.needed_links().cut_after(target, site.pick(*CUT_BYTES))


class CutSweep(Kind):
    """A link beside the clients' own ends answers after every number of bytes, one after the other.

    The target is the kind of request that is swept; through which node, is by lot.
    """

    name = "cut-sweep"

    def bite(self, site: Site, targets: Targets) -> Proof:
        """The proof: how many answers broke, and how long a whole one is.

        Raises:
            FaultDidNotBite: none broke, or none ever was whole, so that no break shows anything.
        """
        (path,) = targets
        if site.sweep is None:
            raise LinkFailed("this run has no sweep")
        node = site.cluster.ids[site.pick(0, len(site.cluster.ids) - 1)]
        swept = site.sweep(node, path)
        if not (swept["cut"] and swept["bytes"]):
            raise FaultDidNotBite(f"no answer was cut, or none was ever whole: {swept}")
        return {"node": node, "swept": {path: swept}, "seen": "connections ended within answers"}

    def heal(self, site: Site, targets: Targets) -> Proof:
        """Those links are gone."""
        return {}


class Swizzle(LinkFault):
    """One link after the other is closed; they are opened again in another order."""

    name = "swizzle"

    def put(self, site: Site, target: str) -> None:
        """Closed: connections end, new ones are refused."""
        site.needed_links().cut(target)
        time.sleep(site.lot.uniform(0.05, 0.5))

    def heal(self, site: Site, targets: Targets) -> Proof:
        """In another order, with a pause between."""
        for target in sorted(targets, key=lambda _: site.lot.uniform(0, 1)):
            site.needed_links().heal(target)
            time.sleep(site.lot.uniform(0.05, 0.5))
        return {}


def ask(address: str, seconds: float | None = None) -> tuple[str, float]:
    """What came of a GET /health, and after how many seconds."""
    started = time.monotonic()
    connection = http.client.HTTPConnection(address, timeout=seconds or PROBE_SECONDS)
    try:
        connection.request("GET", "/health", headers={"Connection": "close"})
        json.loads(connection.getresponse().read())  # half an answer is none
        seen = "answered"
    except TimeoutError:
        seen = "gave no answer"
    except (OSError, ValueError, http.client.HTTPException) as error:
        seen = f"broke off ({type(error).__name__})"
    finally:
        connection.close()
    return seen, time.monotonic() - started


KINDS: tuple[Kind, ...] = (LoseReplies(), Slow(), Sliced(), CutAnswers(), CutSweep(), Swizzle())
