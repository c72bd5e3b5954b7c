"""Labels, boxes and depth maps of the images chosen, as columns beside the samples."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .codings import INDEX
from .errors import NotInStoreError
from .query import viewed
from .records import Meaning
from .text_columns import text_column

__all__ = ["Boxes", "depth_paths", "labels_of", "meaning_of", "objects_of", "sizes_of"]

OBJECTS = """
    SELECT image_id, class, difficult,
           (xmin - one) / width AS x0, (ymin - one) / height AS y0, xmax / width AS x1, ymax / height AS y1
    FROM objects JOIN images USING (image_id), (SELECT CAST(layout = 'voc' AS INTEGER) AS one FROM datasets)
    ORDER BY image_id, number
"""
"""VOC counts pixels from 1 and has both edges inside: pixel n covers n − 1 to n. Other layouts give the edges themselves, from
0 on. Corners as shares of the image."""

MEANING = "SELECT mask_classes, mask_ignored, mask_coding, depth_metres FROM datasets"


@dataclass(frozen=True)
class Boxes:
    """Boxes of all samples one after the other: those of sample i are ``start[i]`` to ``start[i] + count[i]``.

    ``corners`` (K, 4) are left, top, right, bottom as shares of the image.
    """

    classes: tuple[str, ...]
    start: NDArray[np.int64]
    count: NDArray[np.int64]
    corners: NDArray[np.float32]
    labels: NDArray[np.int16]
    difficult: NDArray[np.bool_]


def fetch(root: Path, dataset: str, sql: str) -> dict[str, NDArray[Any]]:
    """Return a query's columns; image_id as UTF-8 bytes."""
    with viewed(root, dataset) as connection:
        columns = {name: np.ma.getdata(values) for name, values in connection.execute(sql).fetchnumpy().items()}
    return columns | {"image_id": as_bytes(columns["image_id"])}


def as_bytes(texts: NDArray[Any]) -> NDArray[np.bytes_]:
    """Return strings as UTF-8."""
    return text_column(texts)


def column(root: Path, dataset: str, ids: NDArray[np.bytes_], name: str, hint: str) -> NDArray[np.bytes_]:
    """Return a text column of `images`, a value a sample; raises NotInStoreError, with ``hint``, where one has none."""
    sql = f"SELECT image_id, {name} AS value FROM images WHERE {name} IS NOT NULL ORDER BY image_id"
    found = fetch(root, dataset, sql)
    at = np.searchsorted(found["image_id"], ids)
    held = np.isin(ids, found["image_id"])
    if not held.all():
        raise NotInStoreError(f"{int((~held).sum())} of {len(ids)} images have no {hint}")
    return as_bytes(found["value"][at])


def labels_of(root: Path, dataset: str, ids: NDArray[np.bytes_]) -> tuple[tuple[str, ...], NDArray[np.int64]]:
    """Return the data set's classes, sorted, and each sample's number among them (N,).

    The classes are those of all images of the data set, so that the numbers of a train and a val part agree. Raises
    NotInStoreError where an image has no label.
    """
    names = column(root, dataset, ids, "label", 'label: add where="label IS NOT NULL" (VOC has objects=True instead)')
    sql = "SELECT DISTINCT label AS image_id FROM images WHERE label IS NOT NULL ORDER BY 1"
    classes = fetch(root, dataset, sql)["image_id"]
    return tuple(name.decode() for name in classes.tolist()), np.searchsorted(classes, names)


def sizes_of(root: Path, dataset: str, ids: NDArray[np.bytes_]) -> NDArray[np.int64]:
    """Return height and width of each sample's image [pixels] (N, 2)."""
    found = fetch(root, dataset, "SELECT image_id, height, width FROM images ORDER BY image_id")
    at = np.searchsorted(found["image_id"], ids)
    return np.stack([found["height"][at], found["width"][at]], axis=1).astype(np.int64)


def depth_paths(root: Path, dataset: str, ids: NDArray[np.bytes_]) -> NDArray[np.bytes_]:
    """Return each sample's depth map, below the data set's source; raises NotInStoreError where an image has none."""
    return column(root, dataset, ids, "depth_path", 'depth map: add where="depth_path IS NOT NULL" to take the others')


def meaning_of(root: Path, dataset: str) -> Meaning:
    """Return what the numbers in masks and depth maps mean; a manifest that does not say has plain indices."""
    with viewed(root, dataset) as connection:
        classes, ignored, coding, metres = connection.execute(MEANING).fetchall()[0]
    return Meaning(
        None if classes is None else tuple(classes),
        None if ignored is None else tuple(ignored),
        coding or INDEX,
        metres,
    )


def objects_of(root: Path, dataset: str, ids: NDArray[np.bytes_]) -> Boxes:
    """Return the boxes of every sample; an image without any has none. Classes are those of the whole data set."""
    found = fetch(root, dataset, OBJECTS)
    names = as_bytes(found["class"])
    classes, labels = np.unique(names, return_inverse=True)
    left, right = (np.searchsorted(found["image_id"], ids, side) for side in ("left", "right"))
    return Boxes(
        tuple(name.decode() for name in classes.tolist()),
        left,
        right - left,
        np.stack([found[name] for name in ("x0", "y0", "x1", "y1")], axis=1).astype(np.float32),
        labels.astype(np.int16),
        found["difficult"].astype(np.bool_),
    )
