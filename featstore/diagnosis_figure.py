"""The figure of a diagnosis: norms block by block, their histogram, what is position, and maps with outliers marked."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from .sealing import sealed, storing

__all__ = ["Curves", "Panel", "save_figure"]

MINIMUM, MEDIAN, MAXIMUM, CLASS, REGISTER = "#56B4E9", "#0072B2", "#D55E00", "#009E73", "#CC79A7"
"""Of Okabe and Ito's colours, which all kinds of colour vision tell apart."""
WIDTH, CHARTS, MAPS = 13.0, 3.3, 2.05
"""Inches: of the figure, and the height of its charts and of one line of maps."""
DPI = 100
SHADES = (("cividis", 64), ("magma_r", 20), ("viridis", 10))
"""Colour maps of what is drawn, and into how many of the 256 colours they go."""
Numbers = NDArray[np.floating]


@dataclass(frozen=True)
class Curves:
    """What is drawn of a backbone, an entry a layer: ``norms`` and ``outliers`` (N, H, W), ``prefix`` (N,) by name, shares.

    A layer called ``norm`` is the last block after the final norm.
    """

    names: Sequence[str]
    norms: Sequence[Numbers]
    outliers: Sequence[NDArray[np.bool_]]
    prefix: Mapping[str, Sequence[Numbers]]
    share_images: Sequence[float]
    share_crops: Sequence[float]
    mic: Sequence[float]
    mic_chance: float


@dataclass(frozen=True)
class Panel:
    """One backbone: its curves, the layers to show maps of, and the first images (name, (h, w, 3) pixels)."""

    title: str
    curves: Curves
    looked: Sequence[int]
    photographs: Sequence[tuple[str, NDArray[np.uint8]]]


