"""nyu_depth_v2_labeled.mat: images, labels, instances and depths in one file, and the split in another."""

import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import h5py

from featstore.errors import DecodeError, SourceError
from featstore.mat_members import opened_mat
from featstore.records import ImageRecord, Meaning, Problem

__all__ = ["labelled_meaning", "read_labelled"]

SPLITS, INDICES = "splits.mat", {"train": "trainNdxs", "test": "testNdxs"}
UNLABELLED = "unlabelled"


def read_labelled(path: Path, name: str) -> Iterator[ImageRecord | Problem]:
    """Yield the images of the labelled file; ``name`` is its path below the source's folder.

    Images are called by their number in the data set, which counts from 1: ``0001``. The split is that of a splits.mat beside
    it. Raises SourceError where the file cannot be read or has no images.
    """
    try:
        with opened_mat(path) as file:
            count, maps = counted(file, path)
            scenes, kinds = texts(file, "scenes", count), texts(file, "sceneTypes", count)
    except (DecodeError, OSError) as error:
        raise SourceError(f"{path}: {error if isinstance(error, DecodeError) else error.strerror}") from error
    split_of: dict[int, str] = {}
    for split in read_splits(path.parent / SPLITS, name[: -len(path.name)] + SPLITS):
        if isinstance(split, Problem):
            yield split
        else:
            split_of |= split
    for number in range(count):
        at = {array: f"{name}::{array}/{number}" for array in maps}
        chosen = split_of.get(number + 1)
        yield ImageRecord(
            f"{number + 1:04d}",
            f"{name}::images/{number}",
            part=scenes[number],
            split=chosen,
            splits=(f"nyu/{chosen}",) if chosen else (),
            label=kinds[number],
            mask_path=at.get("labels"),
            instance_path=at.get("instances"),
            depth_path=at.get("depths"),
        )


def labelled_meaning(path: Path) -> Meaning:
    """Return the classes, of which 0 is what nobody labelled, and that depths are metres."""
    try:
        with opened_mat(path) as file:
            names = texts(file, "names", file["names"].size) if "names" in file else []
    except (DecodeError, OSError):
        names = []
    classes = (UNLABELLED, *(name or "" for name in names)) if names else None
    return Meaning(classes, (0,), depth_metres=1.0)


def counted(file: h5py.File, path: Path) -> tuple[int, list[str]]:
    """Return how many images there are, and which arrays have a map of each; raises DecodeError where there are none."""
    images = file.get("images")
    if not isinstance(images, h5py.Dataset) or images.ndim != 4 or images.shape[1] != 3:
        told = ", ".join(list(file)[:8]) or "nothing"
        raise DecodeError(f"{path.name} has no array `images` of (N, 3, W, H): it holds {told}")
    shape = (images.shape[0], *images.shape[2:])
    arrays = ("labels", "instances", "depths")
    return len(images), [name for name in arrays if name in file and file[name].shape == shape]


def texts(file: h5py.File, name: str, count: int) -> list[str | None]:
    """Return a cell array of words: references, each to the codes of its letters; None for all where there is none."""
    cells = file.get(name)
    if not isinstance(cells, h5py.Dataset) or cells.size != count:
        return [None] * count
    return ["".join(map(chr, file[place][()].ravel())) or None for place in cells[()].ravel()]


def read_splits(path: Path, name: str) -> Iterator[dict[int, str] | Problem]:
    """Yield the split of each image by its number from 1, or why it is not known; nothing where there is no such file."""
    try:
        data = path.read_bytes()
    except OSError:
        return
    try:
        from scipy.io import loadmat
    except ImportError:
        yield Problem(
            name, "split", "a MATLAB file of version 5 needs scipy: python -m pip install scipy, and index again"
        )
        return
    try:
        told: dict[str, Any] = loadmat(io.BytesIO(data))
        yield {int(number): split for split, key in INDICES.items() for number in told[key].ravel()}
    except KeyError as error:
        yield Problem(name, "split", f"it holds no {error.args[0]}: is it the one that belongs to the data set?")
    except Exception as error:  # scipy has many ways to say so
        yield Problem(name, "split", f"damaged, fetch it again: {' '.join(str(error).split())}")
