"""Line charts as SVG text: axes linear or logarithmic, a legend, nothing else. Pure.

Own lines instead of a drawing library: the charts are plain, the text is the same for the same points,
and nobody who installs the project pays for it.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape

WIDTH, HEIGHT = 760, 420
LEFT, RIGHT, TOP, BOTTOM = 80, 230, 44, 56
#: Told apart by people with any kind of colour vision (Okabe and Ito, 2008).
COLORS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#000000", "#b8a000")
Curve = Sequence[tuple[float, float]]
Marks = Sequence[tuple[float, str]]


@dataclass(frozen=True, slots=True)
class Axis:
    """One axis: what it shows, and whether by powers of ten."""

    label: str
    log: bool = False


def _number(value: float) -> str:
    for size, unit in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if abs(value) >= size:
            return f"{value / size:g}{unit}"
    return f"{value:g}"


def ticks(low: float, high: float, log: bool) -> list[float]:
    """Round values that cover low..high: 1, 2, 5 times powers of ten."""
    if log:
        first, last = math.floor(math.log10(low)), math.ceil(math.log10(high))
        steps = (1, 2, 5) if last - first <= 3 else (1,)
        return [step * 10.0**power for power in range(first, last + 1) for step in steps]
    raw = (high - low) / 5 or 1.0
    power = 10.0 ** math.floor(math.log10(raw))
    step = next(one * power for one in (1, 2, 5, 10) if one * power >= raw)
    count = math.ceil(high / step)
    return [round(step * index, 12) for index in range(math.floor(low / step), count + 1)]


class _Scale:
    """Values to positions."""

    def __init__(self, values: Sequence[float], axis: Axis, start: float, end: float) -> None:
        low, high = min(values), max(values)
        if not axis.log:
            low = min(0.0, low)
        self.ticks = ticks(low, high if high > low else low + 1, axis.log)
        if axis.log:
            near = [one for one in self.ticks if low / 1.01 <= one <= high * 1.01]
            self.ticks = near if len(near) > 1 else [low, high if high > low else high * 2]
        self._log, self._start, self._end = axis.log, start, end
        self._low = min(low, self.ticks[0])
        self._high = max(high, self.ticks[-1])
        if self._low == self._high:
            self._high = self._low + 1

    def at(self, value: float) -> float:
        """Where `value` is drawn."""
        low, high = self._low, self._high
        if self._log:
            low, high, value = math.log(low), math.log(high), math.log(value)
        return self._start + (value - low) / (high - low) * (self._end - self._start)


def chart(
    title: str, x_axis: Axis, y_axis: Axis, curves: Mapping[str, Curve], marks: Marks = ()
) -> str:
    """The drawing. Points that a logarithm cannot show (0 and below) are left out.

    Args:
        marks: x values with a name: dashed lines from bottom to top.

    Raises:
        ValueError: there is no point to draw.
    """
    shown = {
        name: [(x, y) for x, y in curve if (not x_axis.log or x > 0) and (not y_axis.log or y > 0)]
        for name, curve in curves.items()
    }
    shown = {name: curve for name, curve in shown.items() if curve}
    if not shown:
        raise ValueError(f"nothing to draw: {title}")
    points = [point for curve in shown.values() for point in curve]
    x = _Scale([one for one, _ in points], x_axis, LEFT, WIDTH - RIGHT)
    y = _Scale([one for _, one in points], y_axis, HEIGHT - BOTTOM, TOP)
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" role="img"'
        ' font-family="sans-serif" font-size="12">',
        f"<title>{escape(title)}</title>",
        f'<rect width="{WIDTH}" height="{HEIGHT}" fill="#ffffff"/>',
        f'<text x="{LEFT}" y="24" font-size="15">{escape(title)}</text>',
    ]
    for one in x.ticks:
        at = f"{x.at(one):.1f}"
        parts.append(f'<path d="M{at} {TOP}V{HEIGHT - BOTTOM}" stroke="#e4e4e4"/>')
        parts.append(
            f'<text x="{at}" y="{HEIGHT - BOTTOM + 18}" text-anchor="middle">{_number(one)}</text>'
        )
    for one in y.ticks:
        at = f"{y.at(one):.1f}"
        parts.append(f'<path d="M{LEFT} {at}H{WIDTH - RIGHT}" stroke="#e4e4e4"/>')
        parts.append(
            f'<text x="{LEFT - 8}" y="{at}" text-anchor="end" dy="4">{_number(one)}</text>'
        )
    middle = (TOP + HEIGHT - BOTTOM) / 2
    parts.append(
        f'<text x="{(LEFT + WIDTH - RIGHT) / 2}" y="{HEIGHT - 14}" text-anchor="middle">'
        f"{escape(x_axis.label)}</text>"
        f'<text transform="translate(20 {middle}) rotate(-90)" text-anchor="middle">'
        f"{escape(y_axis.label)}</text>"
    )
    for place, (value, name) in enumerate(marks):
        at, down = x.at(value), TOP + 12 + place % 4 * 14  # neighbours' names do not meet
        parts.append(
            f'<path d="M{at:.1f} {TOP}V{HEIGHT - BOTTOM}" stroke="#909090" stroke-dasharray="3 4"/>'
            f'<text x="{at + 4:.1f}" y="{down}" fill="#505050" font-size="11">{escape(name)}</text>'
        )
    for place, (name, curve) in enumerate(shown.items()):
        parts += _curve(name, curve, x, y, place)
    return "\n".join([*parts, "</svg>", ""])


def _curve(name: str, curve: Curve, x: _Scale, y: _Scale, place: int) -> list[str]:
    color = COLORS[place % len(COLORS)]
    places = [(x.at(a), y.at(b)) for a, b in curve]
    path = " ".join(f"{'L' if i else 'M'}{a:.1f} {b:.1f}" for i, (a, b) in enumerate(places))
    parts = [f'<path d="{path}" fill="none" stroke="{color}" stroke-width="2"/>']
    if len(places) <= 40:
        parts += [f'<circle cx="{a:.1f}" cy="{b:.1f}" r="3" fill="{color}"/>' for a, b in places]
    at = TOP + 12 + place * 18
    left = WIDTH - RIGHT + 14
    parts.append(f'<path d="M{left} {at - 4}h16" stroke="{color}" stroke-width="3"/>')
    parts.append(f'<text x="{left + 22}" y="{at}">{escape(name)}</text>')
    return parts
