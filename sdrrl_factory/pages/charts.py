"""Bars and histograms as numbers; charts.html draws them."""

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Bar:
    """A line of text over a bar.

    label, value, note: the text: what it is on the left, how much on the right, and a softer word behind that.
    fills: (share of the width in [0, 1], colour), from the left.
    kind: a further class of its look.
    """

    label: str
    value: str
    note: str
    fills: Sequence[tuple[float, str]]
    kind: str = ""


@dataclass(frozen=True)
class Rectangle:
    """One bin of one series: its corner, its size, and what is shown where the pointer rests on it."""

    x: float
    y: float
    width: float
    height: float
    colour: str
    series: str
    count: int


@dataclass(frozen=True)
class Histogram:
    """Counts per bin; several series lie over each other.

    Args:
        series: (name, colour, count per bin), as many bins in each.
        ticks: (position in bins from the left edge, text below it).
        label: what it shows, for those who cannot see it.
        mark: (position in bins, text) of an upright dashed line.
    """

    series: Sequence[tuple[str, str, Sequence[int]]]
    ticks: Sequence[tuple[float, str]]
    label: str
    mark: tuple[float, str] | None = None

    # In SVG units. Above the drawing is room for the mark's text, on its right for the scale, below for the ticks.
    width = 280
    height = 96
    top = 22

    @property
    def highest(self) -> int:
        """The largest count of any bin."""
        return max(1, *(count for _, _, counts in self.series for count in counts))

    @property
    def step(self) -> float:
        """The width of one bin."""
        return self.width / len(self.series[0][2])

    @property
    def rectangles(self) -> list[Rectangle]:
        """What is drawn, series by series."""
        shapes = []
        for name, colour, counts in self.series:
            for bin_, count in enumerate(counts):
                if count:
                    # A bin of one row in a set of thousands has to be seen too.
                    tall = max(1.5, self.height * count / self.highest)
                    x, y = bin_ * self.step + 0.75, self.top + self.height - tall
                    shapes.append(Rectangle(x, y, self.step - 1.5, tall, colour, name, count))
        return shapes
