"""A panel as a figure: PNG, SVG or PDF, tiles at the shapes of their photographs, numbers below the columns that have them."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from textwrap import wrap
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from .errors import InputError
from .panel import SEEN, Column, Panel, Row
from .sealing import storing, write_bytes

__all__ = ["FORMATS", "Style", "check_format", "colour_map", "save_panel"]

FORMATS = (".png", ".svg", ".pdf")
TILE, GAP, APART, EDGE = 1.5, 0.06, 0.16, 0.12
"""Inches: a tile's width, between tiles, more between groups, around all."""
TALLEST, LINE, LABEL, BARS, NARROWEST = 1.4, 0.2, 0.23, 0.5, 4.7
"""Tallest tile (tile widths); inches of a line of text, of an image's label, of the scales below, of the narrowest figure."""
TEXT, SMALL, LETTER, BOLD = 10, 8, 0.062, 0.088
"""Points of titles and of the rest; inches that a letter takes: of the rest, and bold in a title."""
POINTS = 72.0 * 1.2
"""Points an inch, over the share of its size that a capital letter is high and stands below the top of its line."""
NORMS, COSINES = "cividis", "viridis"
CLUSTERS = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00", "#F0E442", "#000000")
"""Okabe and Ito's colours, which all kinds of colour vision tell apart; more clusters than these take matplotlib's tab20."""
PIXELS = 640
"""Longest side at which a photograph goes into a figure."""


@dataclass(frozen=True)
class Style:
    """How a panel is drawn."""

    title: str
    smooth: bool = False
    dpi: int = 100


def check_format(path: Path, formats: Sequence[str] = FORMATS) -> None:
    """Raise InputError where a picture cannot be written at a path."""
    if path.suffix.lower() not in formats:
        raise InputError(f"--output {path}: give a name that ends in {', '.join(formats[:-1])} or {formats[-1]}")
    if not path.absolute().parent.is_dir():
        raise InputError(f"--output {path}: there is no folder {path.absolute().parent}")


def save_panel(panel: Panel, style: Style, path: Path) -> tuple[float, float]:
    """Draw a panel in the format of the path's ending and return (width, height) [inches]; the same bytes every time.

    Raises InputError for another ending, StoreError where the disk refuses.
    """
    from matplotlib import rc_context
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    check_format(path)
    form = path.suffix.lower()[1:]
    undated: dict[str, dict[str, None]] = {"svg": {"Date": None}, "pdf": {"CreationDate": None}}
    with rc_context({"svg.hashsalt": "featstore", "svg.fonttype": "none", "pdf.fonttype": 42}):
        sheet = Sheet(panel, style, Figure)
        FigureCanvasAgg(sheet.figure)
        sheet.draw()
        buffer = BytesIO()
        sheet.figure.savefig(buffer, format=form, dpi=style.dpi, facecolor="white", metadata=undated.get(form))
    with storing(path):
        write_bytes(path, buffer.getvalue())
    return sheet.width, sheet.height


