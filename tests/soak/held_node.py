"""A node whose interpreter is held again and again: no thread of it runs meanwhile.

    python -m tests.soak.held_node --hold-ms 50 --every-ms 250 --note FILE -- python -m node node --config …

What follows `--` is the command line that it stands in for (`LocalCluster.within`). A hold is a C call that
keeps the interpreter's lock, as a large JSON document or a regular expression would; it needs no CPU. At
the end FILE says how many there were, and how long the longest took.
"""

import argparse
import ctypes
import functools
import json
import random
import sys
import threading
import time
from pathlib import Path

from cluster.consensus import ConsensusSettings
from node import cli
from node import node as composition

_keeping_the_lock = ctypes.PyDLL(None)


class Holder:
    """Holds the interpreter `hold` seconds, on average every `every` seconds, until it is told to stop."""

    def __init__(self, hold: float, every: float, seed: str) -> None:
        self.holds = 0
        self.longest = 0.0
        self._hold, self._every = hold, every
        self._dice = random.Random(seed)
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run, name="holder", daemon=True)

    def start(self) -> None:
        """Begins."""
        self._thread.start()

    def stop(self) -> None:
        """Returns when the last hold is over."""
        self._over.set()
        self._thread.join(5.0)

    def _run(self) -> None:
        while not self._over.wait(self._dice.uniform(0.0, 2 * self._every)):
            begun = time.monotonic()
            _keeping_the_lock.usleep(int(self._hold * 1e6))
            self.holds += 1
            self.longest = max(self.longest, time.monotonic() - begun)


def main() -> int:
    """The command; the node's exit code."""
    at = sys.argv.index("--")
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--hold-ms", type=float, required=True)
    parser.add_argument("--every-ms", type=float, required=True)
    parser.add_argument("--fallback-seconds", type=float, default=None)
    parser.add_argument("--note", type=Path, required=True)
    options = parser.parse_args(sys.argv[1:at])
    words = sys.argv[at + 1 :]
    if options.fallback_seconds is not None:
        changed = functools.partial(
            ConsensusSettings, leader_fallback_seconds=options.fallback_seconds
        )
        composition.ConsensusSettings = changed  # pyright: ignore[reportAttributeAccessIssue]
    holder = Holder(options.hold_ms / 1e3, options.every_ms / 1e3, str(options.note))
    holder.start()
    try:
        return cli.main(words[words.index("-m") + 2 :])
    finally:
        holder.stop()
        note = {"holds": holder.holds, "longest_seconds": round(holder.longest, 4)}
        options.note.write_text(json.dumps(note), encoding="utf-8")


if __name__ == "__main__":
    sys.exit(main())
