"""SimFile: a file's pages in the page cache, over those on the platter."""

from dataclasses import dataclass, field

from chaos.sim.clock import Dice

PAGE = 4096
SECTOR = 512


@dataclass(eq=False, slots=True)
class SimFile:
    """Content in the cache, content on the platter, and the pages that differ or may."""

    cache: bytearray = field(default_factory=bytearray)
    platter: bytearray = field(default_factory=bytearray)
    dirty: set[int] = field(default_factory=set)
    resized: bool = False
    #: Seconds of the wall clock at the last write.
    mtime: float = 0.0

    def write(self, at: int, data: bytes | memoryview) -> None:
        """Puts bytes into the cache."""
        end = at + len(data)
        if end > len(self.cache):
            self.cache.extend(bytes(end - len(self.cache)))
        self.cache[at:end] = data
        self.dirty.update(range(at // PAGE, -(-end // PAGE)))

    def resize(self, size: int) -> None:
        """Cuts or extends with zeros. What is cut off is zeros if the file grows again."""
        self.resized = True
        if size < len(self.cache):
            self.dirty.update(range(size // PAGE, -(-len(self.cache) // PAGE)))
            del self.cache[size:]
        else:
            self.cache.extend(bytes(size - len(self.cache)))

    def sync(self) -> None:
        """Brings dirty pages and the size to the platter."""
        self._fit(len(self.cache))
        for page in self.dirty:
            start = page * PAGE
            self.platter[start : start + PAGE] = self.cache[start : start + PAGE]
        self.forget_dirty()

    def forget_dirty(self) -> None:
        """What a failed fsync does: the pages are clean, and not written."""
        self.dirty.clear()
        self.resized = False

    def _fit(self, size: int) -> None:
        if size < len(self.platter):
            del self.platter[size:]
        else:
            self.platter.extend(bytes(size - len(self.platter)))

    def durable(self, start: int, end: int) -> bool:
        """Whether a power cut now would leave these bytes as they are in the cache."""
        same = self.platter[start:end] == self.cache[start:end]
        return same and len(self.platter) >= end

    def let_go(self, start: int, end: int) -> None:
        """Whole pages of start..end leave the cache: what is read of them next is what the platter has.

        Dirty ones are written back and stay, as by Linux. The file's last page counts as whole.
        """
        for page in range(-(-start // PAGE), -(-len(self.cache) // PAGE)):
            low, high = page * PAGE, min((page + 1) * PAGE, len(self.cache))
            if high > end or low > len(self.platter):
                return
            if page in self.dirty:
                self.platter[low:high] = self.cache[low:high]
            else:
                self.cache[low:high] = self.platter[low:high].ljust(high - low, b"\0")
            self.dirty.discard(page)

    def cut(self, dice: Dice) -> int:
        """The power goes. Returns how many pages lost or tore what was written."""
        lost = 0
        if self.resized and dice.chance(0.5):
            self._fit(len(self.cache))
        for page in sorted(self.dirty):
            start = page * PAGE
            new, old = self.cache[start : start + PAGE], self.platter[start : start + PAGE]
            if new == old or not new:
                continue  # nothing was written there; a size that was cut has its own lot
            keep = dice.number(0, 3)
            if keep == 0 or start > len(self.platter):
                lost += 1
                continue
            if keep == 1:
                lost += 1
                torn = dice.number(0, PAGE // SECTOR) * SECTOR
                new = new[:torn] + old[min(torn, len(new)) :]
            self.platter[start : start + len(new)] = new
        self.cache = bytearray(self.platter)
        self.forget_dirty()
        return lost
