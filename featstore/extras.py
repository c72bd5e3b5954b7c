"""What an item shows beside its features: photograph, mask, depth, label and boxes, on the same part of the image."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
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
from .annotations import Boxes, depth_paths, labels_of, meaning_of, objects_of
from .crops import Part
from .errors import DecodeError, NotInStoreError, RemoteError
from .images import decode
from .masks import read_depth, read_mask
from .members import read_bytes
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
    """Reads them, resized to the model's input as the features' image was, so that they lie on the features and collate."""

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
        self.sized = "input" in recipe.get("backbone", {})
        if (wanted.image or wanted.mask or wanted.depth or wanted.objects) and not self.sized:
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

    @property
    def input_size(self) -> tuple[int, int]:
        """Return (height, width) of the model's input [pixels], to which image, mask and depth are squashed."""
        height, width = self.recipe["backbone"]["input"]
        return int(height), int(width)

    def item(self, place: int, part: Part | None) -> dict[str, Any]:
        """Return what is asked for of one sample, of ``part`` of the image alone where given.

        Raises DecodeError, naming the file, for what cannot be read.
        """
        item: dict[str, Any] = {}
        window = part.on(self.input_size) if part and self.sized else (slice(None), slice(None))
        if self.wanted.image:
            item["image"] = self.read_image(self.located(self.images, place))[:, *window]
        if self.wanted.mask:
            item["mask"] = self.nearest(self.located(self.masks, place), self.read_mask, np.dtype(np.int64))[window]
        if self.wanted.depth:
            item["depth"] = self.nearest(self.located(self.depths, place), read_depth, np.dtype(np.float32))[window]
        if self.wanted.label:
            item["label"] = self.labels.item(place)
        if self.boxes is not None:
            item["objects"] = self.read_boxes(self.boxes, place, part, window)
        return item

    def located(self, column: NDArray[np.bytes_], place: int) -> Path:
        """Return where a file of such a column lies."""
        return placed(self.source, column.item(place).decode())

    def read_image(self, path: Path) -> Tensor:
        """Return a photograph as uint8 (3, h, w), resized as the recipe says the model's input was."""
        height, width = self.input_size
        bilinear = self.recipe["backbone"].get("interpolation") == "bilinear"
        method = Image.Resampling.BILINEAR if bilinear else Image.Resampling.BICUBIC
        with naming(path):
            resized = Image.fromarray(decode(read_bytes(path))).resize((width, height), method)
        return torch.from_numpy(np.array(resized)).permute(2, 0, 1)

    def nearest(self, path: Path, read: Callable[[bytes], NDArray[Any]], dtype: np.dtype[Any]) -> Tensor:
        """Return a map (h, w) of the input's size, the nearest value a pixel: labels and depths must not be mixed."""
        with naming(path):
            values = read(read_bytes(path))
        height, width = self.input_size
        rows = ((np.arange(height) + 0.5) * values.shape[0] / height).astype(np.int64)
        columns = ((np.arange(width) + 0.5) * values.shape[1] / width).astype(np.int64)
        return torch.from_numpy(values[rows[:, None], columns].astype(dtype))

    def read_boxes(self, boxes: Boxes, place: int, part: Part | None, window: tuple[slice, ...]) -> dict[str, Tensor]:
        """Return the boxes that the part shows: corners [pixels of what is shown] (K, 4), class numbers, difficult."""
        own = slice(boxes.start.item(place), boxes.start.item(place) + boxes.count.item(place))
        rows, columns = (range(*w.indices(size)) for w, size in zip(window, self.input_size, strict=True))
        left, top, right, bottom = part.shares() if part else (0.0, 0.0, 1.0, 1.0)
        corners = (boxes.corners[own] - [left, top, left, top]) / np.array([right - left, bottom - top] * 2)
        shown = np.clip(corners, 0, 1) * np.array([len(columns), len(rows)] * 2)
        kept = (shown[:, 2] > shown[:, 0]) & (shown[:, 3] > shown[:, 1])
        return {
            "boxes": torch.from_numpy(shown[kept].astype(np.float32)),
            "labels": torch.from_numpy(boxes.labels[own][kept].astype(np.int64)),
            "difficult": torch.from_numpy(boxes.difficult[own][kept]),
        }


@contextmanager
def naming(path: Path) -> Iterator[None]:
    """Have errors of reading a file name it; a missing file, too, is a DecodeError. A server's errors say all themselves."""
    try:
        yield
    except DecodeError as error:
        raise DecodeError(f"{path}: {error}") from error
    except RemoteError:
        raise
    except OSError as error:
        raise DecodeError(f"{path}: {error.strerror}; has the data set been moved? index it again") from error
