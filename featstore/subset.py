"""A few images of a data set, or files, to look at: pixels, and what a version stores of the same images."""

import hashlib
import json
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .errors import CorruptError, DecodeError, InputError, NotInStoreError
from .images import decode
from .members import read_bytes
from .pending import Planned, first_by_sha256
from .places import path_of
from .query import restricted
from .reading import ShardPool
from .selection import Selection, select_samples
from .versions import find_version

__all__ = ["StoredMaps", "Subset", "files_of", "images_of", "photographs"]

CLEANED = ("raw", "clean", "artifact")


@dataclass(frozen=True)
class Subset:
    """Images chosen. ``dataset`` is None for files; what cannot be read is listed in ``failed`` as it is met."""

    dataset: str | None
    images: tuple[Planned, ...]
    failed: dict[str, str]


def files_of(names: Sequence[str]) -> Subset:
    """Return image files (or URLs) as a subset, the same bytes once. Raises InputError for one that is not there."""
    found: dict[str, Planned] = {}
    for name in names:
        path = path_of(name)
        if path.is_dir():
            raise InputError(f"{name} is a folder: give images of it, or featstore index NAME --source {name} and NAME")
        try:
            data = read_bytes(path)
        except OSError as error:
            raise InputError(f"there is no image {name}: {error.strerror or error}") from error
        sha256 = hashlib.sha256(data).hexdigest()
        found.setdefault(sha256, Planned(path.name, str(name), sha256, len(data)))
    return Subset(None, tuple(found.values()), {})


def images_of(root: Path, dataset: str, where: str | None, limit: int, version: str | None = None) -> Subset:
    """Return ``limit`` images of a data set, the first by SHA-256: as good as drawn, and always the same.

    Only those that ``version`` (backbone/vN) holds, where one is given. Raises NotInStoreError for an unknown data set or
    version or where none is left, QueryError for a wrong condition.
    """
    with restricted(root, dataset) as connection:
        condition = where
        if version is not None:
            held = find_version(connection, f"{dataset}/{version}")
            stored = f"SELECT image_id FROM stored WHERE backbone = '{held.backbone}' AND version = 'v{held.number}'"
            condition = f"image_id IN ({stored})" + (f" AND ({where}\n)" if where else "")
        images = first_by_sha256(connection, limit, condition)
    if not images:
        raise NotInStoreError(f"no image of {version or dataset} is left" + (f" by --where {where!r}" if where else ""))
    return Subset(dataset, tuple(images), {})


def photographs(subset: Subset) -> Iterator[tuple[NDArray[np.uint8], str]]:
    """Yield (h, w, 3) pixels and SHA-256 of each image that can be read.

    Raises DecodeError for a file that cannot, and for a data set of which none can; of a data set others are left out.
    """
    read = 0
    for image in subset.images:
        try:
            pixels = decode(read_bytes(image.path))
        except (OSError, DecodeError) as error:
            if subset.dataset is None:
                raise DecodeError(f"{image.path}: {error}") from error
            subset.failed[image.image_id] = str(error)
            continue
        read += 1
        yield pixels, image.sha256
    if not read:
        reasons = "; ".join(f"{name}: {reason}" for name, reason in list(subset.failed.items())[:1])
        raise DecodeError(f"no image of {subset.dataset} can be read ({reasons})")


class StoredMaps:
    """Raw, clean and artifact that a version stores of a subset's images, as many of them as it holds.

    ``version`` is its name; ``layer`` and ``norm`` say which tokens they are, ``weights`` is the digest of the backbone's and
    ``input_size`` [height, width]; None where nobody recorded it. Raises NotInStoreError where no version of the backbone
    stores the three, or none of these images.
    """

    def __init__(self, root: Path, subset: Subset, backbone: str, version: str | None = None) -> None:
        if subset.dataset is None:
            raise NotInStoreError("files given by name have no stored features")
        self.chosen: Selection = select_samples(root, subset.dataset, backbone, CLEANED, version, None, files=False)
        recipe: dict[str, Any] = json.loads(self.chosen.recipe)
        features = recipe.get("backbone", {})
        self.version, self.method = self.chosen.version.name, self.chosen.version.method
        self.layer, self.norm = features.get("layer"), features.get("norm")
        self.weights, self.input_size = features.get("weights"), features.get("input")
        place_of = {name: place for place, name in enumerate(self.chosen.image_ids.tolist())}
        self.places = [place_of[image.image_id] for image in subset.images if image.image_id in place_of]
        if not self.places:
            raise NotInStoreError(f"{self.version} holds none of these images: name it to choose from what it holds")

    def __len__(self) -> int:
        return len(self.places)

    def __iter__(self) -> Iterator[dict[str, NDArray[np.float16]]]:
        """Yield each image's maps (H, W, C) by variant, in the subset's order.

        What is damaged, or of another grid than the first's, is left out.
        """
        pool = ShardPool(self.chosen.shards, verify=True)
        grid: tuple[int, ...] | None = None
        for place in self.places:
            with suppress(CorruptError):
                reader = pool[int(self.chosen.shard[place])]
                maps = {name: reader.read(name, int(self.chosen.row[place])) for name in CLEANED}
                grid = grid or maps["raw"].shape
                if maps["raw"].shape == grid:
                    yield maps
