"""What tasks are judged by: which images, and their masks and depth maps at their own size, where features show them."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from .errors import InputError, NotInStoreError
from .labelled import JUDGED
from .masks import read_depth
from .members import naming, read_bytes
from .query import check_dataset, viewed
from .selection import select_samples
from .versions import Version, find_version

if TYPE_CHECKING:
    from .dataset import FeatureDataset

__all__ = [
    "IGNORED",
    "Parts",
    "classes_of",
    "common_images",
    "depth_of",
    "digest_of",
    "folds_of",
    "labels_of",
    "parts_of",
    "stored_variants",
    "versions_named",
]

IGNORED = -1
SPLITS = ("lower(split) = 'train'", f"lower(split) IN {JUDGED}")
HALVES = ("sha256 < '8'", "sha256 >= '8'")
COLUMNS = {None: "true", "mask": "mask_path IS NOT NULL", "depth": "depth_path IS NOT NULL"}
COLUMNS |= {"box": "image_id IN (SELECT image_id FROM objects)"}
CALLED = {None: "", "mask": " with a mask", "depth": " with a depth map", "box": " with a box of an object"}


@dataclass(frozen=True)
class Parts:
    """image_ids to learn from and to judge by, which all versions hold, and the conditions that told them apart."""

    train: tuple[str, ...]
    val: tuple[str, ...]
    where: tuple[str, str]


def digest_of(parts: Sequence[Parts]) -> str:
    """Return 12 hex digits of the SHA-256 of all lists of images."""
    lists = "\n\n".join("\n".join((*one.train, "", *one.val)) for one in parts)
    return hashlib.sha256(lists.encode()).hexdigest()[:12]


def versions_named(root: Path, names: Sequence[str]) -> list[Version]:
    """Return versions of one data set by name; raises NotInStoreError, InputError for several data sets."""
    with viewed(root) as connection:
        found = list(dict.fromkeys(find_version(connection, name) for name in names))
        check_dataset(connection, found[0].dataset)
    sets = sorted({version.dataset for version in found})
    if len(sets) > 1:
        raise InputError(f"versions of one data set can be compared, these are of {', '.join(sets)}")
    return found


def stored_variants(root: Path, version: Version) -> tuple[str, ...]:
    """Return the variants that every shard of a version holds."""
    with viewed(root, version.dataset) as connection:
        rows = connection.execute("SELECT DISTINCT variants FROM stored WHERE digest = ?", [version.digest]).fetchall()
    held = [set(row[0]) for row in rows]
    return tuple(name for name in rows[0][0] if all(name in one for one in held)) if rows else ()


def parts_of(
    root: Path,
    wanted: Sequence[tuple[Version, tuple[str, ...]]],
    train: str | None = None,
    val: str | None = None,
    needs: str | None = None,
) -> Parts:
    """Return the images that all versions hold, with all their variants, in two parts.

    ``train`` and ``val`` are SQL conditions; without both they are the split train and those called val or test, or, where
    one of these is empty, two halves by the first digit of SHA-256. ``needs`` is mask or depth: images without are left
    out. Raises NotInStoreError where nothing is left, InputError where the parts share images, QueryError.
    """
    if (train is None) != (val is None):
        raise InputError("give both --train-where and --val-where, or neither")
    given = None if train is None or val is None else (train, val)
    for where in (given,) if given else (SPLITS, HALVES):
        try:
            first, second = (common_images(root, wanted, condition, needs) for condition in where)
        except NotInStoreError:
            if given:
                raise
            continue
        shared = set(first) & set(second)
        if shared:
            raise InputError(f"{len(shared)} images are both to train on and to judge by, such as {min(shared)}")
        return Parts(first, second, where)
    names = " and ".join(version.name for version, _ in wanted)
    raise NotInStoreError(f"{names}: not enough images{CALLED[needs]} to train on and to judge by")


def folds_of(
    root: Path,
    wanted: Sequence[tuple[Version, tuple[str, ...]]],
    folds: int,
    where: str = "true",
    needs: str | None = None,
) -> tuple[Parts, ...]:
    """Return ``folds`` ways to part the images for which ``where`` holds: each is judged once, by what the others teach.

    Images go to folds in turns, in the order of their SHA-256, the same bytes under two names to one fold. Raises as
    ``common_images``, and InputError for fewer images than folds.
    """
    ids = common_images(root, wanted, where, needs)
    with viewed(root, wanted[0][0].dataset) as connection:
        shas = dict(connection.execute("SELECT image_id, sha256 FROM images").fetchall())
    turns = {sha: turn % folds for turn, sha in enumerate(sorted({shas[name] for name in ids}))}
    if len(turns) < folds:
        raise InputError(f"{folds} folds need as many images{CALLED[needs]}: {where!r} leaves {len(turns)}")
    told = (f"{folds - 1} of {folds} folds", where)
    parts = []
    for fold in range(folds):
        judged = tuple(name for name in ids if turns[shas[name]] == fold)
        parts.append(Parts(tuple(name for name in ids if turns[shas[name]] != fold), judged, told))
    return tuple(parts)


def common_images(
    root: Path, wanted: Sequence[tuple[Version, tuple[str, ...]]], where: str, needs: str | None = None
) -> tuple[str, ...]:
    """Return the image_ids for which a condition holds in all versions, sorted; raises NotInStoreError for none."""
    found: NDArray[np.bytes_] | None = None
    for version, variants in wanted:
        own = version.dataset, version.backbone, variants, f"v{version.number}"
        ids = select_samples(root, *own, f"({where}\n) AND {COLUMNS[needs]}", files=False).ids
        found = ids if found is None else np.intersect1d(found, ids, assume_unique=True)
    if found is None or not len(found):
        raise NotInStoreError(f"no image{CALLED[needs]} is left by {where!r} in all versions")
    return tuple(name.decode() for name in found.tolist())


def classes_of(data: "FeatureDataset") -> tuple[int, ...] | None:
    """Return the labels that count, in order; None where the layout names none."""
    names = data.mask_classes
    if names is None:
        return None
    return tuple(label for label, name in enumerate(names) if name and label not in data.mask_ignored)


def labels_of(data: "FeatureDataset", place: int) -> NDArray[np.int64]:
    """Return the label mask (h, w) of what features show of an image, at the image's own size; −1 for what is ignored.

    ``data`` was opened with ``mask=True``. Raises DecodeError naming the file.
    """
    extras = data.extras
    path = extras.located(extras.masks, place)
    with naming(path):
        mask = extras.read_mask(read_bytes(path), path=path).astype(np.int64)
    mask = mask if extras.geometry is None else extras.geometry.cut(mask)
    return np.where(np.isin(mask, list(data.mask_ignored)), IGNORED, mask)


def depth_of(data: "FeatureDataset", place: int, crop: tuple[int, int, int, int] | None = None) -> NDArray[np.float32]:
    """Return the depth map (h, w) [m] of what features show of an image, at its own size; 0 for what is not known.

    ``crop`` (top, bottom, left, right) leaves only that part known, of a map of 480 × 640. ``data`` was opened with
    ``depth=True``. Raises DecodeError naming the file, InputError where nobody says what a unit is.
    """
    extras, metres = data.extras, data.depth_metres
    if metres is None:
        raise InputError(
            "nobody says how long a unit of these depth maps is: index the data set with a layout that does"
        )
    path = extras.located(extras.depths, place)
    with naming(path):
        depth = read_depth(read_bytes(path)) * np.float32(metres)
    if crop is not None and depth.shape == (480, 640):
        top, bottom, left, right = crop
        kept = np.zeros_like(depth)
        kept[top:bottom, left:right] = depth[top:bottom, left:right]
        depth = kept
    return depth if extras.geometry is None else extras.geometry.cut(depth)
