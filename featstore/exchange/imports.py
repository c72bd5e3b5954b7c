"""Import features from a folder: read what there is, match it with a data set's images, store it as a version."""

import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from featstore.build import Listener, build_version
from featstore.compute import VARIANTS
from featstore.errors import InputError, SourceError
from featstore.filters import NONE
from featstore.plan import Request, make_plan
from featstore.quantise import DERIVABLE, checksum, quantise
from featstore.query import viewed
from featstore.recipe import Recipe
from featstore.root import check_name

from .folder import ABOUT, about_of
from .formats import Reader, ReadTask, make_reader
from .imported import Described, Imported, shapes_of
from .matching import Entry, Image, Unmatched, match
from .source import PREFIX

__all__ = ["ImportReport", "ImportRequest", "import_version"]

COMPARED = 8


@dataclass(frozen=True)
class ImportRequest:
    """What an import is asked for.

    ``backbone`` names the store's folder; None takes what the export tells. ``facts`` are what is known of the model, as the
    recipe's ``backbone`` has it: input, layer, stride. ``note`` tells apart what nothing else does. ``grid`` is (H, W) of maps
    that lie as (H·W, C). ``codec`` is the lossless filter of the shards. ``environment`` goes into shards, ``provenance`` into
    the manifest.
    """

    folder: Path
    dataset: str
    backbone: str | None = None
    format: str | None = None
    variants: tuple[str, ...] = ()
    model: str | None = None
    channels: str | None = None
    grid: tuple[int, int] | None = None
    facts: Mapping[str, Any] = field(default_factory=dict)
    note: str | None = None
    shard_size: int | None = None
    codec: str = NONE
    environment: Mapping[str, str] = field(default_factory=dict)
    provenance: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class ImportReport:
    """What an import did; counts are images. ``without`` are images of the data set that the folder has nothing of."""

    version: str | None
    format: str
    variants: tuple[str, ...]
    grid: tuple[int, int]
    channels: int
    digest: str
    found: int
    matched: int
    imported: int
    present: int
    failed: int
    without: int
    unmatched: tuple[Unmatched, ...]
    bytes: int
    seconds: float


def import_version(
    root: Path, request: ImportRequest, listener: Listener | None = None, dry_run: bool = False
) -> ImportReport:
    """Store the features of a folder as a version with the method ``imported``.

    What is stored already is not stored again; killed and called again, it goes on. Raises SourceError for a folder without
    features, InputError where the folder or the request does not do, or where other features are stored under the same
    description, and what ``build_version`` raises.
    """
    began = time.monotonic()
    folder = request.folder.expanduser().absolute()
    if not folder.is_dir():
        raise SourceError(f"there is no folder {folder}: give the one that holds the features")
    about = about_of(folder)
    name = request.format or (about["format"] if about else detect(folder))
    images = images_of(root, request.dataset)
    reader = make_reader(name, ReadTask(folder, about, request.variants, request.model or request.backbone))
    entries = reader.entries()
    if not entries:
        raise SourceError(f"{folder} holds no features as {name}")
    found, left = match(entries, images)
    if not found:
        raise InputError(f"no image of {request.dataset} matches; {left[0].name}: {left[0].reason}")
    decomposer = make_decomposer(request, reader, about, list(found.values()))
    backbone = check_name(request.backbone or (str(about["backbone"]) if about else str(getattr(reader, "model", ""))))
    build = Request(
        request.dataset,
        backbone,
        decomposer.variants,
        shard_size=request.shard_size,
        codec=request.codec,
        environment=dict(request.environment),
        provenance=dict(request.provenance),
        given=found,
    )
    digest = Recipe.of(decomposer.recipe()).digest
    check_same(root, request.dataset, digest, decomposer, found)
    plan = make_plan(root, build, decomposer)
    facts: dict[str, Any] = {"imported": len(plan.todo), "present": plan.present, "bytes": plan.bytes_to_write}
    facts |= {"version": None, "failed": 0}
    if not dry_run:
        report = build_version(root, build, decomposer, listener)
        facts = {"imported": report.computed, "present": report.present, "bytes": report.bytes}
        facts |= {"version": f"{report.dataset}/{report.backbone}/{report.version}", "failed": report.failed}
    return ImportReport(
        format=name,
        variants=decomposer.variants,
        grid=decomposer.grid,
        channels=decomposer.width,
        digest=digest,
        found=len(entries),
        matched=plan.wanted,
        without=len(images) - plan.wanted,
        unmatched=tuple(left),
        seconds=time.monotonic() - began,
        **facts,
    )


