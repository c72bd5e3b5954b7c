"""Stored features as a PyTorch data set, map-style."""

import os
from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset

from .aligned import check_frames, check_prefix, open_aligned, parse_requests
from .batches import read_blocks, read_ragged, reshared, window_of
from .crops import Crop, Part
from .errors import NotInStoreError
from .extras import Extras, Wanted
from .reading import PREFIX
from .root import resolve_root
from .samples import Allocate, Sample, Samples, allocate
from .versions import Version

__all__ = ["FeatureDataset"]


class FeatureDataset(Dataset[dict[str, Any]]):
    """Features of one version, or of several side by side; an image an item, ordered by image_id.

    An item is a dict: ``image_id`` (str) and, under its name, one (C, H, W) float16 tensor a variant, ``clean_fine`` on its
    own grid (C, H', W'). Where asked for: ``prefix``, the class and register tokens (T, C); ``image``, the photograph,
    uint8 (3, h, w), ``mask``, its label map, int64 (h, w), and ``depth``, float32 (h, w) in its file's unit, brought to the
    model's input as the features' image was (``--resize``), so that they lie on the features; ``label``, a number into
    ``classes``; ``objects``: a dict of ``boxes``, float32 (K, 4), left, top, right, bottom [pixels of ``image``],
    ``labels`` (K,), numbers into ``object_classes``, and ``difficult`` (K,). With ``versions`` the keys of features are
    ``dino/clean``, ``clip/clean`` ….

    A feature tensor is a permuted view of the stored (H, W, C) memory: its strides are channels-last and nothing is
    transposed; ``.contiguous()`` makes the copy where one is needed. Nothing is held open but memory maps: the data set
    pickles, and may be opened before forking or sent to spawned workers.
    """

    def __init__(
        self,
        root: str | os.PathLike[str] | None = None,
        dataset: str = "",
        *,
        backbone: str | None = None,
        variants: str | Sequence[str] | Mapping[str, Sequence[str]] = ("clean",),
        version: str | None = None,
        versions: Mapping[str, str] | None = None,
        where: str | None = None,
        image_ids: Sequence[str] | None = None,
        image: bool = False,
        mask: bool = False,
        depth: bool = False,
        label: bool = False,
        objects: bool = False,
        prefix: bool = False,
        crop: tuple[int, int] | None = None,
        centre: bool = False,
        seed: int = 0,
        dtype: torch.dtype | None = None,
        verify: bool = False,
    ) -> None:
        """Choose the samples.

        ``root`` None takes $FEATSTORE_ROOT, else ./feature-store. ``version`` is ``v3``, a tag or the digest's first digits;
        None takes the newest that stores the variants. ``versions`` takes the place of ``backbone`` and ``version``:
        ``{"dino": "voc/dinov2_s/v1", "clip": "voc/clip_b"}`` has the images that all of them hold, ``left_out`` tells how many
        each holds besides; ``variants`` may then be a dict of the same keys.

        ``where`` is a SQL condition over the columns of the view `stored`, with sub-queries on any table
        (``"split = 'train'"``, ``"image_id IN (SELECT image_id FROM objects WHERE class = 'dog')"``), or a SELECT of image_ids.
        ``image_ids`` lists images; the items come in its order.

        ``crop`` is the (height, width) [patches] of a part of the first version's grid, at a random place that ``seed``, the
        epoch (``set_epoch``) and the item's index decide, or with ``centre`` in the middle; features, image, mask, depth and
        boxes show the same part. There is no flip: mirrored features are not the features of the mirrored image.

        ``dtype`` None keeps float16. ``verify`` holds every sample read against its checksum. Raises NotInStoreError (saying
        what there is), InputError, QueryError.
        """
        folder = resolve_root(root)
        dataset, requests = parse_requests(dataset, backbone, version, versions, variants)
        found = open_aligned(folder, dataset, requests, where, image_ids, verify, image or mask)
        first = found.stored[0]
        self.stored, self.ids, self.sorter = found.stored, found.ids, found.sorter
        self.left_out = found.left_out
        self.variants = tuple(column.key for one in found.stored for column in one.columns)
        self.dtype, self.prefix, self.verify = dtype, prefix, verify
        if prefix:
            check_prefix(found.stored)
        self.ragged = any(one.ragged for one in found.stored)
        height, width = first.grids.min(axis=0).tolist()
        self.crop = Crop(*crop, (height, width), centre, seed) if crop is not None else None
        if crop is not None:
            check_frames(found.stored)
        self.epoch = reshared(torch.tensor(0))
        wanted = Wanted(image, mask, depth, label, objects)
        self.extras = Extras(wanted, folder, first.version, first.recipe, found)

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self.epoch = reshared(self.epoch)

    @property
    def version(self) -> Version:
        """The version read; of several, the first."""
        return self.stored[0].version

    @property
    def recipe(self) -> dict[str, Any]:
        """Its recipe."""
        return self.stored[0].recipe

    @property
    def input_size(self) -> tuple[int, int]:
        """Return (height, width) of the model's input [pixels]; where images keep their shapes, that of a square one."""
        return self.extras.input_size

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of the classes that ``label`` counts, of all images of the data set."""
        return self.extras.classes

    @property
    def mask_classes(self) -> tuple[str, ...] | None:
        """Name of each label of ``mask``, from 0 on, empty for one that is not used; None where the layout does not say."""
        return self.extras.meaning.mask_classes

    @property
    def mask_ignored(self) -> tuple[int, ...]:
        """Labels of ``mask`` that count for nothing in training and evaluation: 255 in VOC, 0 in ADE20K."""
        return self.extras.meaning.mask_ignored or ()

    @property
    def depth_metres(self) -> float | None:
        """What one unit of ``depth`` is [m], so that ``item["depth"] * depth_metres`` is metres; None where nobody says."""
        return self.extras.meaning.depth_metres

    @property
    def object_classes(self) -> tuple[str, ...]:
        """Names of the classes that ``objects`` counts, of all images of the data set."""
        return self.extras.boxes.classes if self.extras.boxes else ()

    @property
    def image_ids(self) -> list[str]:
        """Every image_id, in order."""
        return [name.decode() for name in self.ids.tolist()]

    @cached_property
    def grid_groups(self) -> NDArray[np.intp]:
        """A number a sample (N,), the same for samples whose maps collate: 0 for all, where there is one grid or a crop."""
        if not self.ragged or self.crop is not None:
            return np.zeros(len(self.ids), np.intp)
        grids = np.concatenate([one.grids[one.shard] for one in self.stored], axis=1)
        return np.unique(grids, axis=0, return_inverse=True)[1].reshape(-1)

    def __len__(self) -> int:
        return len(self.ids)

    def __repr__(self) -> str:
        names = ", ".join(one.version.name for one in self.stored)
        return f"FeatureDataset({names}, {', '.join(self.variants)}, {len(self)} images)"

    def set_epoch(self, epoch: int) -> None:
        """Say which epoch it is: random crops are drawn anew for each. Workers that run already hear of it."""
        self.epoch.fill_(epoch)

    def index(self, image_id: str) -> int:
        """Return the place of an image; raises NotInStoreError where it is not among the samples."""
        name = image_id.encode()
        place = int(np.searchsorted(self.ids, name, sorter=self.sorter))
        place = place if self.sorter is None or place == len(self) else self.sorter.item(place)
        if place == len(self) or self.ids[place] != name:
            raise NotInStoreError(
                f"{image_id!r} is not among the {len(self)} images of {self.version.name} chosen here"
            )
        return place

    def place(self, index: int | str) -> int:
        """Return an index as one from 0 on; raises IndexError beyond the end, NotInStoreError for an unknown image."""
        return self.index(index) if isinstance(index, str) else range(len(self.ids))[index]

    def __getitem__(self, index: int | str) -> dict[str, Any]:
        """Return the item of an index or an image_id.

        Raises IndexError beyond the end, NotInStoreError for an unknown image, CorruptError where ``verify`` finds damage,
        DecodeError, naming the file, where a photograph or mask cannot be read.
        """
        # Every microsecond counts here, where a memory map takes sixty to copy the sample.
        place = index if type(index) is int and 0 <= index < len(self.ids) else self.place(index)
        part = None if self.crop is None else self.part(place)
        item = Sample(image_id=self.ids.item(place).decode())
        for one in self.stored:
            reader, row = one.pool[one.shard.item(place)], one.row.item(place)
            for column in one.columns:
                # 0 stands for a sum that the manifest does not have, as of a residual that is worked out from its parts.
                expected = one.checksums.item(place, column.number) or None if self.verify else None
                window = None if part is None else window_of(reader, column.name, part)
                values = reader.read(column.name, row, expected, window).transpose(2, 0, 1)
                item[column.key] = torch.from_numpy(values) if self.dtype is None else self.tensor(values)
            if self.prefix:
                item[one.prefix + "prefix"] = self.tensor(reader.read(PREFIX, row))
        if self.extras.any:
            item.update(self.extras.item(place, part))
        return item

    def part(self, place: int) -> Part | None:
        """Return the part of the image that an item shows in this epoch; None where it is the whole."""
        return self.crop.part(int(self.epoch), place, self.stored[0].grid(place)) if self.crop else None

    def tensor(self, stored: NDArray[np.float16]) -> Tensor:
        """Return stored maps (…, C, H, W) as a view of the same memory, or a copy where another dtype was asked for."""
        tensor = torch.from_numpy(stored)
        return tensor if self.dtype is None else tensor.to(self.dtype)

    def __getitems__(self, indices: Sequence[int | str]) -> Sequence[dict[str, Any]]:
        """Return several items, as DataLoader asks for a batch: read in the order of the disk, returned as asked.

        Their features are views of one block of memory a variant, which ``collate`` hands on without another copy.
        """
        return self.read(indices, allocate)

    def read(self, indices: Sequence[int | str], make: Allocate) -> Samples:
        """Read several items into memory that ``make`` gives."""
        places = [self.place(index) for index in indices]
        if not places:
            return Samples([], {}, [])
        parts = [self.part(place) for place in places]
        how = self.prefix, self.dtype or torch.float16, self.verify, make
        several = self.ragged and self.crop is None and len(np.unique(self.grid_groups[places])) > 1
        blocks: Mapping[str, Any] = (
            read_ragged(self.stored, places, *how) if several else read_blocks(self.stored, places, parts, *how)
        )
        extras = [self.extras.item(*each) for each in zip(places, parts, strict=True)] if self.extras.any else []
        ids = [name.decode() for name in self.ids[places].tolist()]
        return Samples(ids, blocks, extras)

    def batch(self, indices: Sequence[int | str], make: Allocate = allocate) -> dict[str, Any]:
        """Return several items as one batch: tensors (N, …), ``image_id`` and ``objects`` lists."""
        return self.read(indices, make).batch(make)
