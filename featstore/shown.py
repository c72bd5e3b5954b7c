"""Images of a version to be drawn: of each photograph what its features show, and their maps."""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from .compute import VARIANTS
from .errors import InputError, NotInStoreError, QueryError
from .geometry import Geometry
from .images import decode
from .manifest import first_line
from .members import naming, read_bytes
from .places import images_folder, placed
from .query import check_condition, restricted
from .reading import ShardPool
from .versions import Version, find_version

__all__ = ["Chosen", "Entry", "Shown", "choose_images", "choose_sequence"]

DERIVABLE = {"raw", "clean", "artifact"}
LISTED = 6
PIXELS = 1024
"""Longest side at which photographs are kept."""


@dataclass(frozen=True)
class Shown:
    """One image: its photograph (h, w, 3), what the features show of it; (H, W, C) maps by variant."""

    image_id: str
    photograph: NDArray[np.uint8]
    maps: dict[str, NDArray[np.float32]]


@dataclass(frozen=True)
class Entry:
    """Where one image lies."""

    image_id: str
    photograph: Path
    shard: Path
    row: int
    variants: frozenset[str]


@dataclass(frozen=True)
class Chosen:
    """Images of a version, read as they are iterated; ``variants`` are those that all of them have."""

    version: Version
    recipe: dict[str, Any]
    entries: tuple[Entry, ...]
    variants: tuple[str, ...]
    absent: tuple[str, ...]
    """Variants asked for that they have not all."""

    def __len__(self) -> int:
        return len(self.entries)

    def __iter__(self) -> Iterator[Shown]:
        """Yield each image. Raises DecodeError, naming the file, for a photograph that cannot be read."""
        for entry, maps in self.maps():
            yield Shown(entry.image_id, self.photograph(entry), maps)

    def maps(self) -> Iterator[tuple[Entry, dict[str, NDArray[np.float32]]]]:
        """Yield the maps of each image by variant, and where they lie."""
        shards = list(dict.fromkeys(entry.shard for entry in self.entries))
        pool = ShardPool(shards)
        for entry in self.entries:
            reader = pool[shards.index(entry.shard)]
            yield entry, {name: reader.read(name, entry.row).astype(np.float32) for name in self.variants}

    def photograph(self, entry: Entry) -> NDArray[np.uint8]:
        """Return what the features show of a photograph (h, w, 3), of at most ``PIXELS``; raises as iterating does."""
        geometry = Geometry.of(self.recipe)
        photograph = read_photograph(entry.photograph)
        return smaller(geometry.cut(photograph) if geometry else photograph)

    def evenly(self, count: int) -> "Chosen":
        """Return at most ``count`` of the images, evenly from the first to the last."""
        at = np.unique(np.linspace(0, len(self) - 1, min(count, len(self))).round().astype(int))
        return Chosen(self.version, self.recipe, tuple(self.entries[n] for n in at), self.variants, self.absent)

    @property
    def title(self) -> str:
        """Return what it is, in a line."""
        backbone = self.recipe.get("backbone", {})
        size = f", input {'×'.join(map(str, backbone['input']))}" if "input" in backbone else ""
        return f"{self.version.name}: {self.version.method} of {backbone.get('id', self.version.backbone)}{size}"


def choose_images(
    root: Path, name: str, image_ids: Sequence[str], variants: Sequence[str], where: str | None, limit: int
) -> Chosen:
    """Choose the images listed, as listed, or else the first ``limit`` by image_id for which ``where`` holds.

    Raises NotInStoreError for an unknown version, for an image that it does not hold (naming the nearest) and where nothing is
    left, InputError for unknown variants, QueryError for a wrong condition.
    """
    if image_ids and where:
        raise InputError("--where chooses images where none are named: give one or the other")
    with restricted(root) as connection:
        version = find_version(connection, name)
        if not image_ids:
            return chosen(connection, root, version, variants, where=where, limit=limit)
        listed = tuple(dict.fromkeys(image_ids))
        held = chosen(connection, root, version, variants, "list_contains($listed, image_id)", given={"listed": listed})
        entries = {entry.image_id: entry for entry in held.entries}
        for image_id in listed:
            if image_id not in entries:
                raise unknown_image(connection, version, image_id)
    return Chosen(version, held.recipe, tuple(entries[name] for name in listed), held.variants, held.absent)


def choose_sequence(root: Path, name: str, part: str | None, where: str | None, variants: Sequence[str]) -> Chosen:
    """Choose the frames of one sequence, ``<part>/<frame>``, by image_id; ``where`` may choose any frames instead, or some.

    With neither, all images, where they are one sequence. Raises as ``choose_images``, and NotInStoreError, naming
    sequences that there are, for another.
    """
    with restricted(root) as connection:
        version = find_version(connection, name)
        sequences = sequences_of(connection, version)
        if part is None and where is None and len(sequences) > 1:
            raise InputError(
                f"{version.name} holds {len(sequences)} sequences: choose one by --part, of {some(sequences)}"
            )
        if part is not None and part.rstrip("/") not in sequences:
            raise NotInStoreError(f"{version.name} holds no sequence {part!r}; there are: {some(sequences)}")
        condition = "true" if part is None else f"{SEQUENCE} = $part"
        own = {} if part is None else {"part": part.rstrip("/")}
        return chosen(connection, root, version, variants, condition, where, given=own)


