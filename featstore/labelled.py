"""Images of a data set with their split and label mask, in two parts: to fit by, and to judge by."""

import hashlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from .annotations import meaning_of
from .errors import DecodeError
from .images import decode
from .masks import read_mask
from .members import read_bytes
from .pending import folder_of
from .places import joined
from .query import viewed

__all__ = ["Labelled", "labelled_images", "read_labels", "read_photograph"]

JUDGED = ("val", "valid", "validation", "test")


@dataclass(frozen=True)
class Labelled:
    """One image: its place and its mask's, None where it has none; ``judged`` of those to judge by."""

    image_id: str
    sha256: str
    path: str
    mask: str | None
    judged: bool


def labelled_images(root: Path, dataset: str, limit: int | None = None) -> tuple[Labelled, ...]:
    """Return the first ``limit`` images by SHA-256, each once, in that order: as good as drawn, and always the same.

    Those of a split called val, validation or test are to judge by; where that leaves either part empty, every second image
    is. Raises NotInStoreError.
    """
    with viewed(root, dataset) as connection:
        folder = folder_of(connection)
        rows = connection.execute(
            "SELECT image_id, sha256, path, mask_path, lower(split) FROM images "
            "QUALIFY row_number() OVER (PARTITION BY sha256 ORDER BY image_id) = 1 ORDER BY sha256 LIMIT ?",
            [limit if limit is not None else 1 << 62],
        ).fetchall()
    judged = [row[4] in JUDGED for row in rows]
    if all(judged) or not any(judged):
        judged = [number % 2 == 1 for number in range(len(rows))]
    return tuple(
        Labelled(name, sha256, joined(folder, path), joined(folder, mask) if mask else None, own)
        for (name, sha256, path, mask, _), own in zip(rows, judged, strict=True)
    )


def read_photograph(image: Labelled) -> NDArray[np.uint8]:
    """Return an image's pixels (h, w, 3); raises DecodeError naming a file that is not what was indexed."""
    try:
        data = read_bytes(image.path)
        if hashlib.sha256(data).hexdigest() != image.sha256:
            raise DecodeError("it has changed since it was indexed: index again")
        return decode(data)
    except (OSError, DecodeError) as error:
        raise DecodeError(f"{image.path}: {error}") from error


def read_labels(root: Path, dataset: str, image: Labelled) -> tuple[NDArray[np.integer], tuple[int, ...]] | None:
    """Return an image's mask (h, w) and the labels in it that count for nothing, None where it has no mask.

    Raises DecodeError naming the file.
    """
    if image.mask is None:
        return None
    meaning = meaning_of(root, dataset)
    path = Path(image.mask)
    try:
        return read_mask(read_bytes(image.mask), meaning.mask_coding, path), meaning.mask_ignored or ()
    except (OSError, DecodeError) as error:
        raise DecodeError(f"{image.mask}: {error}") from error