def save_figure(panels: Sequence[Panel], rule: str, path: Path) -> Path:
    """Draw panels below each other as a PNG and return ``path``; ``rule`` says what an outlier is."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    heights = [0.45 + CHARTS + MAPS * (len(panel.photographs) + 1) for panel in panels]
    figure = Figure(figsize=(WIDTH, sum(heights)), dpi=DPI, layout="constrained")
    FigureCanvasAgg(figure)
    parts = figure.subfigures(len(panels), 1, height_ratios=heights, squeeze=False)[:, 0]
    for part, panel, height in zip(parts, panels, heights, strict=True):
        part.suptitle(panel.title, fontsize=12, fontweight="bold")
        above, below = part.subfigures(2, 1, height_ratios=[CHARTS, height - CHARTS])
        norms, histogram, position = above.subplots(1, 3)
        draw_norms(norms, panel.curves)
        draw_histogram(histogram, panel)
        draw_position(position, panel.curves)
        draw_maps(below, panel, rule)
    buffer = BytesIO()
    figure.savefig(buffer, format="png")
    drawn = Image.open(buffer).convert("RGB").quantize(palette=palette(panels), dither=Image.Dither.NONE)
    with storing(path), sealed(path) as temporary:  # 256 colours do, at half the size
        drawn.save(temporary, "PNG", optimize=True)
    return path


def palette(panels: Sequence[Panel]) -> Image.Image:
    """Return 256 colours: those of lines and maps as they are, the others from the photographs."""
    from matplotlib import colormaps

    lines = [[int(colour[n : n + 2], 16) for n in (1, 3, 5)] for colour in (MINIMUM, MEDIAN, MAXIMUM, CLASS, REGISTER)]
    greys = [[level] * 3 for level in range(0, 256, 15)]
    maps = [(colormaps[name](np.linspace(0, 1, count))[:, :3] * 255).round() for name, count in SHADES]
    fixed = np.concatenate([lines, greys, *maps]).astype(np.uint8)
    shown = [pixels.reshape(-1, 3) for panel in panels for _, pixels in panel.photographs]
    left = 256 - len(fixed)
    photographs = Image.fromarray(np.concatenate(shown)[None]).quantize(left).convert("RGB")
    found = np.unique(np.asarray(photographs).reshape(-1, 3), axis=0)[:left]
    made = Image.new("P", (1, 1))
    made.putpalette(np.concatenate([fixed, found]).ravel().tolist())
    return made


def places_of(names: Sequence[str]) -> NDArray[np.float64]:
    """Return where layers stand along a chart: the norm a little apart from the blocks."""
    return np.array([n + 0.8 * (name == "norm") for n, name in enumerate(names)])


def finish(axes: Any, names: Sequence[str]) -> None:
    """Name the layers below a chart, not more than fit, the norm always; lines across."""
    step = max(1, len(names) // 12)
    shown = [n for n, name in enumerate(names) if n % step == 0 or name == "norm"]
    axes.set_xticks(places_of(names)[shown], [names[n] for n in shown])
    axes.set_xlabel("block (norm: the last, after the final norm)" if "norm" in names else "block")
    axes.grid(axis="y", color="0.9", lw=0.6)
    axes.set_axisbelow(True)


def headroom(axes: Any, columns: int) -> None:
    """Put the legend above the lines of a chart of logarithmic height, and make room for it."""
    low, high = axes.get_ylim()
    axes.set_ylim(low, high * (high / low) ** 0.28)
    axes.legend(fontsize=8, frameon=False, ncols=columns, loc="upper center")


def draw_norms(axes: Any, curves: Curves) -> None:
    """Draw smallest, median and largest norm of the patch tokens, and the medians of the prefix tokens, over blocks."""
    blocks = [n for n, name in enumerate(curves.names) if name != "norm"]
    last = [n for n, name in enumerate(curves.names) if name == "norm"]
    places = places_of(curves.names)
    lines: list[tuple[str, Any, str, str]] = [
        ("largest", np.max, MAXIMUM, "^"),
        ("median", np.median, MEDIAN, "o"),
        ("smallest", np.min, MINIMUM, "v"),
    ]
    for label, take, colour, marker in lines:
        values = np.array([take(norms) for norms in curves.norms])
        axes.plot(blocks, values[blocks], color=colour, marker=marker, ms=4, lw=1.4, label=label)
        axes.plot(places[last], values[last], color=colour, marker=marker, ms=6, ls="none")
    registers = [name for name in curves.prefix if name.startswith("register")]
    for name, norms in curves.prefix.items():
        if name not in registers:
            axes.plot(blocks, [np.median(norms[n]) for n in blocks], color=CLASS, ls="--", lw=1.2, label=name)
    if registers:
        together = [np.median([curves.prefix[name][n] for name in registers]) for n in blocks]
        axes.plot(blocks, together, color=REGISTER, ls=":", lw=1.6, label="registers")
    axes.set_yscale("log")
    axes.set_title("Norms of patch tokens", fontsize=11)
    axes.set_ylabel("L2 norm")
    headroom(axes, 3)
    finish(axes, curves.names)


def draw_histogram(axes: Any, panel: Panel) -> None:
    """Draw how many tokens have which norm, of the layers looked at."""
    from matplotlib import colormaps

    shades = colormaps["viridis"](np.linspace(0, 0.9, max(1, len(panel.looked))))
    shown = [panel.curves.norms[n] for n in panel.looked]
    edges = np.geomspace(
        max(1e-6, min(norms.min() for norms in shown)) * 0.98, max(norms.max() for norms in shown) * 1.02, 60
    )
    for n, norms, shade in zip(panel.looked, shown, shades, strict=True):
        share = np.histogram(norms, edges)[0] / norms.size * 100
        axes.stairs(share, edges, color=shade, lw=1.5, label=label_of(panel.curves.names[n]))
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.set_title("How many tokens have which norm", fontsize=11)
    axes.set_xlabel("L2 norm")
    axes.set_ylabel("tokens [%]")
    headroom(axes, 3)


def draw_position(axes: Any, curves: Curves) -> None:
    """Draw the share of variance that positions explain, and the MIC where it was taken, over blocks."""
    places = places_of(curves.names)
    blocks = np.array([name != "norm" for name in curves.names])
    for values, colour, label, marker in (
        (np.array(curves.share_images), MEDIAN, "share of variance, images", "o"),
        (np.array(curves.share_crops), MAXIMUM, "share of variance, crops", "s"),
    ):
        if np.isfinite(values).any():
            axes.plot(places[blocks], values[blocks], color=colour, marker=marker, ms=4, lw=1.4, label=label)
            axes.plot(places[~blocks], values[~blocks], color=colour, marker=marker, ms=6, ls="none")
    mic = np.array(curves.mic)
    if np.isfinite(mic).any():
        axes.plot(places, mic, color=CLASS, marker="D", ms=5, ls="none", label="MIC, images")
        axes.axhline(curves.mic_chance, color=CLASS, ls=":", lw=1.2, label="MIC by chance")
    axes.axhline(0, color="0.7", lw=0.8)
    axes.set_ylim(top=max(0.5, axes.get_ylim()[1] * 1.35))
    axes.set_title("How much is position", fontsize=11)
    axes.set_ylabel("share, MIC [0, 1]")
    axes.legend(fontsize=8, frameon=False, ncols=2, loc="upper center")
    finish(axes, curves.names)


def draw_maps(figure: Any, panel: Panel, rule: str) -> None:
    """Draw photographs with their norms after each layer looked at, outliers ringed, and how often each place is one."""
    from matplotlib.colors import LogNorm

    count, curves = len(panel.photographs), panel.curves
    grid = figure.subplots(count + 1, 1 + len(panel.looked), squeeze=False)
    for axes in grid.ravel():
        axes.set_xticks([])
        axes.set_yticks([])
    for row, (name, photograph) in enumerate(panel.photographs):
        height, width = curves.norms[0].shape[1:]
        grid[row, 0].imshow(photograph, extent=(0, width, height, 0), aspect="equal", interpolation="antialiased")
        grid[row, 0].set_ylabel(name if len(name) <= 22 else name[:21] + "…", fontsize=9)
    grid[count, 0].axis("off")
    grid[count, 0].text(
        0.5,
        0.5,
        f"outliers, all images\n(share at each place)\n\nrings: {wrapped(rule)}",
        ha="center",
        va="center",
        fontsize=9,
    )
    for column, n in enumerate(panel.looked, 1):
        norms, outliers = curves.norms[n], curves.outliers[n]
        low, high = max(float(norms.min()), 1e-6), float(norms.max())
        scale = LogNorm(low, high if high > low else low * 1.01)
        for row in range(count):
            shown = grid[row, column].imshow(norms[row], cmap="cividis", norm=scale)
            ring(grid[row, column], outliers[row])
        grid[0, column].set_title(f"{label_of(curves.names[n])}\nnorm {low:.3g} to {high:.3g}", fontsize=9)
        often = grid[count, column].imshow(outliers.mean(axis=0), cmap="magma_r", vmin=0, vmax=1)
        if not outliers.any():
            grid[count, column].text(
                0.5, 0.5, "none", ha="center", va="center", transform=grid[count, column].transAxes
            )
    bar = figure.colorbar(
        shown, ax=grid[:count, -1].tolist(), ticks=[], label="norm, log scale: as above each column", shrink=0.8
    )
    bar.minorticks_off()
    figure.colorbar(often, ax=grid[count, -1], ticks=[0, 0.5, 1], label="images", format="{x:.0%}")


def ring(axes: Any, outliers: NDArray[np.bool_]) -> None:
    """Ring the tokens that stand out."""
    rows, columns = np.nonzero(outliers)
    axes.scatter(columns, rows, s=34, facecolors="none", edgecolors="white", linewidths=2.4)
    axes.scatter(columns, rows, s=34, facecolors="none", edgecolors=MAXIMUM, linewidths=1.3)


def label_of(name: str) -> str:
    """Return what a layer is called in a title."""
    return "final norm" if name == "norm" else f"block {name}"


def wrapped(text: str, width: int = 22) -> str:
    """Return a text in lines."""
    from textwrap import fill

    return fill(text, width)
