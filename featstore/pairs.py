"""(raw, clean) pairs of one version for training: which images, in which order, batch by batch."""

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Sampler

from .aligned import one_grid
from .dataset import FeatureDataset
from .errors import InputError, NotInStoreError
from .query import viewed
from .versions import Version, find_version, list_versions

__all__ = ["PairSet", "StepOrder", "open_pairs"]

Pair = tuple[Tensor, Tensor]


class StepOrder(Sampler[list[int]]):
    """The images of every step from ``start`` to ``steps``: epochs of a new order each, one after the other.

    Step s takes places s·batch … (s+1)·batch of that endless row, whatever steps were taken in this process, so that a run goes
    on as if it had never stopped. Process ``rank`` of ``world`` takes every world-th of a batch.
    """

    def __init__(
        self, images: int, batch: int, steps: int, start: int = 0, seed: int = 0, rank: int = 0, world: int = 1
    ):
        if images < 1 or batch % world:
            raise InputError(
                f"batches of {batch} cannot be shared by {world} processes" if images else "no image to train on"
            )
        self.images, self.batch, self.steps, self.start = images, batch, steps, start
        self.seed, self.rank, self.world = seed, rank, world

    def __len__(self) -> int:
        return max(0, self.steps - self.start)

    def __iter__(self) -> Iterator[list[int]]:
        epoch, order = -1, np.zeros(0, np.int64)
        for step in range(self.start, self.steps):
            chosen = []
            for place in range(step * self.batch, (step + 1) * self.batch):
                if place // self.images != epoch:
                    epoch = place // self.images
                    order = np.random.default_rng([self.seed, epoch]).permutation(self.images)
                chosen.append(int(order[place % self.images]))
            yield chosen[self.rank :: self.world]


@dataclass(frozen=True)
class PairSet:
    """Pairs of a stage-1 version, parted: places in ``data`` to train on, and places to judge by; each image's bytes once."""

    version: Version
    data: FeatureDataset
    sha256s: tuple[str, ...]
    train: tuple[int, ...]
    heldout: tuple[int, ...]

    def batches(self, order: StepOrder, workers: int = 0, pin: bool = False) -> "DataLoader[Any]":
        """Return a loader of training batches: raw and clean (N, H, W, C) float16."""
        chosen = Chosen(self.data, self.train)
        return DataLoader(
            chosen,
            batch_sampler=order,
            num_workers=workers,
            collate_fn=collate,
            pin_memory=pin,
            persistent_workers=workers > 0,
        )

    def unseen(self, batch: int) -> "DataLoader[Any]":
        """Return a loader of what is held out, always in the same order."""
        return DataLoader(Chosen(self.data, self.heldout), batch_size=batch, collate_fn=collate)

    def every(self, batch: int) -> "DataLoader[Any]":
        """Return a loader of both parts."""
        return DataLoader(Chosen(self.data, sorted(self.train + self.heldout)), batch_size=batch, collate_fn=collate)

    def shas(self, places: Sequence[int]) -> list[str]:
        """Return the SHA-256 of images, sorted."""
        return sorted(self.sha256s[place] for place in places)


class Chosen(torch.utils.data.Dataset[Pair]):
    """Some places of a version, as (raw, clean), each (H, W, C)."""

    def __init__(self, data: FeatureDataset, places: Sequence[int]) -> None:
        self.data, self.places = data, np.array(places, np.int64)

    def __len__(self) -> int:
        return len(self.places)

    def __getitem__(self, index: int) -> Pair:
        item = self.data[int(self.places[index])]
        return item["raw"].permute(1, 2, 0), item["clean"].permute(1, 2, 0)


def collate(pairs: Sequence[Pair]) -> Pair:
    """Stack pairs."""
    raw, clean = zip(*pairs, strict=True)
    return torch.stack(raw), torch.stack(clean)


def open_pairs(
    root: Path, dataset: str, backbone: str, version: str | None, where: str | None, heldout: float
) -> PairSet:
    """Open the pairs of a stage-1 version: the one named, or the newest that stores raw and clean.

    An image is held out, or not, by its own SHA-256, whatever others there are: about a share ``heldout``. One at least is on
    either side: where none is by itself, the nearest to it. The same bytes under two names are one image. Raises
    NotInStoreError where there is no such version, InputError where too few images are left.
    """
    chosen = stage1_version(root, dataset, backbone, version)
    data = FeatureDataset(
        root, dataset, backbone=chosen.backbone, variants=("raw", "clean"), version=f"v{chosen.number}", where=where
    )
    first = data.stored[0]
    if data.ragged:
        raise InputError(f"{chosen.name} is on several grids, training needs one: {one_grid(first.grids[first.shard])}")
    with viewed(root, dataset) as connection:
        rows = dict(connection.execute("SELECT image_id, sha256 FROM images").fetchall())
    shas = [rows[name] for name in data.image_ids]
    places = np.unique(shas, return_index=True)[1]
    if len(places) < 2:
        raise InputError(
            f"{chosen.name} holds 1 image{' of these' if where else ''}: training needs two, one to judge by"
        )
    draws = np.array([draw(shas[place]) for place in places])
    out = draws < heldout
    out[draws.argmin()] = True
    out[draws.argmax()] = False
    train, held = (tuple(sorted(places[side].tolist())) for side in (~out, out))
    return PairSet(chosen, data, tuple(shas), train, held)


def draw(sha256: str) -> float:
    """Return a number in [0, 1) that an image's bytes decide."""
    return int(hashlib.sha256(b"heldout" + sha256.encode()).hexdigest()[:13], 16) / 16.0**13


def stage1_version(root: Path, dataset: str, backbone: str, version: str | None) -> Version:
    """Return the version that gives the pairs; one that was imported has to be named."""
    with viewed(root, dataset) as connection:
        if version is not None:
            found = find_version(connection, f"{dataset}/{backbone}/{version}")
            if not found.method.startswith(("stage1", "imported", "shift-mean")):
                raise InputError(f"{found.name} is made by {found.method}: pairs to train on come from stage1")
            return found
        known = [one for one in list_versions(connection) if one.backbone == backbone]
        full = {
            row[0]
            for row in connection.execute(
                "SELECT DISTINCT digest FROM stored WHERE list_has_all(variants, ['raw', 'clean'])"
            ).fetchall()
        }
    fits = [one for one in known if one.method.startswith("stage1") and one.digest in full]
    if not fits:
        have = ", ".join(f"{one.name} ({one.method})" for one in known) or "none is built"
        raise NotInStoreError(
            f"no stage-1 version of {dataset}/{backbone} stores raw and clean ({have}): "
            f"featstore build {dataset} --backbone {backbone} --method stage1 makes one"
        )
    return fits[-1]
