"""Panels of images as small pictures that lie in the page itself."""

import base64
from collections.abc import Mapping
from dataclasses import dataclass, replace
from io import BytesIO
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from featstore.errors import FeatstoreError
from featstore.figure import colour_map
from featstore.panel import Column, Panel, Row, make_panel
from featstore.shown import Chosen, Shown

__all__ = ["Bar", "Picture", "Tile", "make_pictures"]

COLUMNS = ("input", "pca", "norm", "artifact", "residual")
KINDS = ("photograph", "colours", "norm")
PARTS = ("artifact", "residual", "artifact + residual")
"""Of these PCA is left out: one artifact looks like the next."""
TILE, PHOTOGRAPH, QUALITY = 144, 320, 80
"""Pixels that the longer side of a map has at least, and of a photograph at most; quality of its JPEG."""
UNREAD = 217
"""Grey of a photograph that cannot be read."""


@dataclass(frozen=True)
class Tile:
    """One picture: ``uri`` holds all of its bytes."""

    title: str
    uri: str
    alt: str


@dataclass(frozen=True)
class Picture:
    """One image: its tiles, all shown in the photograph's shape, width over height; ``lost`` says why it has no photograph."""

    image_id: str
    grid: str
    aspect: float
    tiles: tuple[Tile, ...]
    lost: str = ""


@dataclass(frozen=True)
class Bar:
    """What the colours of norms mean."""

    title: str
    uri: str
    low: float
    high: float


def make_pictures(chosen: Chosen) -> tuple[dict[str, Picture], list[Bar]]:
    """Return the picture of each image by name, and the bars of their norms; a colour means the same in all of them."""
    shown, lost = [], {}
    for entry, maps in chosen.maps():
        try:
            photograph = chosen.photograph(entry)
        except (FeatstoreError, OSError) as error:
            height, width = next(iter(maps.values())).shape[:2]
            photograph = np.full((height * 8, width * 8, 3), UNREAD, np.uint8)
            lost[entry.image_id] = " ".join(str(error).split())
        shown.append(Shown(entry.image_id, photograph, maps))
    panel = arranged(make_panel(shown, COLUMNS))
    found = {row.image_id: picture(panel, row, lost) for row in panel.rows}
    scales = {column.scale: column for column in panel.columns if column.kind == "norm" and column.scale}
    groups = {scale: [c.group for c in panel.columns if c.scale == scale] for scale in scales}
    bars = [
        Bar(f"norm of {' and '.join(groups[scale])}", ramp(column), *scale)
        for scale, column in scales.items()
        if scale is not None
    ]
    return found, bars


def arranged(panel: Panel) -> Panel:
    """Return a panel with PCA beside PCA and norm beside norm; the small norms of the artifact have a scale of their own."""
    kept = [n for n, column in enumerate(panel.columns) if (column.kind, column.group in PARTS) != ("colours", True)]
    kept.sort(key=lambda n: KINDS.index(panel.columns[n].kind))
    columns = list(panel.columns)
    for n in kept:
        if columns[n].group in PARTS:
            tiles = [row.tiles[n] for row in panel.rows]
            scale = min(float(tile.min()) for tile in tiles), max(float(tile.max()) for tile in tiles)
            columns[n] = replace(columns[n], scale=scale)
    rows = (replace(row, tiles=tuple(row.tiles[n] for n in kept)) for row in panel.rows)
    return Panel(tuple(columns[n] for n in kept), tuple(rows), panel.clusters)


def picture(panel: Panel, row: Row, lost: Mapping[str, str]) -> Picture:
    """Return the tiles of one image."""
    tiles = []
    for column, values in zip(panel.columns, row.tiles, strict=True):
        title = " ".join(word for word in (column.group, column.title) if word)
        if column.kind == "photograph":
            alt = "grey: the photograph cannot be read" if row.image_id in lost else f"photograph {row.image_id}"
            tiles.append(Tile("photograph", encoded(smaller(values), "JPEG"), alt))
        else:
            tiles.append(Tile(title, encoded(painted(column, values), "PNG"), f"{title} of {row.image_id}"))
    grid = "{}×{} patches".format(*row.grid)
    return Picture(row.image_id, grid, round(1 / row.aspect, 4), tuple(tiles), lost.get(row.image_id, ""))


def painted(column: Column, values: NDArray[Any]) -> Image.Image:
    """Return a map as a picture of whole pixels a patch."""
    colours = values if column.kind == "colours" else coloured(column, values)
    times = -(-TILE // max(colours.shape[:2]))
    return Image.fromarray(colours.repeat(times, axis=0).repeat(times, axis=1))


def coloured(column: Column, values: NDArray[Any]) -> NDArray[np.uint8]:
    """Return numbers (H, W) in the colours (H, W, 3) of their column's scale."""
    from matplotlib import colormaps

    low, high = column.scale or (float(values.min()), float(values.max()))
    found: NDArray[np.uint8] = colormaps[colour_map(column)]((values - low) / ((high - low) or 1), bytes=True)[..., :3]
    return found


def ramp(column: Column) -> str:
    """Return a column's colours from low to high."""
    low, high = column.scale or (0.0, 1.0)
    return encoded(Image.fromarray(coloured(column, np.linspace(low, high, 128)[None].repeat(2, axis=0))), "PNG")


def smaller(photograph: NDArray[np.uint8]) -> Image.Image:
    """Return a photograph of a size to look at."""
    found = Image.fromarray(photograph)
    found.thumbnail((PHOTOGRAPH, PHOTOGRAPH), Image.Resampling.LANCZOS)
    return found


def encoded(shown: Image.Image, form: str) -> str:
    """Return a picture as a data: URI."""
    buffer = BytesIO()
    how: dict[str, Any] = {"quality": QUALITY} if form == "JPEG" else {}
    shown.save(buffer, form, optimize=True, **how)
    return f"data:image/{form.lower()};base64,{base64.b64encode(buffer.getvalue()).decode()}"
