"""Plan a build: what is wanted, minus what exists by (image SHA-256, recipe digest)."""

import math
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import duckdb
import numpy as np

from .compute import FINE, VARIANTS, Decomposer, fine_grid
from .filters import NONE, require
from .layout import FLOAT16, sample_parts, sample_shapes
from .pending import Planned, StoredRaw, find_pending
from .query import restricted, viewed
from .recipe import Recipe
from .root import version_folder
from .storage import stored_recipe
from .variants import choose_variants

__all__ = ["Plan", "Planned", "Request", "StoredRaw", "make_plan"]

FORWARDS_PER_SHARD = 256
SAMPLES_PER_SHARD = 128


@dataclass(frozen=True)
class Request:
    """What a build is asked for. ``variants`` empty means all that the method gives.

    ``environment`` (library versions, git revision, device, the full command that makes the version again) is written into
    shards and manifest, ``provenance`` (the command line as it was given) into the manifest alone, so that a build that goes
    on with other words has the same bytes. ``stored`` is the recipe digest of a version whose raw maps are computed on, and
    only they, in place of images. ``given`` is what the decomposer's ``prepare_given`` takes in place of images, by their
    SHA-256, and only they. ``store`` (``float16`` or ``int8``) is part of the recipe; ``codec``, the lossless filter of new
    shards, is not.
    """

    dataset: str
    backbone: str
    variants: tuple[str, ...] = ()
    where: str | None = None
    limit: int | None = None
    retry_failed: bool = False
    shard_size: int | None = None
    environment: dict[str, str] = field(default_factory=dict)
    provenance: dict[str, str] = field(default_factory=dict)
    stored: str | None = None
    given: Mapping[str, Any] | None = None
    store: str = FLOAT16
    codec: str = NONE


@dataclass(frozen=True)
class Plan:
    """What a build will do; counts are images. ``fine_grid`` is None where ``clean_fine`` is not written.

    ``grid`` is (H, W) [patches] of every map; where images keep their shape, that of one in the shape of the model's input:
    then each of ``todo`` has its own, and those of one grid follow each other.
    """

    dataset: str
    backbone: str
    recipe: Recipe
    folder: Path
    variants: tuple[str, ...]
    grid: tuple[int, int]
    fine_grid: tuple[int, int] | None
    channels: int
    prefix_tokens: int
    shard_size: int
    wanted: int
    present: int
    failed_before: int
    todo: tuple[Planned, ...]
    seconds_per_image: float | None
    store: str = FLOAT16
    codec: str = NONE

    @property
    def bytes_to_write(self) -> int:
        """How much the shards will take [bytes], headers aside; with a filter at most."""
        return sum(count * self.sample_bytes(grid) for grid, count in self.grids.items())

    @property
    def grids(self) -> Counter[tuple[int, int]]:
        """How many images are to be computed on each grid (H, W) [patches]."""
        return Counter(image.grid or self.grid for image in self.todo)

    def sample_bytes(self, grid: tuple[int, int]) -> int:
        """Return how much one image's maps take [bytes]."""
        shapes = sample_shapes(self.variants, grid, self.fine_grid, self.channels, self.prefix_tokens)
        parts = sample_parts(shapes, self.store, self.codec).values()
        return sum(np.dtype(part.dtype).itemsize * math.prod(part.shape) for part in parts)


def make_plan(root: Path, request: Request, decomposer: Decomposer) -> Plan:
    """Compare what ``request`` wants with what the manifest lists and the disk holds.

    Raises InputError for a variant the method does not give or a filter that is not installed, QueryError for a wrong
    ``where``, NotInStoreError for an unknown data set.
    """
    require(request.codec)
    variants = choose_variants(request.variants, decomposer, request.store)
    opened = restricted if request.where else viewed
    with opened(root, request.dataset) as connection:
        recipe = stored_recipe(connection, decomposer.recipe(), request.store, request.stored)
        left = find_pending(
            *(connection, root, recipe.digest, variants, request.where, request.limit),
            *(request.retry_failed, request.stored, request.given),
        )
        seconds = average_seconds(connection, recipe.digest)
    written = tuple(name for name in VARIANTS if name in {*variants, *left.variants})
    return Plan(
        dataset=request.dataset,
        backbone=request.backbone,
        recipe=recipe,
        folder=version_folder(root, request.dataset, request.backbone, recipe.digest),
        variants=written,
        grid=decomposer.grid,
        fine_grid=fine_grid(decomposer) if FINE in written else None,
        channels=decomposer.width,
        prefix_tokens=decomposer.prefix_tokens,
        shard_size=request.shard_size or shard_size(decomposer),
        wanted=left.wanted,
        present=left.present,
        failed_before=left.given_up,
        todo=by_grid(left.todo, decomposer),
        seconds_per_image=seconds,
        store=request.store,
        codec=request.codec,
    )


def by_grid(todo: tuple[Planned, ...], decomposer: Decomposer) -> tuple[Planned, ...]:
    """Return the images with the grids of their maps, one grid after the other, where these differ; else as they are."""
    grid_for = getattr(decomposer, "grid_for", None)
    if grid_for is None:
        return todo
    found = [replace(image, grid=grid_for(*image.size)) for image in todo]
    return tuple(sorted(found, key=lambda image: image.grid or (0, 0)))


def average_seconds(connection: duckdb.DuckDBPyConnection, digest: str) -> float | None:
    """Return the mean time an image took under this recipe [s], None where nothing is stored yet."""
    row = connection.execute("SELECT avg(seconds) FROM manifest.features WHERE digest = ?", [digest]).fetchone()
    return float(row[0]) if row and row[0] is not None else None


def shard_size(decomposer: Decomposer) -> int:
    """Return how many samples a shard holds: by the cost of a sample, never by the clock, so that it is reproducible."""
    return max(1, min(SAMPLES_PER_SHARD, FORWARDS_PER_SHARD // decomposer.forwards_per_image))
