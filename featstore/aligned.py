"""Versions side by side: the samples that all of them hold, one place an image."""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .errors import InputError, NotInStoreError
from .reading import ShardPool
from .selection import Selection, select_samples
from .versions import Version

__all__ = ["Column", "Request", "Stored", "one_grid", "open_aligned"]

QUERY = re.compile(r"\s*(SELECT|WITH|FROM)\b", re.IGNORECASE)
SHOWN = 3  # how many missing images an error names


@dataclass(frozen=True)
class Request:
    """Variants of one version; ``version`` None is the newest that stores them. ``prefix`` is put before the keys."""

    backbone: str
    variants: tuple[str, ...]
    version: str | None = None
    prefix: str = ""


@dataclass(frozen=True)
class Column:
    """One variant as an item shows it: its key, its name in the shard, its place among the checksums."""

    key: str
    name: str
    number: int


@dataclass
class Stored:
    """One version's samples, in the order that all versions share: shard and row of each (N,), checksums (N, variants).

    ``grids`` (S, 2) are rows and columns of patches of each shard.
    """

    version: Version
    recipe: dict[str, Any]
    columns: tuple[Column, ...]
    prefix: str
    pool: ShardPool
    shard: NDArray[np.int32]
    row: NDArray[np.int32]
    checksums: NDArray[np.uint64]
    grids: NDArray[np.int64]

    @property
    def ragged(self) -> bool:
        """Whether its samples are on more than one grid."""
        return bool((self.grids != self.grids[0]).any())

    def grid(self, place: int) -> tuple[int, int]:
        """Return (H, W) [patches] of one sample."""
        height, width = self.grids[self.shard.item(place)].tolist()
        return height, width


@dataclass(frozen=True)
class Aligned:
    """What ``open_aligned`` found, a place an image.

    image_ids are UTF-8 bytes (N,); ``sorter`` sorts them where they are not sorted; ``images`` and ``masks`` are paths below
    ``source``, without one where files were not asked for; ``left_out`` counts, by the version's key, images that it holds and
    another version does not.
    """

    ids: NDArray[np.bytes_]
    sorter: NDArray[np.intp] | None
    stored: tuple[Stored, ...]
    source: Path
    images: NDArray[np.bytes_]
    masks: NDArray[np.bytes_]
    left_out: dict[str, int]


def open_aligned(
    root: Path,
    dataset: str,
    requests: Sequence[Request],
    where: str | None,
    image_ids: Sequence[str] | None,
    verify: bool,
    files: bool = True,
) -> Aligned:
    """Find the images that every version holds and ``where`` leaves in each, by image_id, or those listed, as listed.

    Raises NotInStoreError where nothing is left or an image listed is not there, and what ``select_samples`` raises.
    """
    condition = f"image_id IN ({where}\n)" if where and QUERY.match(where) else where
    found = [select_samples(root, dataset, r.backbone, r.variants, r.version, condition, files) for r in requests]
    names = [one.ids for one in found]
    common = names[0]
    for other in names[1:]:
        common = np.intersect1d(common, other, assume_unique=True)
    if not len(common):
        raise NotInStoreError(f"no image is in {' and '.join(one.version.name for one in found)} at once")
    left_out = {r.prefix.rstrip("/"): len(own) - len(common) for r, own in zip(requests, names, strict=True)}
    if image_ids is not None:
        common = listed(common, image_ids, found[0].version.name)
    if common is not names[0]:
        found = [one.take(np.searchsorted(one.ids, common)) for one in found]
    stored = tuple(stored_of(*each, verify) for each in zip(requests, found, strict=True))
    sorter = np.argsort(common) if image_ids is not None else None
    first = found[0]
    return Aligned(common, sorter, stored, first.source, first.paths, first.mask_paths, left_out)


def stored_of(request: Request, found: Selection, verify: bool) -> Stored:
    """Return the samples of one version."""
    columns = tuple(Column(request.prefix + name, name, i) for i, name in enumerate(request.variants))
    at = found.shard, found.row, found.checksums, found.grids
    pool = ShardPool(found.shards, verify=verify)
    return Stored(found.version, json.loads(found.recipe), columns, request.prefix, pool, *at)


def one_grid(grids: NDArray[np.int64]) -> str:
    """Return in words how to take the images of one grid, of those of several samples (N, 2)."""
    seen = np.unique(grids, axis=0, return_counts=True)
    height, width = seen[0][seen[1].argmax()].tolist()
    return f"take one at a time, as with --where 'grid_height = {height} AND grid_width = {width}'"


