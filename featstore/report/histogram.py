"""Histograms as SVG: bins, bars, ticks, and the same in words."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

__all__ = ["Bar", "Histogram", "make_histogram"]

WIDTH, HEIGHT = 320, 150
LEFT, RIGHT, TOP, BOTTOM = 48, 16, 8, 22
FEWEST, MOST = 12, 40
"""Bins; between them as many as twice the cube root of how many values there are (Rice's rule)."""
Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Bar:
    """One bin: its place in the drawing, and what it says."""

    x: float
    y: float
    width: float
    height: float
    said: str


@dataclass(frozen=True)
class Histogram:
    """A drawing of ``WIDTH`` × ``HEIGHT``: bars that hold values, ticks (place, text) of both axes."""

    title: str
    bars: tuple[Bar, ...]
    across: tuple[tuple[float, str], ...]
    up: tuple[tuple[float, str], ...]
    words: str
    width: int = WIDTH
    height: int = HEIGHT
    left: int = LEFT
    right: int = WIDTH - RIGHT
    floor: int = HEIGHT - BOTTOM


def make_histogram(
    title: str, values: Floats, counted: str, span: tuple[float, float] | None = None, log: bool = False
) -> Histogram:
    """Return the histogram of values (n,), n ≥ 1, over ``span`` or all there is; ``counted`` are what each value is one of.

    ``log`` makes the height of a bar log(1 + count): what is rare is seen beside what is common.
    """
    low, high = span or (float(values.min()), float(values.max()))
    if high <= low:
        low, high = low - 0.5, high + 0.5
    counts, edges = np.histogram(values, bins=bins_for(len(values)), range=(low, high))
    scale = Scale(low, high, int(counts.max()), log)
    bars = tuple(
        Bar(
            *(round(scale.x(start), 2), round(scale.y(count), 2)),
            *(round(scale.x(end) - scale.x(start), 2), round(HEIGHT - BOTTOM - scale.y(count), 2)),
            f"{number(start)} to {number(end)}: {count:,} {counted}",
        )
        for count, start, end in zip(counts.tolist(), edges[:-1].tolist(), edges[1:].tolist(), strict=True)
        if count
    )
    across = tuple((round(scale.x(tick), 2), number(tick)) for tick in ticks(low, high, 6))
    up = tuple((round(scale.y(tick), 2), f"{tick:,.0f}") for tick in scale.counts())
    smallest, middle, largest = (number(float(f(values))) for f in (np.min, np.median, np.max))
    words = f"Histogram of {len(values):,} {counted}: from {smallest} to {largest}, median {middle}."
    return Histogram(title, bars, across, up, words)


@dataclass(frozen=True)
class Scale:
    """Where values and counts lie in the drawing."""

    low: float
    high: float
    most: int
    log: bool

    def x(self, value: float) -> float:
        """Return how far right a value lies."""
        return LEFT + (WIDTH - LEFT - RIGHT) * (value - self.low) / (self.high - self.low)

    def y(self, count: float) -> float:
        """Return how far down the top of a bar lies."""
        share = math.log1p(count) / math.log1p(self.most) if self.log else count / self.most
        return TOP + (HEIGHT - TOP - BOTTOM) * (1 - share)

    def counts(self) -> Sequence[float]:
        """Return the counts that the axis names."""
        if not self.log:
            return [tick for tick in ticks(0, self.most, 3, whole=True) if tick > 0]
        powers = [10.0**power for power in range(int(math.log10(self.most)) + 1)]
        return powers[:: -(-len(powers) // 4)]


def bins_for(count: int) -> int:
    """Return how many bins show ``count`` values."""
    return min(MOST, max(FEWEST, math.ceil(2 * math.cbrt(count))))


def ticks(low: float, high: float, most: int, whole: bool = False) -> list[float]:
    """Return round numbers between two ends."""
    from matplotlib.ticker import MaxNLocator

    found = MaxNLocator(most, integer=whole, steps=[1, 2, 5, 10]).tick_values(low, high)
    slack = (high - low) * 1e-9
    return [float(tick) for tick in found if low - slack <= tick <= high + slack]


def number(value: float) -> str:
    """Return a number of four digits at most, rounding made good."""
    return f"{value:.4g}".replace("e+0", "e").replace("-", "−") if abs(value) > 1e-12 else "0"