class Sheet:
    """The figure as it is laid out, in inches from its upper left corner."""

    def __init__(self, panel: Panel, style: Style, make: Any) -> None:
        self.panel, self.style = panel, style
        self.lefts, x = [], EDGE
        for before, column in zip((None, *panel.columns), panel.columns, strict=False):
            x += 0 if before is None else GAP + APART * (before.group != column.group)
            self.lefts.append(x)
            x += TILE
        self.width = max(x + EDGE, NARROWEST)
        self.title = wrap(style.title, self.letters(BOLD))
        self.notes = [line for note in notes(panel) for line in wrap(note, self.letters(LETTER))]
        self.heights = [TILE * min(row.aspect, TALLEST) for row in panel.rows]
        self.top = EDGE + LINE * (len(self.title) + 2) + 0.15
        self.bottom = self.top + sum(self.heights) + LABEL * len(panel.rows)
        self.height = self.bottom + (BARS if self.scaled else 0.08) + LINE * len(self.notes) * 0.8 + EDGE
        self.figure = make(figsize=(self.width, self.height), dpi=style.dpi)

    def letters(self, width: float) -> int:
        """Return how many letters of a width go into a line."""
        return int((self.width - 2 * EDGE) / width)

    @property
    def scaled(self) -> bool:
        """Whether a column has a scale."""
        return any(column.kind in ("norm", "cosine", "clusters") for column in self.panel.columns)

    def text(self, x: float, y: float, said: str, **how: Any) -> None:
        """Write a line below a place: whatever its letters, it is level with its neighbours."""
        y += how.setdefault("fontsize", SMALL) / POINTS
        self.figure.text(x / self.width, 1 - y / self.height, said, parse_math=False, va="baseline", **how)

    def axes(self, x: float, y: float, width: float, height: float) -> Any:
        """Return axes in a box, with nothing around them."""
        axes = self.figure.add_axes(
            (x / self.width, 1 - (y + height) / self.height, width / self.width, height / self.height)
        )
        axes.set_xticks([])
        axes.set_yticks([])
        return axes

    def draw(self) -> None:
        """Draw all."""
        for n, line in enumerate(self.title):
            self.text(EDGE, EDGE + n * LINE, line, fontsize=TEXT, fontweight="bold")
        for name, first, last in groups(self.panel.columns):
            middle = (self.lefts[first] + self.lefts[last] + TILE) / 2
            self.text(middle, self.top - 2 * LINE, name, fontsize=TEXT, fontweight="bold", ha="center")
        for left, column in zip(self.lefts, self.panel.columns, strict=True):
            self.text(left + TILE / 2, self.top - LINE, column.title, fontsize=SMALL + 1, ha="center")
        y = self.top
        for row, height in zip(self.panel.rows, self.heights, strict=True):
            label = f"{row.image_id}   {row.grid[0]}×{row.grid[1]} patches"
            most = self.letters(LETTER)
            self.text(EDGE, y + 0.08, label if len(label) <= most else "…" + label[1 - most :])
            self.draw_row(row, y + LABEL, height)
            y += LABEL + height
        for left, column in zip(self.lefts, self.panel.columns, strict=True):
            self.draw_scale(column, left)
        for n, line in enumerate(self.notes):
            below = self.bottom + (BARS if self.scaled else 0.08) + n * LINE * 0.8
            self.text(EDGE, below, line, color="0.3")

    def draw_row(self, row: Row, y: float, height: float) -> None:
        """Draw the tiles of one image, each in the photograph's shape."""
        width = min(TILE, height / row.aspect)
        compared = any(column.kind == "cosine" for column in self.panel.columns)
        for left, column, tile in zip(self.lefts, self.panel.columns, row.tiles, strict=True):
            axes = self.axes(left + (TILE - width) / 2, y, width, height)
            self.draw_tile(axes, column, tile)
            axes.set_axis_off()
            if compared and column.kind in ("cosine", "photograph"):
                down, across = row.place
                for colour, size in (("white", 2.6), ("black", 1.2)):
                    axes.plot(across, down, marker="x", ms=6, mew=size, color=colour)
            axes.set_xlim(0, 1)
            axes.set_ylim(1, 0)

    def draw_tile(self, axes: Any, column: Column, tile: NDArray[Any]) -> None:
        """Draw one tile over the whole of its axes."""
        smooth = "bilinear" if self.style.smooth and column.kind != "clusters" else "nearest"
        if column.kind == "photograph":
            picture = Image.fromarray(tile)
            picture.thumbnail((PIXELS, PIXELS), Image.Resampling.LANCZOS)
            tile, smooth = np.asarray(picture), "antialiased"
        if column.kind == "clusters":
            tile = colours_of(self.panel.clusters)[tile]
        how: dict[str, Any] = {}
        if column.scale:
            how = {"cmap": colour_map(column), "vmin": column.scale[0], "vmax": column.scale[1]}
        axes.imshow(tile, extent=(0, 1, 1, 0), aspect="auto", interpolation=smooth, **how)

    def draw_scale(self, column: Column, left: float) -> None:
        """Draw what the colours of a column mean, below it."""
        from matplotlib import colormaps

        if column.kind not in ("norm", "cosine", "clusters"):
            return
        axes = self.axes(left + 0.06, self.bottom + 0.08, TILE - 0.12, 0.09)
        if column.scale is None:
            bar = colours_of(self.panel.clusters)[None]
            said: list[str] = []
        else:
            bar = colormaps[colour_map(column)](np.linspace(0, 1, 256))[None]
            said = [number(value) for value in np.linspace(*column.scale, 3)]
        axes.imshow(bar, extent=(0, 1, 0, 1), aspect="auto", interpolation="nearest")
        for n, word in enumerate(said):
            x = left + 0.06 + (TILE - 0.12) * n / 2
            self.text(x, self.bottom + 0.2, word, fontsize=SMALL - 1, ha=("left", "center", "right")[n])
        name = {"norm": "L2 norm", "cosine": "cosine", "clusters": f"{self.panel.clusters} clusters"}[column.kind]
        below = 0.33 if said else 0.2
        self.text(left + TILE / 2, self.bottom + below, name, fontsize=SMALL - 1, ha="center")


def groups(columns: Sequence[Column]) -> Iterator[tuple[str, int, int]]:
    """Yield each group's name, first and last column."""
    first = 0
    for n, column in enumerate(columns):
        if n + 1 == len(columns) or columns[n + 1].group != column.group:
            yield column.group, first, n
            first = n + 1


def colour_map(column: Column) -> str:
    """Return the name of a column's colours, light and dark to every kind of colour vision."""
    return COSINES if column.kind == "cosine" else NORMS


def colours_of(count: int) -> NDArray[np.uint8]:
    """Return the colours of clusters (k, 3)."""
    from matplotlib import colormaps

    if count > len(CLUSTERS):
        return (colormaps["tab20"](np.arange(count))[:, :3] * 255).round().astype(np.uint8)
    return np.array([[int(c[n : n + 2], 16) for n in (1, 3, 5)] for c in CLUSTERS[:count]], np.uint8)


def number(value: float) -> str:
    """Return a number of three digits."""
    return f"{value:.3g}" if abs(value) < 1000 else f"{value:.0f}"


def notes(panel: Panel) -> Iterator[str]:
    """Yield what a reader has to know of the columns."""
    kinds = {column.kind for column in panel.columns}
    coloured = [column.group for column in panel.columns if column.kind == "colours"]
    seen = " and ".join(dict.fromkeys(column.group for column in panel.columns if column.group in SEEN))
    if any(group in SEEN for group in coloured):
        yield f"PCA: components 1, 2, 3 as red, green, blue; one basis and one range for {seen} of all images."
    taken = " and of ".join(dict.fromkeys(group for group in coloured if group not in SEEN))
    if taken:
        yield f"PCA of {taken}: another basis, the same for all images."
    if "clusters" in kinds:
        yield f"k-means: the same clusters in {seen} of all images."
    if "cosine" in kinds:
        yield "Similarity: cosine with the patch marked by a cross; below 0 it is drawn as 0."
