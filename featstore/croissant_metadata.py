"""What a Croissant file says of a version: JSON-LD of MLCommons' vocabulary 1.0."""

import hashlib
import json
import os
from contextlib import suppress
from dataclasses import dataclass, field
from importlib.resources import files
from pathlib import Path
from typing import Any

from .croissant_tables import IMAGES, SHARDS, Column, Listed
from .difference import flatten
from .places import as_remote
from .root import version_folder
from .versions import Version

__all__ = ["Authorship", "Described", "metadata"]

CONFORMS = "http://mlcommons.org/croissant/1.0"
FILES_NAMED = 1000
"""Shards that the metadata lists one by one; of more it names the pattern, and the table of shards holds the checksums."""

KINDS = {"json": "application/json", "h5": "application/x-hdf5", "parquet": "application/x-parquet"}
CITATION = (
    "@inproceedings{yang2024dvt, title={Denoising Vision Transformers}, author={Yang, Jiawei and Luo, Katie Z and "
    "Li, Jiefeng and Deng, Congyue and Guibas, Leonidas and Krishnan, Dilip and Weinberger, Kilian Q and Tian, Yonglong "
    "and Wang, Yue}, booktitle={European Conference on Computer Vision}, year={2024}, eprint={2401.02957}, "
    "archivePrefix={arXiv}}"
)


@dataclass(frozen=True)
class Authorship:
    """What only the user knows: ``base_url`` is where the store's root will be found; licence and page are URLs."""

    license: str | None = None
    url: str | None = None
    creator: str | None = None
    description: str | None = None
    base_url: str | None = None


@dataclass(frozen=True)
class Described:
    """All that the metadata says."""

    version: Version
    recipe: dict[str, Any]
    provenance: dict[str, Any]
    created: str
    variants: tuple[str, ...]
    columns: tuple[Column, ...]
    images: int
    shards: tuple[Listed, ...] = field(repr=False)


def metadata(told: Described, by: Authorship, root: Path, folder: Path, recipe: str) -> dict[str, Any]:
    """Return the JSON-LD document; ``recipe`` is the canonical text, whose SHA-256 the digest is."""
    version = told.version
    context = json.loads(files("featstore.schemas").joinpath("croissant.context.json").read_text(encoding="utf-8"))
    facts = {
        "license": by.license,
        "url": by.url,
        "creator": {"@type": "sc:Organization", "name": by.creator} if by.creator else None,
    }
    entries = [*flatten({"recipe": told.recipe}), *flatten({"provenance": told.provenance})]
    return {
        "@context": context,
        "@type": "sc:Dataset",
        "conformsTo": CONFORMS,
        "name": f"{version.dataset}-{version.backbone}-v{version.number}",
        "description": by.description or description(told),
        **{key: value for key, value in facts.items() if value is not None},
        "version": f"{version.number}.0.0",
        "datePublished": told.created,
        "keywords": ["dense features", "vision transformer", version.backbone, version.method],
        "citeAs": CITATION,
        "isBasedOn": "https://arxiv.org/abs/2401.02957",
        "identifier": version.digest,
        "additionalProperty": [
            {
                "@type": "sc:PropertyValue",
                "name": name,
                "value": value if isinstance(value, (str, int, float)) else json.dumps(value),
            }
            for name, value in entries
        ],
        "distribution": distribution(told, by, root, folder, recipe),
        "recordSet": record_sets(told),
    }


def description(told: Described) -> str:
    """Return a paragraph."""
    version = told.version
    shape = "×".join(map(str, (*version.grid, version.channels)))
    return (
        f"Dense features of {told.images} images of the data set {version.dataset}, computed with {version.backbone} by "
        f"the method {version.method} of Denoising Vision Transformers (arXiv:2401.02957): {', '.join(told.variants)}, "
        f"{shape} (rows, columns, channels), in HDF5 shards of one sample a chunk. Each image's maps are row `row` of the data "
        "sets named after the variants in the file `shard`."
    )


