"""One fuzzing process: a target, fed until its time is over; what breaks it ends it."""

import time
import traceback
from multiprocessing.queues import Queue
from pathlib import Path
from random import Random

from ingestor.parsers import json_document, json_lines
from tests.fuzz.targets import targets

#: Rounds between two looks at the clock.
ROUNDS = 20


def fuzz(
    name: str, seed: int, seconds: float, current: str, answer: "Queue[tuple[int, str]]"
) -> None:
    """Runs one target; answers (inputs, text of the failure). The current input stands in a file."""
    json_lines.KERNEL_BYTES = json_document.KERNEL_BYTES = 0  # the kernel is asked for any body
    target, end, inputs = targets()[name], time.monotonic() + seconds, 0
    with Path(current).open("wb", buffering=0) as file:
        while time.monotonic() < end:
            for number in range(ROUNDS):
                data = target.make(Random(f"{seed}/{inputs}/{number}"))
                file.seek(0)
                file.truncate()
                file.write(data)
                try:
                    target.run(data)
                except Exception:  # noqa: BLE001 - whatever it is, it is a finding
                    answer.put((inputs, traceback.format_exc(limit=-4)))
                    return
            inputs += ROUNDS * target.inputs
    answer.put((inputs, ""))
