"""Stored features as a PyTorch data set, map-style."""

import json
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor
from torch.utils.data import Dataset

from .errors import DecodeError, InputError, NotInStoreError, RemoteError
from .images import decode
from .masks import read_mask
from .places import path_of
from .reading import PREFIX, ShardPool
from .root import resolve_root
from .selection import select_samples

__all__ = ["FeatureDataset"]


class FeatureDataset(Dataset[dict[str, Any]]):
    """Features of one version, an image an item, ordered by image_id.

    An item is a dict: ``image_id`` (str) and, under its name, one (C, H, W) float16 tensor a variant, ``clean_fine`` on its
    own grid (C, H', W'); with ``prefix`` the class and register tokens ``prefix`` (T, C); with ``image`` the photograph,
    uint8 (3, h, w), and with ``mask`` its label map, int64 (h, w), both squashed to the model's input size as the features'
    image was, so that they collate.

    A feature tensor is a permuted view of the stored (H, W, C) memory: its strides are channels-last and nothing is
    transposed; ``.contiguous()`` makes the copy where one is needed. Nothing is held open but memory maps: the data set
    pickles, and may be opened before forking or sent to spawned workers.
    """

    def __init__(
        self,
        root: str | os.PathLike[str] | None = None,
        dataset: str = "",
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
        if not dataset:
            raise InputError("name a data set: FeatureDataset(root, dataset, backbone=...)")
        chosen = select_samples(resolve_root(root), dataset, backbone, names, version, where)
        self.variants, self.dtype, self.verify = names, dtype, verify
        self.image, self.mask, self.prefix = image, mask, prefix
        self.version = chosen.version
        self.recipe: dict[str, Any] = json.loads(chosen.recipe)
        # Columns of bytes: workers that are forked share them, where a million strings would be copied page by page.
        self.ids = np.char.encode(chosen.image_ids, "utf-8")
        self.shard, self.row, self.checksums = chosen.shard, chosen.row, chosen.checksums
        self.images = np.array([os.fsencode(str(path)) for path in chosen.images] if image else [], np.bytes_)
        self.masks = np.array([os.fsencode(str(path or "")) for path in chosen.masks] if mask else [], np.bytes_)
        self.pool = ShardPool(chosen.shards, verify=verify)
        self.check_extras()

    def check_extras(self) -> None:
        """Raise NotInStoreError where a mask, prefix tokens or the model's input size is asked for and not there."""
        absent = int((self.masks == b"").sum())
        if absent:
            raise NotInStoreError(
                f'{absent} of {len(self)} images have no mask: add where="mask_path IS NOT NULL" to take the others'
            )
        if self.prefix and not self.version.prefix_tokens:
            raise NotInStoreError(
                f"{self.version.name} holds no prefix tokens: its backbone has none; leave out prefix=True"
            )
        if (self.image or self.mask) and "input" not in self.recipe.get("backbone", {}):
            raise NotInStoreError(
                f"the recipe of {self.version.name} names no input size to resize images and masks to"
            )

    def __len__(self) -> int:
        return len(self.ids)

    def __repr__(self) -> str:
        return f"FeatureDataset({self.version.name}, {', '.join(self.variants)}, {len(self)} images)"

    @property
    def image_ids(self) -> list[str]:
        """Return every image_id, in order."""
        return [name.decode() for name in self.ids.tolist()]

    def index(self, image_id: str) -> int:
        """Return the place of an image; raises NotInStoreError where it is not among the samples."""
        name = image_id.encode()
        place = int(np.searchsorted(self.ids, name))
        if place == len(self) or self.ids[place] != name:
            raise NotInStoreError(
                f"{image_id!r} is not among the {len(self)} images of {self.version.name} chosen here"
            )
        return place

    def __getitem__(self, index: int) -> dict[str, Any]:
        """Return one item; raises IndexError beyond the end, CorruptError where ``verify`` finds damage.

        With ``image`` or ``mask`` raises DecodeError, naming the file, where that cannot be read.
        """
        place = range(len(self.ids))[index]
        reader, row = self.pool[self.shard.item(place)], self.row.item(place)
        item: dict[str, Any] = {"image_id": self.ids.item(place).decode()}
        for column, name in enumerate(self.variants):
            # 0 stands for a sum that the manifest does not have, as of a residual that is worked out from its parts.
            expected = self.checksums.item(place, column) or None if self.verify else None
            item[name] = self.tensor(reader.read(name, row, expected).transpose(2, 0, 1))
        if self.prefix:
            item["prefix"] = self.tensor(reader.read(PREFIX, row))
        if self.image:
            item["image"] = self.read_image(path_of(os.fsdecode(self.images.item(place))))
        if self.mask:
            item["mask"] = self.read_mask(path_of(os.fsdecode(self.masks.item(place))))
        return item

    def tensor(self, stored: NDArray[np.float16]) -> Tensor:
        """Return a view of the same memory, or a copy where another dtype was asked for."""
        tensor = torch.from_numpy(stored)
        return tensor if self.dtype is None else tensor.to(self.dtype)

    def __getitems__(self, indices: Sequence[int]) -> list[dict[str, Any]]:
        """Return several items; DataLoader asks so. What lies on a server is asked for all at once."""
        places = [range(len(self.ids))[index] for index in indices]
        names = (*self.variants, *([PREFIX] if self.prefix else []))
        self.pool.fetch(names, ((self.shard.item(place), self.row.item(place)) for place in places))
        return [self[index] for index in indices]

    @property
    def input_size(self) -> tuple[int, int]:
        """Return (height, width) of the model's input [pixels], to which image and mask are squashed."""
        height, width = self.recipe["backbone"]["input"]
        return int(height), int(width)

    def read_image(self, path: Path) -> Tensor:
        """Return a photograph as uint8 (3, h, w), resized as the recipe says the model's input was."""
        height, width = self.input_size
        bilinear = self.recipe["backbone"].get("interpolation") == "bilinear"
        method = Image.Resampling.BILINEAR if bilinear else Image.Resampling.BICUBIC
        with naming(path):
            resized = Image.fromarray(decode(path.read_bytes())).resize((width, height), method)
        return torch.from_numpy(np.array(resized)).permute(2, 0, 1)

    def read_mask(self, path: Path) -> Tensor:
        """Return a label map as int64 (h, w), nearest label a pixel."""
        with naming(path):
            labels = read_mask(path.read_bytes())
        height, width = self.input_size
        rows = ((np.arange(height) + 0.5) * labels.shape[0] / height).astype(np.int64)
        columns = ((np.arange(width) + 0.5) * labels.shape[1] / width).astype(np.int64)
        return torch.from_numpy(labels[rows[:, None], columns].astype(np.int64))


@contextmanager
def naming(path: Path) -> Iterator[None]:
    """Have errors of reading a file name it; a missing file, too, is a DecodeError."""
    try:
        yield
    except DecodeError as error:
        raise DecodeError(f"{path}: {error}") from error
    except RemoteError:
        raise
    except OSError as error:
        raise DecodeError(f"{path}: {error.strerror}; has the data set been moved? index it again") from error
