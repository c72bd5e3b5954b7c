"""One picture of a version: photo | raw | clean | artifact | residual norm, a row an image."""

import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from .components import colours
from .errors import NotInStoreError
from .images import decode
from .members import read_bytes
from .places import images_folder, placed
from .query import viewed
from .reading import ShardReader
from .sealing import write_bytes
from .versions import find_version

__all__ = ["save_picture"]

TILE, GAP, HEAD, FOOT = 240, 8, 34, 24
COLUMNS = ("photo", "raw (PCA)", "clean (PCA, same basis)", "artifact (PCA)", "residual norm")
HEAT = np.array([[0, 0, 4], [66, 10, 104], [147, 38, 103], [221, 81, 58], [252, 165, 10], [252, 255, 164]], float)
"""Six evenly spaced anchors of matplotlib's `inferno` [0, 255]."""


@dataclass(frozen=True)
class Row:
    """What one row of the picture shows: (h, w, 3) photo and (H, W, C) maps."""

    title: str
    photo: NDArray[np.uint8]
    raw: NDArray[np.float32]
    clean: NDArray[np.float32]
    artifact: NDArray[np.float32]
    residual: NDArray[np.float32]


def save_picture(root: Path, version: str, path: Path, limit: int = 8) -> Path:
    """Draw the first ``limit`` images of a version as PNG and return ``path``.

    Raw and clean share one PCA basis an image (three components, colours from the 2nd to the 98th percentile of both); the
    artifact has its own. Raises NotInStoreError where the version does not hold raw, clean and artifact.
    """
    rows = [load(entry) for entry in entries(root, version, limit)]
    buffer = io.BytesIO()
    compose(version, rows).save(buffer, "PNG", optimize=True)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_bytes(path, buffer.getvalue())
    return path


def entries(root: Path, name: str, limit: int) -> list[tuple[str, Path, Path, int]]:
    """Return (image_id, photo, shard, row) of the images to show."""
    with viewed(root) as connection:
        version = find_version(connection, name)
        found = connection.execute(
            "SELECT image_id, d.source, s.path, shard, shard_row FROM stored s JOIN datasets d USING (dataset) "
            "WHERE dataset = ? AND backbone = ? AND version = ? AND list_has_all(variants, ['raw', 'clean', 'artifact']) "
            "ORDER BY image_id LIMIT ?",
            [version.dataset, version.backbone, f"v{version.number}", limit],
        ).fetchall()
    if not found:
        raise NotInStoreError(f"{name} holds no image with raw, clean and artifact: build it with all variants")
    return [(row[0], placed(images_folder(row[1]), row[2]), root / row[3], row[4]) for row in found]


def load(entry: tuple[str, Path, Path, int]) -> Row:
    """Read one image's photo and maps."""
    title, photo, shard, row = entry
    reader = ShardReader(shard)
    maps = {name: reader.read(name, row).astype(np.float32) for name in ("raw", "clean", "artifact", "residual")}
    return Row(title, decode(read_bytes(photo)), **maps)


def heat(norms: NDArray[np.float32]) -> NDArray[np.uint8]:
    """Return a (H, W) map as colours from its smallest to its largest value."""
    low, high = float(norms.min()), float(norms.max())
    place = (norms - low) / (high - low if high > low else 1) * (len(HEAT) - 1)
    anchors = np.arange(len(HEAT))
    return np.stack([np.interp(place, anchors, HEAT[:, i]) for i in range(3)], axis=-1).astype(np.uint8)


def compose(title: str, rows: Sequence[Row]) -> Image.Image:
    """Lay the tiles out under their headings, each row as high as its photo is."""
    font, small = ImageFont.load_default(15), ImageFont.load_default(13)
    heights = [int(np.clip(TILE * row.photo.shape[0] / row.photo.shape[1], TILE // 3, TILE * 2)) for row in rows]
    width = len(COLUMNS) * (TILE + GAP) + GAP
    canvas = Image.new("RGB", (width, 2 * HEAD + sum(heights) + (FOOT + GAP) * len(rows)), "white")
    draw = ImageDraw.Draw(canvas)
    draw.text((GAP, 9), title, "black", font=font)
    for column, heading in enumerate(COLUMNS):
        draw.text((GAP + column * (TILE + GAP), HEAD + 8), heading, "black", font=font)
    top = 2 * HEAD
    for row, height in zip(rows, heights, strict=True):
        norms = np.linalg.norm(row.residual, axis=-1)
        tiles = [row.photo, *colours([row.raw, row.clean]), *colours([row.artifact]), heat(norms)]
        for column, tile in enumerate(tiles):
            method = Image.Resampling.LANCZOS if column == 0 else Image.Resampling.NEAREST
            canvas.paste(Image.fromarray(tile).resize((TILE, height), method), (GAP + column * (TILE + GAP), top))
        draw.text((GAP, top + height + 3), row.title, "black", font=small)
        scale = f"{norms.min():.2g} (dark) to {norms.max():.2g} (bright)"
        draw.text((GAP + 4 * (TILE + GAP), top + height + 3), scale, "black", font=small)
        top += height + FOOT + GAP
    return canvas