def listed(held: NDArray[np.bytes_], image_ids: Sequence[str], name: str) -> NDArray[np.bytes_]:
    """Return the images listed, in that order; raises NotInStoreError, naming the first, for those not held."""
    wanted = np.array([image_id.encode() for image_id in image_ids], np.bytes_)
    if not len(wanted):
        raise InputError("image_ids is empty: list an image at least, or leave it out for all")
    at = np.minimum(np.searchsorted(held, wanted), len(held) - 1)
    absent = np.flatnonzero(held[at] != wanted)
    if len(absent):
        some = ", ".join(repr(image_ids[int(i)]) for i in absent[:SHOWN])
        more = f" and {len(absent) - SHOWN} more" if len(absent) > SHOWN else ""
        raise NotInStoreError(f"{some}{more} of the {len(wanted)} images listed: not among the {len(held)} of {name}")
    if len(np.unique(wanted)) < len(wanted):
        raise InputError("image_ids lists an image twice")
    return wanted


def parse_requests(
    dataset: str,
    backbone: str | None,
    version: str | None,
    versions: Mapping[str, str] | None,
    variants: str | Sequence[str] | Mapping[str, Sequence[str]],
) -> tuple[str, list[Request]]:
    """Turn a reader's arguments into the data set and a request a version.

    Raises InputError where they do not go together.
    """
    if versions is not None:
        if backbone is not None or version is not None:
            raise InputError("give versions, or backbone and version, not both")
        return parse_versions(dataset, versions, variants)
    if not dataset:
        raise InputError("name a data set: FeatureDataset(root, dataset, backbone=...)")
    if backbone is None or isinstance(variants, Mapping):
        raise InputError("name a backbone: FeatureDataset(root, dataset, backbone='dinov2_b'), or several versions=")
    return dataset, [Request(backbone, tuple_of(variants), version)]


def parse_versions(
    dataset: str, versions: Mapping[str, str], variants: str | Sequence[str] | Mapping[str, Sequence[str]]
) -> tuple[str, list[Request]]:
    """Turn ``{"dino": "voc/dinov2_s/v1", …}`` into the data set and a request a version, keys ``dino/clean`` ….

    Raises InputError for names of other parts, several data sets, or variants for a key that is not there.
    """
    requests, sets = [], {dataset} - {""}
    if isinstance(variants, Mapping) and variants.keys() != versions.keys():
        raise InputError(f"variants are given for {', '.join(variants)}, versions for {', '.join(versions)}")
    for key, name in versions.items():
        own, *rest = name.strip("/").split("/")
        if not 1 <= len(rest) <= 2 or not all((key, own, *rest)):
            raise InputError(f"{key}: {name!r} names no version: give dataset/backbone, or dataset/backbone/version")
        sets.add(own)
        wanted = tuple_of(variants[key] if isinstance(variants, Mapping) else variants)
        requests.append(Request(rest[0], wanted, rest[1] if len(rest) == 2 else None, f"{key}/"))
    if len(sets) != 1:
        raise InputError(f"versions of one data set can be aligned, these are of {', '.join(sorted(sets)) or 'none'}")
    return sets.pop(), requests


def tuple_of(variants: str | Sequence[str]) -> tuple[str, ...]:
    """Return names; one alone may be given as it is."""
    return (variants,) if isinstance(variants, str) else tuple(variants)


def check_frames(stored: Sequence[Stored]) -> None:
    """Raise InputError where versions show different parts of an image, so that no crop is the same in all."""
    frames = [one.recipe.get("backbone", {}) for one in stored]
    shown = [frame.get("resize") == "shortest" and frame["input"] for frame in frames]
    if any(one != shown[0] for one in shown):
        raise InputError("crop needs versions that show the same part of an image: these differ in --resize")
    grids = [one.grids[one.shard] for one in stored if any(other.ragged for other in stored)]
    if any(not np.array_equal(one, grids[0]) for one in grids):
        raise InputError("crop needs versions of the same grids where images keep their shapes: these differ")


def check_prefix(stored: Sequence[Stored]) -> None:
    """Raise NotInStoreError where a version holds no prefix tokens."""
    for one in stored:
        if not one.version.prefix_tokens:
            raise NotInStoreError(
                f"{one.version.name} holds no prefix tokens: its backbone has none; leave out prefix=True"
            )