def detect(folder: Path) -> str:
    """Return the format of a folder that no export of ours wrote; raises InputError where it shows none."""
    if (folder / "raw_features").is_dir() or (folder / "denoised_features").is_dir():
        return "dvt"
    if next(folder.rglob("*.npy"), None) is not None:
        return "npy"
    raise InputError(f"{folder} holds no {ABOUT} of an export, no raw_features and no .npy file")


def images_of(root: Path, dataset: str) -> list[Image]:
    """Return a data set's current images."""
    with viewed(root, dataset) as connection:
        rows = connection.execute("SELECT image_id, path, sha256 FROM images ORDER BY image_id").fetchall()
    return [Image(*row) for row in rows]


def make_decomposer(
    request: ImportRequest, reader: Reader, about: dict[str, Any] | None, entries: list[Entry]
) -> Imported:
    """Return what stands for the computing: the reader, the shapes that the first files have, and what is known of them."""
    if wrong := [name for name in request.variants if name not in reader.variants]:
        unknown = "unknown variant" if wrong[0] not in VARIANTS else "there is no"
        raise InputError(f"{unknown} {wrong[0]}: {request.folder} holds {', '.join(reader.variants)}")
    variants = [name for name in reader.variants if not request.variants or name in request.variants]
    if "residual" in variants and not set(DERIVABLE) <= set(variants):
        raise InputError("the residual follows from raw, clean and artifact: import these with it, or leave it out")
    channels = reader.channels or request.channels or "last"
    shapes = shapes_of(reader, entries, variants, channels, request.grid)
    return Imported(reader, shapes, describe(request, reader, about), channels, request.grid)


def describe(request: ImportRequest, reader: Reader, about: dict[str, Any] | None) -> Described:
    """Return what is known of the features: all of it, where an export of ours tells."""
    note = {"note": request.note} if request.note else {}
    if about is not None:
        recipe = about["recipe"]
        origin = {"of": about["digest"], "origin": recipe.get("method", {})}
        return Described({**recipe.get("backbone", {}), **request.facts}, origin | note)
    model = getattr(reader, "model", None) or request.model or request.backbone
    if not model:
        raise InputError("say with --backbone which model the features are of")
    return Described({"id": model, **request.facts}, note)


def check_same(root: Path, dataset: str, digest: str, decomposer: Imported, found: Mapping[str, Entry]) -> None:
    """Raise InputError where a few of the images stored under this description have other features than the folder's."""
    with viewed(root, dataset) as connection:
        columns = [name for name in decomposer.variants if name != PREFIX]
        sums = ", ".join(f"checksum_{name}" for name in columns)
        rows = connection.execute(
            f"SELECT sha256, {sums} FROM manifest.features WHERE digest = ? ORDER BY sha256", [digest]
        ).fetchall()
    known = [row for row in rows if row[0] in found]
    for sha256, *expected in known[:: max(1, len(known) // COMPARED)][:COMPARED]:
        try:
            maps = quantise(decomposer.prepare_given(found[sha256]), columns)
        except (OSError, ValueError):
            continue  # what cannot be read is told where it is imported
        if any(
            value is not None and checksum(maps[name]) != value for name, value in zip(columns, expected, strict=True)
        ):
            raise InputError(
                f"other features of {found[sha256].name} are stored already under the same description: "
                "say with --note what these are, and they become a version of their own"
            )
