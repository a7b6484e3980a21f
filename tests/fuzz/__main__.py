"""`make fuzz MINUTES=5`: each target in a process of its own, in turns, until the time is over.

    python -m tests.fuzz --minutes 5 [--target lines] [--seed 7]

An input that breaks a target is written to `tests/fuzz/kept/TARGET-…`, where the tests run it for ever after,
and the command ends with 1. A process that dies (a crash in native code) leaves its input there too.
"""

import argparse
import hashlib
import multiprocessing
import sys
import tempfile
import time
from pathlib import Path

from tests.fuzz.targets import targets
from tests.fuzz.worker import fuzz

KEPT = Path(__file__).parent / "kept"


def kept(name: str, data: bytes) -> Path:
    """Writes an input to where the tests find it."""
    KEPT.mkdir(exist_ok=True)
    path = KEPT / f"{name}-{hashlib.sha256(data).hexdigest()[:12]}"
    path.write_bytes(data)
    return path


def turn(name: str, seed: int, seconds: float) -> tuple[int, str]:
    """One process's share of the time: (inputs, what failed)."""
    context = multiprocessing.get_context("spawn")
    with tempfile.NamedTemporaryFile() as current:
        answer: multiprocessing.Queue[tuple[int, str]] = context.Queue()
        process = context.Process(target=fuzz, args=(name, seed, seconds, current.name, answer))
        process.start()
        process.join(seconds + 120)
        hung = process.is_alive()
        if hung:
            process.kill()
            process.join()
        inputs, failure = (0, "") if answer.empty() else answer.get()
        if hung or process.exitcode:
            failure = f"{'hangs' if hung else f'died with {process.exitcode}'}\n"
        if failure:
            failure += f"input: {kept(name, Path(current.name).read_bytes())}"
        return inputs, failure


def main() -> int:
    """The command."""
    parser = argparse.ArgumentParser(prog="tests.fuzz")
    parser.add_argument("--minutes", type=float, default=5.0)
    parser.add_argument("--target", choices=sorted(targets()))
    parser.add_argument("--seed", type=int, default=int(time.time()))
    options = parser.parse_args()
    names = [options.target] if options.target else sorted(targets())
    share, failed = options.minutes * 60 / len(names), 0
    print(f"seed {options.seed}, {share:.0f} s a target", flush=True)
    for name in names:
        inputs, failure = turn(name, options.seed, share)
        print(f"{name:10} {inputs:>12,} inputs  {failure or 'ok'}", flush=True)
        failed += bool(failure)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