def distribution(told: Described, by: Authorship, root: Path, folder: Path, recipe: str) -> list[dict[str, Any]]:
    """Return the files: both tables, the recipe, and the shards one by one or, where they are many, by pattern."""
    version = told.version
    tables = [
        (name, folder / name, (folder / name).stat().st_size, sha256_of(folder / name)) for name in (IMAGES, SHARDS)
    ]
    own = version_folder(root, version.dataset, version.backbone, version.digest)
    data = recipe.encode()
    if (own / "recipe.json").is_file():
        tables.append(("recipe.json", own / "recipe.json", len(data), hashlib.sha256(data).hexdigest()))
    listed = [(shard.path, root / shard.path, shard.bytes, shard.sha256) for shard in told.shards]
    many = len(listed) > FILES_NAMED
    found: list[dict[str, Any]] = [
        {
            "@type": "cr:FileObject",
            "@id": identity,
            "name": identity,
            "contentUrl": address(path, by, root, folder),
            "contentSize": f"{size} B",
            "encodingFormat": KINDS[path.suffix[1:]],
            "sha256": digest,
        }
        for identity, path, size, digest in [*tables, *([] if many else listed)]
    ]
    if many:
        places = sorted({Path(shard.path).parent for shard in told.shards})
        patterns = [address(root / place, by, root, folder) for place in places]
        found.append(
            {
                "@type": "cr:FileSet",
                "@id": "shards-files",
                "name": "shards-files",
                "description": f"{len(listed)} shards; the record set `shards` holds size and SHA-256 of each",
                "includes": [f"{pattern}/shard-*.h5".removeprefix("./") for pattern in patterns],
                "encodingFormat": KINDS["h5"],
            }
        )
    return found


def address(path: Path, by: Authorship, root: Path, folder: Path) -> str:
    """Return where a file is found: below the base URL, else from the metadata's folder on, else its own URL."""
    with suppress(ValueError):
        if by.base_url:
            return f"{by.base_url.rstrip('/')}/{path.relative_to(root).as_posix()}"
    remote = as_remote(path)
    if remote is not None:
        with suppress(ValueError):
            return remote.relative_to(folder).as_posix()
        return str(remote)
    return Path(os.path.relpath(path, folder)).as_posix()


def record_sets(told: Described) -> list[dict[str, Any]]:
    """Return the record sets ``images`` and ``shards``, a field a column."""
    shards = (
        Column("path", "sc:Text", "below the store's root"),
        Column("samples", "sc:Integer", "images that it holds"),
        Column("variants", "sc:Text", "maps that it holds", repeated=True),
        Column("bytes", "sc:Integer", "file size [bytes]"),
        Column("sha256", "sc:Text", "of the file"),
    )
    sets = (
        ("images", IMAGES, "image_id", told.columns, "one row an image: where its maps lie, checksums and statistics"),
        ("shards", SHARDS, "path", shards, "one row an HDF5 file"),
    )
    return [
        {
            "@type": "cr:RecordSet",
            "@id": name,
            "name": name,
            "description": text,
            "key": {"@id": f"{name}/{key}"},
            "field": [field_of(name, table, column) for column in columns],
        }
        for name, table, key, columns, text in sets
    ]


def field_of(record_set: str, table: str, column: Column) -> dict[str, Any]:
    """Return one field."""
    told: dict[str, Any] = {"@type": "cr:Field", "@id": f"{record_set}/{column.name}", "name": column.name}
    told |= {"description": column.description or column.name, "dataType": column.kind}
    if column.repeated:
        told["repeated"] = True
    return told | {"source": {"fileObject": {"@id": table}, "extract": {"column": column.name}}}


def sha256_of(path: Path) -> str:
    """Return the SHA-256 of a small file."""
    return hashlib.sha256(path.read_bytes()).hexdigest()
