"""Plan a build: what is wanted, minus what exists by (image SHA-256, recipe digest)."""

import math
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import duckdb
import numpy as np

from .compute import FINE, VARIANTS, Decomposer, fine_grid
from .errors import QueryError
from .filters import NONE, require
from .layout import FLOAT16, sample_parts, sample_shapes
from .manifest import first_line
from .places import listed
from .query import check_condition, restricted
from .recipe import Recipe
from .root import version_folder
from .storage import stored_recipe
from .variants import choose_variants

__all__ = ["Plan", "Planned", "Request", "StoredRaw", "images_of", "make_plan"]

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
class StoredRaw:
    """Where the raw map of an image lies, and its checksum."""

    shard: Path
    row: int
    checksum: int


@dataclass(frozen=True)
class Planned:
    """One image to compute; ``path`` is absolute. ``stored`` is its raw map where that is to be cleaned, not the image.

    ``given`` is what the decomposer takes in place of both.
    """

    image_id: str
    path: str
    sha256: str
    bytes: int
    stored: StoredRaw | None = None
    given: Any = None


@dataclass(frozen=True)
class Plan:
    """What a build will do; counts are images. ``fine_grid`` is None where ``clean_fine`` is not written."""

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
        shapes = sample_shapes(self.variants, self.grid, self.fine_grid, self.channels, self.prefix_tokens)
        parts = sample_parts(shapes, self.store, self.codec).values()
        return len(self.todo) * sum(np.dtype(part.dtype).itemsize * math.prod(part.shape) for part in parts)


def make_plan(root: Path, request: Request, decomposer: Decomposer) -> Plan:
    """Compare what ``request`` wants with what the manifest lists and the disk holds.

    Raises InputError for a variant the method does not give or a filter that is not installed, QueryError for a wrong
    ``where``, NotInStoreError for an unknown data set.
    """
    require(request.codec)
    variants = choose_variants(request.variants, decomposer, request.store)
    with restricted(root, request.dataset) as connection:
        recipe = stored_recipe(connection, decomposer.recipe(), request.store, request.stored)
        wanted = wanted_images(connection, request, root)
        have = stored_variants(connection, recipe.digest, root)
        failed = failed_steps(connection, recipe.digest)
        seconds = average_seconds(connection, recipe.digest)
    present = [image for image in wanted if set(variants) <= have.get(image.sha256, set())]
    missing = [image for image in wanted if not set(variants) <= have.get(image.sha256, set())]
    given_up = [
        i
        for i in missing
        if failed.get(i.sha256, "read") != "read" and i.sha256 not in have and not request.retry_failed
    ]
    skip = {image.sha256 for image in given_up}
    todo = unique(image for image in missing if image.sha256 not in skip)
    todo.sort(key=lambda image: (image.sha256 in failed, image.image_id))  # so that a retry moves no other's shard
    stored_too = {variant for image in todo for variant in have.get(image.sha256, set())}
    written = tuple(name for name in VARIANTS if name in {*variants, *stored_too})
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
        wanted=len(wanted),
        present=len(present),
        failed_before=len(given_up),
        todo=tuple(todo),
        seconds_per_image=seconds,
        store=request.store,
        codec=request.codec,
    )


def wanted_images(connection: duckdb.DuckDBPyConnection, request: Request, root: Path) -> list[Planned]:
    """Return the current images that ``stored``, ``where`` and ``limit`` leave, ordered by image_id."""
    condition = check_condition(request.where) if request.where else "true"
    try:
        images = images_of(connection, condition)
    except duckdb.Error as error:
        raise QueryError(f"--where {request.where!r}: {first_line(str(error))}") from error
    if request.stored:
        raw = raw_maps(connection, request.stored, root)
        images = [replace(image, stored=raw[image.sha256]) for image in images if image.sha256 in raw]
    if request.given is not None:
        images = [
            replace(image, given=request.given[image.sha256]) for image in images if image.sha256 in request.given
        ]
    return sorted(images, key=lambda image: image.image_id)[: request.limit]


def images_of(connection: duckdb.DuckDBPyConnection, condition: str = "true") -> list[Planned]:
    """Return the current images of the one data set that a restricted connection sees."""
    source = connection.execute("SELECT source FROM datasets").fetchall()[0][0]
    rows = connection.execute(f"SELECT image_id, path, sha256, bytes FROM images WHERE ({condition}\n)").fetchall()
    return [Planned(row[0], os.path.join(source, row[1]), row[2], row[3]) for row in rows]  # noqa: PTH118


def raw_maps(connection: duckdb.DuckDBPyConnection, digest: str, root: Path) -> dict[str, StoredRaw]:
    """Return where the raw maps stored under a recipe lie, by image SHA-256."""
    rows = connection.execute(
        "SELECT f.sha256, s.path, f.shard_row, f.checksum_raw FROM manifest.features f JOIN manifest.shards s "
        "USING (shard_id) WHERE f.digest = ? AND list_contains(s.variants, 'raw')",
        [digest],
    ).fetchall()
    return {sha256: StoredRaw(root / path, row, checksum) for sha256, path, row, checksum in rows}


def stored_variants(connection: duckdb.DuckDBPyConnection, digest: str, root: Path) -> dict[str, set[str]]:
    """Return the variants stored under ``digest`` by image SHA-256, in whatever data set, where the shard is whole."""
    shards = connection.execute(
        "SELECT DISTINCT s.shard_id, s.path, s.bytes, s.variants FROM manifest.shards s "
        "JOIN manifest.features f USING (shard_id) WHERE f.digest = ?",
        [digest],
    ).fetchall()
    root = listed(root) if len(shards) > 1 else root
    whole = {shard_id: set(variants) for shard_id, path, size, variants in shards if is_whole(root / path, size)}
    rows = connection.execute("SELECT sha256, shard_id FROM manifest.features WHERE digest = ?", [digest]).fetchall()
    return {sha256: whole[shard_id] for sha256, shard_id in rows if shard_id in whole}


def is_whole(path: Path, size: int) -> bool:
    """Whether a sealed shard is still there at its full length; its checksums are verified elsewhere."""
    try:
        return path.stat().st_size == size
    except OSError:
        return False


def failed_steps(connection: duckdb.DuckDBPyConnection, digest: str) -> dict[str, str]:
    """Return the step at which each image failed before, by SHA-256. Step ``read`` may pass next time."""
    rows = connection.execute("SELECT sha256, step FROM failures WHERE digest = ?", [digest]).fetchall()
    return {sha256: step for sha256, step in rows if sha256}


def average_seconds(connection: duckdb.DuckDBPyConnection, digest: str) -> float | None:
    """Return the mean time an image took under this recipe [s], None where nothing is stored yet."""
    row = connection.execute("SELECT avg(seconds) FROM manifest.features WHERE digest = ?", [digest]).fetchone()
    return float(row[0]) if row and row[0] is not None else None


def unique(images: Iterable[Planned]) -> list[Planned]:
    """Keep the first image of each SHA-256: the same bytes are computed once."""
    seen: dict[str, Planned] = {}
    for image in images:
        seen.setdefault(image.sha256, image)
    return list(seen.values())


def shard_size(decomposer: Decomposer) -> int:
    """Return how many samples a shard holds: by the cost of a sample, never by the clock, so that it is reproducible."""
    return max(1, min(SAMPLES_PER_SHARD, FORWARDS_PER_SHARD // decomposer.forwards_per_image))
