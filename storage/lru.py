"""A cache bounded in bytes: the least recently used values go first. Thread-safe."""

import threading
from collections import OrderedDict
from collections.abc import Iterable
from typing import Any

from runtime.metrics import Counter


class Lru:
    """Values by key with a size each; the least recently used go when the sum exceeds `limit`."""

    def __init__(self, limit: int) -> None:
        self.limit, self.size = limit, 0
        self._items: OrderedDict[Any, tuple[Any, int]] = OrderedDict()
        self._lock = threading.Lock()

    def get(self, key: Any) -> Any:
        """The value, None if there is none."""
        with self._lock:
            item = self._items.get(key)
            if item is None:
                return None
            self._items.move_to_end(key)
            return item[0]

    def put(self, key: Any, value: Any, size: int) -> None:
        """Keeps a value, unless it alone exceeds the limit."""
        if size > self.limit:
            return
        with self._lock:
            if key in self._items:
                self.size -= self._items.pop(key)[1]
            self._items[key] = (value, size)
            self.size += size
            while self.size > self.limit:
                _, (_, freed) = self._items.popitem(last=False)
                self.size -= freed

    def drop(self, wanted: Iterable[Any]) -> None:
        """Forgets these keys."""
        with self._lock:
            for key in wanted:
                if key in self._items:
                    self.size -= self._items.pop(key)[1]

    def known(self) -> list[Any]:
        """All keys."""
        with self._lock:
            return list(self._items)


class CountedLru(Lru):
    """A cache whose owner tells how often it helped. `asked`: a counter by found=yes|no."""

    def __init__(self, limit: int, asked: Counter) -> None:
        super().__init__(limit)
        self._hits, self._misses = asked.labels("yes"), asked.labels("no")

    def count(self, found: int, absent: int) -> None:
        """Counts questions that were answered from here, and others."""
        self._hits.inc(found)
        self._misses.inc(absent)