SEQUENCE = "regexp_replace(image_id, '/?[^/]*$', '')"
"""The sequence that a frame is of, '' for a frame of none."""


def sequences_of(connection: duckdb.DuckDBPyConnection, version: Version) -> list[str]:
    """Return the names of a version's sequences."""
    sql = f"SELECT DISTINCT {SEQUENCE} FROM stored WHERE dataset = ? AND backbone = ? AND version = ? ORDER BY 1"
    rows = connection.execute(sql, [version.dataset, version.backbone, f"v{version.number}"]).fetchall()
    return [row[0] for row in rows]


def some(names: Sequence[str]) -> str:
    """Return some names in words."""
    more = f" and {len(names) - LISTED} more" if len(names) > LISTED else ""
    return ", ".join(name or "(no folder)" for name in names[:LISTED]) + more


def chosen(
    connection: duckdb.DuckDBPyConnection,
    root: Path,
    version: Version,
    variants: Sequence[str],
    condition: str = "true",
    where: str | None = None,
    limit: int | None = None,
    given: Mapping[str, Any] | None = None,
) -> Chosen:
    """Return the images of a version for which our condition, of the values given, and the user's hold."""
    wrong = [name for name in variants if name not in VARIANTS]
    if wrong:
        raise InputError(f"unknown variant {wrong[0]!r}: choose from {', '.join(VARIANTS)}")
    if not variants:
        raise InputError(f"name a variant at least: {', '.join(VARIANTS)}")
    if where:
        check_condition(where)
    sql = (
        "SELECT image_id, path, shard, shard_row, variants FROM (SELECT * FROM stored WHERE dataset = $dataset "
        f"AND backbone = $backbone AND version = $version) AS stored WHERE {condition} AND ({where or 'true'}\n) "
        "ORDER BY image_id LIMIT $most"
    )
    own = {"dataset": version.dataset, "backbone": version.backbone, "version": f"v{version.number}"}
    try:
        rows = connection.execute(sql, own | {"most": limit or 1 << 40} | dict(given or {})).fetchall()
    except duckdb.Error as error:
        raise QueryError(f"--where {where!r}: {first_line(str(error))}") from error
    if not rows and "listed" not in (given or {}):
        raise NotInStoreError(
            f"no stored image of {version.name} is left" + (f" by --where {where!r}" if where else "")
        )
    source, recipe = connection.execute(
        "SELECT source, recipe FROM versions JOIN datasets USING (dataset) WHERE version_id = ?", [version.version_id]
    ).fetchall()[0]
    folder = images_folder(source)
    entries = tuple(Entry(r[0], placed(folder, r[1]), root / r[2], r[3], had(r[4])) for r in rows)
    common = frozenset(VARIANTS).intersection(*(entry.variants for entry in entries))
    kept = tuple(name for name in VARIANTS if name in variants and name in common)
    absent = tuple(name for name in variants if name not in common)
    if not kept:
        raise NotInStoreError(f"{version.name} does not store {', '.join(variants)} of all images chosen")
    return Chosen(version, json.loads(recipe), entries, kept, absent)


def had(variants: Sequence[str]) -> frozenset[str]:
    """Return which variants can be read of those stored: the residual is what the three others leave."""
    return frozenset(variants) | ({"residual"} if set(variants) >= DERIVABLE else set())


def unknown_image(connection: duckdb.DuckDBPyConnection, version: Version, image_id: str) -> NotInStoreError:
    """Return the error that an image is not held, with the names most like it."""
    rows = connection.execute(
        "SELECT image_id FROM stored WHERE dataset = ? AND backbone = ? AND version = ? "
        "ORDER BY jaro_winkler_similarity(lower(image_id), lower(?)) DESC, image_id LIMIT 3",
        [version.dataset, version.backbone, f"v{version.number}", image_id],
    ).fetchall()
    near = f"; the nearest names: {', '.join(row[0] for row in rows)}" if rows else ""
    return NotInStoreError(f"{version.name} holds no image {image_id!r}{near}")


def read_photograph(path: Path) -> NDArray[np.uint8]:
    """Read a photograph; raises DecodeError, naming the file."""
    with naming(path):
        return decode(read_bytes(path))


def smaller(photograph: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Return a photograph of at most ``PIXELS``."""
    if max(photograph.shape) <= PIXELS:
        return photograph
    picture = Image.fromarray(photograph)
    picture.thumbnail((PIXELS, PIXELS), Image.Resampling.LANCZOS)
    return np.asarray(picture)
