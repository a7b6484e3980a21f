"""The points of a part: kept in a file, so that a run that was stopped goes on where it was."""

import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from bench import goals, results


class Points:
    """Measured points by key, in the order they were taken.

    A file with other settings is not continued: it is begun anew. `left_out` names what time did not allow.
    """

    def __init__(
        self, out: Path, part: str, settings: Mapping[str, Any], minutes: float, fresh: bool = False
    ) -> None:
        self.file = out / f"scale-{part}.json"
        self._until = time.monotonic() + minutes * 60
        held = None if fresh else results.read(self.file)
        asked = results.plain(dict(settings))
        if held is None or held["settings"] != asked:
            held = {"part": part, "settings": asked, "points": [], "left_out": []}
        self._held: dict[str, Any] = held
        self._held["left_out"] = []
        self.resumed = bool(held["points"])
        self.write()

    def has(self, **key: Any) -> bool:
        """Whether the point was taken before."""
        return any(self._same(point, key) for point in self._held["points"])

    @staticmethod
    def _same(point: Mapping[str, Any], key: Mapping[str, Any]) -> bool:
        return all(point.get(name) == value for name, value in key.items())

    def add(self, point: Mapping[str, Any]) -> None:
        """Takes a point and writes the file; `at`, commit and machine stand with each."""
        self._held["points"].append({**point, "of": results.head()})
        self.write()

    def write(self) -> None:
        """Writes the file as it is."""
        results.write(self.file, self._held)

    def late(self, what: str) -> bool:
        """Whether the time of the part is over; then `what` is named as left out."""
        if time.monotonic() < self._until:
            return False
        if what not in self._held["left_out"]:
            self._held["left_out"].append(what)
            self.write()
            goals.say(f"  time is over: {what} is left out")
        return True

    @property
    def all(self) -> list[dict[str, Any]]:
        """The points so far."""
        return list(self._held["points"])
