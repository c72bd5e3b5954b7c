"""How far the features of two versions are apart, over images that both hold."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
from numpy.typing import NDArray

from .compute import VARIANTS
from .quantise import DERIVABLE
from .reading import PREFIX, ShardPool
from .resampling import Resampler, centres_of
from .versions import Version

__all__ = ["Distance", "Shared", "held", "measure", "shared_images"]


@dataclass(frozen=True)
class Distance:
    """Over ``images``: ``cosine``, the mean over patches; ``relative_l2``, RMS of the difference over RMS of the first;

    ``largest``, the largest absolute difference of one value. None where there is nothing to compare: ``note`` says why, or
    that the second was resampled.
    """

    variant: str
    images: int
    cosine: float | None
    relative_l2: float | None
    largest: float | None
    note: str = ""


@dataclass(frozen=True)
class Shared:
    """Where images of both versions lie, by SHA-256: ``shards`` (paths), then a number and a row for either version, (N,)."""

    shards: tuple[list[Path], list[Path]]
    shard: tuple[NDArray[np.int64], NDArray[np.int64]]
    row: tuple[NDArray[np.int64], NDArray[np.int64]]


class Sums:
    """What the measures are made of, added up in float64 patch by patch."""

    def __init__(self) -> None:
        self.images = self.patches = 0
        self.cosine = self.difference = self.first = self.largest = 0.0

    def add(self, one: NDArray[np.float64], two: NDArray[np.float64]) -> None:
        """Add an image's maps, both (..., C)."""
        difference = two - one
        norms = np.linalg.norm(one, axis=-1) * np.linalg.norm(two, axis=-1)
        turned = norms > 0  # a zero vector points nowhere
        self.cosine += float(((one * two).sum(axis=-1)[turned] / norms[turned]).sum())
        self.patches += int(turned.sum())
        self.difference += float((difference**2).sum())
        self.first += float((one**2).sum())
        self.largest = max(self.largest, float(np.abs(difference).max(initial=0.0)))
        self.images += 1

    def distance(self, variant: str, note: str) -> Distance:
        """Return the measures."""
        cosine = self.cosine / self.patches if self.patches else None
        relative = (self.difference / self.first) ** 0.5 if self.first else None
        return Distance(variant, self.images, cosine, relative, self.largest, note)


def held(variants: Iterable[str], prefix_tokens: int = 0) -> list[str]:
    """Return what can be read where ``variants`` are stored: the residual too, where it can be derived."""
    have = set(variants)
    if have >= set(DERIVABLE):
        have.add("residual")
    return [name for name in VARIANTS if name in have] + ([PREFIX] if prefix_tokens and have else [])


def shared_images(
    connection: duckdb.DuckDBPyConnection, root: Path, pair: tuple[Version, Version], variant: str, limit: int | None
) -> Shared:
    """Find the images whose ``variant`` both versions hold; of more than ``limit`` the first by SHA-256."""
    stored = [name for name in (variant,) if name in VARIANTS]
    condition = " AND ".join(f"list_contains(s{n}.variants, '{name}')" for n in (1, 2) for name in stored)
    if variant == "residual":
        three = ", ".join(f"'{name}'" for name in DERIVABLE)
        condition = " AND ".join(
            f"(list_contains(s{n}.variants, 'residual') OR list_has_all(s{n}.variants, [{three}]))" for n in (1, 2)
        )
    images = "(SELECT DISTINCT sha256 FROM images WHERE dataset = ?)"
    taken = connection.execute(
        f"SELECT f1.shard_id AS shard1, f1.shard_row AS row1, f2.shard_id AS shard2, f2.shard_row AS row2 "
        f"FROM manifest.features f1 JOIN manifest.features f2 ON f1.digest = ? AND f2.digest = ? AND f1.sha256 = f2.sha256 "
        f"JOIN manifest.shards s1 ON s1.shard_id = f1.shard_id JOIN manifest.shards s2 ON s2.shard_id = f2.shard_id "
        f"WHERE f1.sha256 IN {images} AND f1.sha256 IN {images} AND {condition or 'true'} ORDER BY f1.sha256 "
        + (f"LIMIT {limit}" if limit is not None else ""),
        [pair[0].digest, pair[1].digest, pair[0].dataset, pair[1].dataset],
    ).fetchnumpy()
    order = np.lexsort((taken["row1"], taken["shard1"]))  # chosen by SHA-256, read file by file
    paths = dict(connection.execute("SELECT shard_id, path FROM manifest.shards").fetchall())
    shards, numbers = [], []
    for n in (1, 2):
        used, number = np.unique(np.asarray(taken[f"shard{n}"])[order], return_inverse=True)
        shards.append([root / paths[shard_id] for shard_id in used.tolist()])
        numbers.append(number)
    rows = [np.asarray(taken[f"row{n}"])[order] for n in (1, 2)]
    return Shared((shards[0], shards[1]), (numbers[0], numbers[1]), (rows[0], rows[1]))


def measure(
    shared: Shared, variant: str, pair: tuple[Version, Version], recipes: tuple[Mapping[str, Any], Mapping[str, Any]]
) -> Distance:
    """Compare a variant image by image, each held against its checksum; the second is read off at the first's places.

    Raises CorruptError where a map is not what was written.
    """
    count = len(shared.row[0])
    if pair[0].channels != pair[1].channels:
        widths = f"{pair[0].channels} and {pair[1].channels} channels cannot be compared"
        return Distance(variant, count, None, None, None, widths)
    if not count:
        return Distance(variant, 0, None, None, None, "no image has it in both")
    parts = [recipe.get("backbone", {}) for recipe in recipes]
    shown = [part.get("resize") == "shortest" and part["input"] for part in parts]
    if variant != PREFIX and shown[0] != shown[1]:
        return Distance(variant, count, None, None, None, "one shows the middle of an image, the other more of it")
    pools = [ShardPool(paths, verify=True) for paths in shared.shards]
    sums, note = Sums(), ""
    resamplers: dict[tuple[int, ...], Resampler] = {}
    for place in range(count):
        maps = [
            pool[shared.shard[n].item(place)].read(variant, shared.row[n].item(place)).astype(np.float64)
            for n, pool in enumerate(pools)
        ]
        if variant == PREFIX and maps[0].shape != maps[1].shape:
            tokens = f"{len(maps[0])} and {len(maps[1])} tokens cannot be compared"
            return Distance(variant, count, None, None, None, tokens)
        shapes = maps[0].shape[:2] + maps[1].shape[:2]
        if variant != PREFIX and shapes not in resamplers:
            resamplers[shapes], told = between(variant, maps, recipes)
            note = note or told
        sums.add(maps[0], resamplers[shapes](maps[1]) if variant != PREFIX else maps[1])
    return sums.distance(variant, note)


def between(
    variant: str, maps: list[NDArray[np.float64]], recipes: tuple[Mapping[str, Any], Mapping[str, Any]]
) -> tuple[Resampler, str]:
    """Return what reads the second's maps off at the first's places, and what is to be said of it."""
    one, two = (
        centres_of(variant, (values.shape[0], values.shape[1]), recipe.get("backbone", {}))
        for values, recipe in zip(maps, recipes, strict=True)
    )
    resampler = Resampler(two, one)
    shapes = ["×".join(map(str, values.shape[:2])) for values in maps]
    told = f"the second ({shapes[1]}) is resampled bilinearly at the first's patch centres ({shapes[0]})"
    return resampler, told if resampler.needed else ""
