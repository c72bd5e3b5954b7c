"""Croissant: a version described as JSON-LD, with tables of its images and its shards beside it."""

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from .croissant_metadata import Authorship, Described, metadata
from .croissant_tables import IMAGES, SHARDS, copy_images, image_columns, listed_shards, write_shards
from .errors import NotInStoreError
from .query import restricted
from .root import version_folder
from .sealing import sealed, storing, write_text
from .versions import find_version

__all__ = ["Authorship", "CroissantReport", "write_croissant"]

METADATA = "croissant.json"


@dataclass(frozen=True)
class CroissantReport:
    """What was written; ``bytes`` is the shards' size."""

    version: str
    metadata: str
    images: int
    shards: int
    bytes: int


def write_croissant(
    root: Path,
    name: str,
    folder: Path | None = None,
    authorship: Authorship | None = None,
    started: Callable[[int], None] = lambda size: None,
    advanced: Callable[[int], None] = lambda size: None,
) -> CroissantReport:
    """Write ``croissant.json``, ``croissant-images.parquet`` and ``croissant-shards.parquet`` of a version into ``folder``.

    None is the version's own folder. Every shard is read once for its SHA-256, unless the table of an earlier export in the
    same folder has it; ``started`` and ``advanced`` are told of bytes. Raises NotInStoreError for an unknown version or one
    without images, StoreError where the folder cannot be written, CorruptError where a shard cannot be read.
    """
    authorship = authorship or Authorship()
    with restricted(root) as connection:
        version = find_version(connection, name)
    folder = (folder or version_folder(root, version.dataset, version.backbone, version.digest)).absolute()
    with storing(folder):
        folder.mkdir(parents=True, exist_ok=True)
    with (
        sealed(folder / IMAGES) as temporary,
        restricted(root, writable=temporary) as connection,
    ):
        columns, images = image_columns(connection, root, version)
        if not images:
            raise NotInStoreError(f"{version.name} holds no image yet: build it first")
        copy_images(connection, version, columns, temporary)
        found = listed_shards(connection, version)
        recipe, provenance, created = connection.execute(
            "SELECT recipe, provenance, created_at FROM versions WHERE version_id = ?", [version.version_id]
        ).fetchall()[0]
    started(sum(shard.bytes for shard in found))
    shards = write_shards(root, found, folder / SHARDS, advanced)
    variants = sorted({name for shard in shards for name in shard.variants}, key=lambda name: (name != "raw", name))
    told = Described(
        *(version, json.loads(recipe), json.loads(provenance), created.isoformat(timespec="seconds")),
        *(tuple(variants), tuple(columns), images, tuple(shards)),
    )
    document = metadata(told, authorship, root, folder, str(recipe))
    with storing(folder / METADATA):
        write_text(folder / METADATA, json.dumps(document, indent=1, ensure_ascii=False) + "\n")
    size = sum(shard.bytes for shard in shards)
    return CroissantReport(version.name, str(folder / METADATA), images, len(shards), size)
