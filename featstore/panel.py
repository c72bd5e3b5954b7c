"""What a figure shows of each image: a row of tiles, whose colours mean the same in every row."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .clustering import cluster, nearest
from .components import MOST, Colours, fit_colours, sampled
from .errors import InputError
from .shown import Shown

__all__ = ["COLUMNS", "SEEN", "Column", "Panel", "Row", "cosine", "make_panel"]

COLUMNS = ("input", "pca", "kmeans", "norm", "similarity", "artifact", "residual")
SEEN = ("raw", "clean", "clean_fine")
"""Variants of which PCA, k-means, norm and similarity are shown; they share one basis, one clustering, one scale."""
SUM = "artifact + residual"
TITLES = {"pca": "PCA", "kmeans": "k-means", "norm": "norm", "similarity": "similarity"}
Floats = NDArray[np.float32]
Patch = tuple[int, int]


@dataclass(frozen=True)
class Column:
    """One column: ``group`` is what it is of, ``kind`` photograph, colours, clusters, norm or cosine, ``scale`` its range."""

    group: str
    title: str
    kind: str
    scale: tuple[float, float] | None = None


@dataclass(frozen=True)
class Row:
    """One image: a tile a column, its height over its width, and the place (down, across) [0, 1] of the patch compared to."""

    image_id: str
    grid: Patch
    aspect: float
    place: tuple[float, float]
    tiles: tuple[NDArray[Any], ...]


@dataclass(frozen=True)
class Panel:
    """All of them; ``clusters`` is how many k-means found."""

    columns: tuple[Column, ...]
    rows: tuple[Row, ...]
    clusters: int


@dataclass(frozen=True)
class Means:
    """What all images have in common: bases of features and of the artifact, centres, ranges of the norms."""

    colours: Colours | None
    artifact: Colours | None
    centres: Floats
    norms: tuple[float, float]
    parts: tuple[float, float]


def make_panel(shown: Sequence[Shown], columns: Sequence[str], clusters: int = 8, patch: Patch | None = None) -> Panel:
    """Return the panel of some images, of those of ``COLUMNS`` asked for whose variants are there.

    ``patch`` (row, column) of the grid is the one whose cosine with every other is the similarity; None is the centre's. Raises
    InputError for unknown columns, for a patch outside of a grid, and where nothing is left to show.
    """
    wrong = [name for name in columns if name not in COLUMNS]
    if wrong:
        raise InputError(f"unknown column {wrong[0]!r}: choose from {', '.join(COLUMNS)}")
    means = common(shown, columns, clusters)
    layout = lay_out(columns, tuple(shown[0].maps), means)
    if not layout:
        raise InputError(f"nothing to show of {', '.join(shown[0].maps)} in the columns {', '.join(columns)}")
    rows = tuple(row_of(one, layout, means, patch) for one in shown)
    return Panel(tuple(layout), rows, len(means.centres))


def common(shown: Sequence[Shown], columns: Sequence[str], clusters: int) -> Means:
    """Find what all images share."""
    seen = [values for one in shown for name, values in one.maps.items() if name in SEEN]
    artifacts = [one.maps["artifact"] for one in shown if "artifact" in columns and "artifact" in one.maps]
    artifacts += [summed(one) for one in shown if "residual" in columns and {"artifact", "residual"} <= one.maps.keys()]
    parts = [
        one.maps[name] for one in shown for name in ("artifact", "residual") if name in columns and name in one.maps
    ]
    width = next(iter(shown[0].maps.values())).shape[-1]
    wanted = bool(seen) and "kmeans" in columns
    tokens = sampled(seen, MOST) if wanted else np.zeros((1, width), np.float32)
    return Means(
        fit_colours(seen) if seen and "pca" in columns else None,
        fit_colours(artifacts) if artifacts else None,
        cluster(tokens, clusters) if wanted else tokens[:0],
        span(seen),
        span(parts),
    )


def span(maps: Sequence[Floats]) -> tuple[float, float]:
    """Return the smallest and the largest norm of maps."""
    norms = [np.linalg.norm(values, axis=-1) for values in maps]
    return (min(float(n.min()) for n in norms), max(float(n.max()) for n in norms)) if norms else (0.0, 1.0)


def lay_out(columns: Sequence[str], variants: Sequence[str], means: Means) -> list[Column]:
    """Return the columns: the photograph, then each variant's in the order asked for, then artifact and residual."""
    found = [Column("input", "", "photograph")] if "input" in columns else []
    for variant in (name for name in SEEN if name in variants):
        for name in columns:
            kind = {"pca": "colours", "kmeans": "clusters", "norm": "norm", "similarity": "cosine"}.get(name)
            scale = {"norm": means.norms, "cosine": (0.0, 1.0)}.get(kind or "")
            if kind:
                found.append(Column(variant, TITLES[name], kind, scale))
    if "artifact" in columns and "artifact" in variants:
        found += [Column("artifact", "PCA", "colours"), Column("artifact", "norm", "norm", means.parts)]
    if "residual" in columns and "residual" in variants:
        found.append(Column("residual", "norm", "norm", means.parts))
        if "artifact" in variants:
            found.append(Column(SUM, "PCA", "colours"))
    return found


def row_of(one: Shown, columns: Sequence[Column], means: Means, patch: Patch | None) -> Row:
    """Return the tiles of one image."""
    height, width = next(iter(one.maps.values())).shape[:2]
    row, column = patch or (height // 2, width // 2)
    if not (0 <= row < height and 0 <= column < width):
        raise InputError(
            f"--patch {row},{column} is outside of the {height}×{width} patches of {one.image_id}, from 0,0"
        )
    place = (row + 0.5) / height, (column + 0.5) / width
    aspect = one.photograph.shape[0] / one.photograph.shape[1]
    tiles = tuple(tile_of(one, each, means, place) for each in columns)
    return Row(one.image_id, (height, width), aspect, place, tiles)


def tile_of(one: Shown, column: Column, means: Means, place: tuple[float, float]) -> NDArray[Any]:
    """Return one tile: (h, w, 3) colours, or (H, W) numbers."""
    if column.kind == "photograph":
        return one.photograph
    values = summed(one) if column.group == SUM else one.maps[column.group]
    if column.kind == "colours":
        shades = means.colours if column.group in SEEN else means.artifact
        if shades is None:
            raise InputError(f"no basis for {column.group}")
        return shades(values)
    if column.kind == "clusters":
        return nearest(values, means.centres)
    if column.kind == "norm":
        norms: Floats = np.linalg.norm(values, axis=-1)
        return norms
    return cosine(values, int(place[0] * values.shape[0]), int(place[1] * values.shape[1]))


def summed(one: Shown) -> Floats:
    """Return all that cleaning takes off (H, W, C)."""
    taken: Floats = one.maps["artifact"] + one.maps["residual"]
    return taken


def cosine(values: Floats, row: int, column: int) -> Floats:
    """Return the cosine (H, W) in [-1, 1] of every feature of a (H, W, C) map with one of them; 0 for a feature of zeros."""
    norms = np.linalg.norm(values, axis=-1, keepdims=True)
    unit = values / np.where(norms > 0, norms, 1)
    found: Floats = np.clip(unit @ unit[row, column], -1, 1)
    return found
