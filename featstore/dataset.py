"""Stored features as a PyTorch data set, map-style."""

import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import Dataset

from .errors import NotInStoreError
from .images import decode
from .masks import read_mask
from .reading import PREFIX, ShardPool
from .root import resolve_root
from .selection import select_samples

__all__ = ["FeatureDataset"]


class FeatureDataset(Dataset[dict[str, Any]]):
    """Features of one version, an image an item, ordered by image_id.

    An item is a dict: ``image_id`` (str) and, under its name, one (C, H, W) float16 tensor a variant; with ``prefix`` the
    class and register tokens ``prefix`` (T, C); with ``image`` the photograph, uint8 (3, h, w), and with ``mask`` its label
    map, int64 (h, w), both squashed to the model's input size as the features' image was, so that they collate.

    A feature tensor is a permuted view of the stored (H, W, C) memory: its strides are channels-last and nothing is
    transposed; ``.contiguous()`` makes the copy where one is needed. Nothing is held open but memory maps: the data set
    pickles, and may be opened before forking or sent to spawned workers.
    """

    def __init__(
        self,
        root: str | os.PathLike[str] | None,
        dataset: str,
        *,
        backbone: str,
        variants: Sequence[str] = ("clean",),
        version: str | None = None,
        where: str | None = None,
        image: bool = False,
        mask: bool = False,
        prefix: bool = False,
        dtype: torch.dtype | None = None,
        verify: bool = False,
    ) -> None:
        """Choose the samples.

        ``root`` None takes $FEATSTORE_ROOT, else ./feature-store. ``version`` is ``v3``, a tag or the digest's first digits;
        None takes the newest that stores the variants. ``where`` is a SQL condition over the columns of the view `stored`:
        ``"split = 'train'"``, ``"heldout_r2 > 0.5"``. ``dtype`` None keeps float16. ``verify`` holds every sample read
        against its checksum. Raises NotInStoreError (saying what there is), InputError, QueryError.
        """
        names = (variants,) if isinstance(variants, str) else tuple(variants)
        chosen = select_samples(resolve_root(root), dataset, backbone, names, version, where)
        self.variants, self.dtype, self.verify = names, dtype, verify
        self.image, self.mask, self.prefix = image, mask, prefix
        self.version = chosen.version
        self.recipe: dict[str, Any] = json.loads(chosen.recipe)
        self.images, self.masks, self.checksums = chosen.images, chosen.masks, chosen.checksums
        self.ids, self.shard, self.row = chosen.image_ids, chosen.shard, chosen.row
        self.pool = ShardPool(chosen.shards)
        absent = sum(path is None for path in self.masks) if mask else 0
        if absent:
            raise NotInStoreError(
                f'{absent} of {len(self.ids)} images have no mask: add where="mask_path IS NOT NULL" to take the others'
            )

    def __len__(self) -> int:
        return len(self.ids)

    def __repr__(self) -> str:
        return f"FeatureDataset({self.version.name}, {', '.join(self.variants)}, {len(self)} images)"

    @property
    def image_ids(self) -> list[str]:
        """Return every image_id, in order."""
        return [str(name) for name in self.ids]

    def index(self, image_id: str) -> int:
        """Return the place of an image; raises NotInStoreError where it is not among the samples."""
        place = int(np.searchsorted(self.ids, image_id))
        if place == len(self.ids) or self.ids[place] != image_id:
            raise NotInStoreError(
                f"{image_id!r} is not among the {len(self)} images of {self.version.name} chosen here"
            )
        return place

    def __getitem__(self, index: int) -> dict[str, Any]:
        """Return one item; raises IndexError beyond the end, CorruptError where ``verify`` finds damage."""
        place = range(len(self.ids))[index]
        reader, row = self.pool[self.shard[place]], int(self.row[place])
        item: dict[str, Any] = {"image_id": str(self.ids[place])}
        for column, name in enumerate(self.variants):
            expected = int(self.checksums[place, column]) if self.verify else 0
            stored = torch.from_numpy(reader.read(name, row, expected or None)).permute(2, 0, 1)
            item[name] = stored if self.dtype is None else stored.to(self.dtype)
        if self.prefix:
            tokens = torch.from_numpy(reader.read(PREFIX, row))
            item["prefix"] = tokens if self.dtype is None else tokens.to(self.dtype)
        if self.image:
            item["image"] = self.read_image(self.images[place])
        if self.mask:
            item["mask"] = self.read_mask(self.masks[place])
        return item

    def __getitems__(self, indices: Sequence[int]) -> list[dict[str, Any]]:
        """Return several items; DataLoader asks so."""
        return [self[index] for index in indices]

    @property
    def input_size(self) -> tuple[int, int]:
        """Return (height, width) of the model's input [pixels], to which image and mask are squashed."""
        height, width = self.recipe["backbone"]["input"]
        return int(height), int(width)

    def read_image(self, path: Path) -> Tensor:
        """Return a photograph as uint8 (3, h, w)."""
        height, width = self.input_size
        resized = Image.fromarray(decode(path.read_bytes())).resize((width, height), Image.Resampling.BICUBIC)
        return torch.from_numpy(np.array(resized)).permute(2, 0, 1)

    def read_mask(self, path: Path | None) -> Tensor:
        """Return a label map as int64 (h, w), nearest label a pixel."""
        if path is None:
            raise NotInStoreError("this image has no mask")
        labels = read_mask(path.read_bytes())
        height, width = self.input_size
        rows = ((np.arange(height) + 0.5) * labels.shape[0] / height).astype(np.int64)
        columns = ((np.arange(width) + 0.5) * labels.shape[1] / width).astype(np.int64)
        return torch.from_numpy(labels[rows[:, None], columns].astype(np.int64))
