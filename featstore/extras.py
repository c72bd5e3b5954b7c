"""What an item shows beside its features: photograph, mask, depth, label and boxes, on the same part of the image."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from .aligned import Aligned
from .annotations import Boxes, depth_paths, labels_of, meaning_of, objects_of, sizes_of
from .crops import Part
from .errors import NotInStoreError
from .geometry import Geometry
from .images import decode
from .masks import read_depth, read_mask
from .members import naming, read_bytes
from .places import placed
from .versions import Version

__all__ = ["Extras", "Wanted"]


@dataclass(frozen=True)
class Wanted:
    """Which of them are asked for."""

    image: bool = False
    mask: bool = False
    depth: bool = False
    label: bool = False
    objects: bool = False


class Extras:
    """Reads them, brought to the model's input as the features' image was, so that they lie on the features."""

    def __init__(
        self,
        wanted: Wanted,
        root: Path,
        version: Version,
        recipe: dict[str, Any],
        found: Aligned,
    ) -> None:
        """Look up what is wanted of the images found.

        Raises NotInStoreError where something asked for is not there.
        """
        self.wanted, self.recipe = wanted, recipe
        self.any = wanted != Wanted()
        self.geometry = Geometry.of(recipe)
        if (wanted.image or wanted.mask or wanted.depth or wanted.objects) and self.geometry is None:
            raise NotInStoreError(f"the recipe of {version.name} names no input size to resize images and masks to")
        self.source, ids = found.source, found.ids
        nothing = np.array([], np.bytes_)
        self.images = found.images if wanted.image else nothing
        self.masks = found.masks if wanted.mask else nothing
        absent = int((self.masks == b"").sum())
        if absent:
            raise NotInStoreError(
                f'{absent} of {len(ids)} images have no mask: add where="mask_path IS NOT NULL" to take the others'
            )
        dataset = version.dataset
        self.classes, self.labels = labels_of(root, dataset, ids) if wanted.label else ((), np.array([], np.int64))
        self.boxes = objects_of(root, dataset, ids) if wanted.objects else None
        self.depths = depth_paths(root, dataset, ids) if wanted.depth else nothing
        self.meaning = meaning_of(root, dataset)
        self.read_mask = partial(read_mask, coding=self.meaning.mask_coding)
        squashed = self.geometry is None or self.geometry.resize == "squash"
        self.sizes = sizes_of(root, dataset, ids) if self.any and not squashed else None

    @property
    def input_size(self) -> tuple[int, int]:
        """Return (height, width) of the model's input [pixels]; where images keep their shapes, that of a square one."""
        height, width = self.recipe["backbone"]["input"]
        return int(height), int(width)

    def target(self, place: int) -> tuple[int, int]:
        """Return (height, width) to which one sample's image was resized [pixels]."""
        if self.sizes is None or self.geometry is None:
            return self.input_size
        return self.geometry.target(*self.sizes[place].tolist())

    def item(self, place: int, part: Part | None) -> dict[str, Any]:
        """Return what is asked for of one sample, of ``part`` of the image alone where given.

        Raises DecodeError, naming the file, for what cannot be read.
        """
        item: dict[str, Any] = {}
        if self.geometry is not None:
            geometry, target = self.geometry, self.target(place)
            window = part.on(target) if part else (slice(None), slice(None))
            if self.wanted.image:
                item["image"] = self.read_image(geometry, target, self.located(self.images, place))[:, *window]
            if self.wanted.mask:
                path = self.located(self.masks, place)
                mask = nearest(geometry, target, path, partial(self.read_mask, path=path))
                item["mask"] = torch.from_numpy(mask.astype(np.int64))[window]
            if self.wanted.depth:
                depth = nearest(geometry, target, self.located(self.depths, place), read_depth)
                item["depth"] = torch.from_numpy(depth.astype(np.float32))[window]
            if self.boxes is not None:
                item["objects"] = self.read_boxes(self.boxes, place, part, window)
        if self.wanted.label:
            item["label"] = self.labels.item(place)
        return item

    def located(self, column: NDArray[np.bytes_], place: int) -> Path:
        """Return where a file of such a column lies."""
        return placed(self.source, column.item(place).decode())

    def read_image(self, geometry: Geometry, target: tuple[int, int], path: Path) -> Tensor:
        """Return a photograph as uint8 (3, h, w), cut and resized as the recipe says the model's input was."""
        bilinear = self.recipe["backbone"].get("interpolation") == "bilinear"
        method = Image.Resampling.BILINEAR if bilinear else Image.Resampling.BICUBIC
        with naming(path):
            photograph = geometry.cut(decode(read_bytes(path)))
        resized = Image.fromarray(photograph).resize(target[::-1], method)
        return torch.from_numpy(np.array(resized)).permute(2, 0, 1)

    def shares(self, place: int) -> tuple[float, float, float, float]:
        """Return left, top, right, bottom of what features show of an image, as shares of the whole, in [0, 1]."""
        if self.sizes is None or self.geometry is None:
            return 0.0, 0.0, 1.0, 1.0
        rows, columns = self.sizes[place].tolist()
        top, left, height, width = self.geometry.box(rows, columns)
        return left / columns, top / rows, (left + width) / columns, (top + height) / rows

    def read_boxes(self, boxes: Boxes, place: int, part: Part | None, window: tuple[slice, ...]) -> dict[str, Tensor]:
        """Return the boxes that the part shows: corners [pixels of what is shown] (K, 4), class numbers, difficult."""
        own = slice(boxes.start.item(place), boxes.start.item(place) + boxes.count.item(place))
        rows, columns = (range(*w.indices(size)) for w, size in zip(window, self.target(place), strict=True))
        corners = within(boxes.corners[own], self.shares(place))
        corners = within(corners, part.shares()) if part else corners
        shown = np.clip(corners, 0, 1) * np.array([len(columns), len(rows)] * 2)
        kept = (shown[:, 2] > shown[:, 0]) & (shown[:, 3] > shown[:, 1])
        return {
            "boxes": torch.from_numpy(shown[kept].astype(np.float32)),
            "labels": torch.from_numpy(boxes.labels[own][kept].astype(np.int64)),
            "difficult": torch.from_numpy(boxes.difficult[own][kept]),
        }


def nearest(
    geometry: Geometry, target: tuple[int, int], path: Path, read: Callable[[bytes], NDArray[Any]]
) -> NDArray[Any]:
    """Return a map (h, w) of the target's size, the nearest value a pixel: labels and depths must not be mixed."""
    with naming(path):
        values = read(read_bytes(path))
    return geometry.nearest(values, target)


def within(corners: NDArray[np.float32], shares: tuple[float, float, float, float]) -> NDArray[np.float32]:
    """Return corners (K, 4), shares of the whole, as shares of a part of it; beyond its edges they are beyond 0 and 1."""
    left, top, right, bottom = shares
    moved: NDArray[np.float32] = (corners - [left, top, left, top]) / np.array([right - left, bottom - top] * 2)
    return moved
