"""Feature maps for a browser: numbers as they are stored, colours and clusters that mean one thing in a whole version."""

import json
import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable
from functools import lru_cache
from pathlib import Path
from typing import Any, TypeVar, cast

import numpy as np
from numpy.typing import NDArray

from featstore.clustering import cluster, nearest
from featstore.components import fit_colours, sampled
from featstore.errors import NotInStoreError
from featstore.panel import SEEN
from featstore.reading import ShardReader
from featstore.shown import had

from .listings import Asked, Listing, Listings

__all__ = ["Maps"]

Floats = NDArray[np.float32]
Made = TypeVar("Made")
IMAGES, TOKENS, MEANINGS = 8, 4096, 24
"""Images of a version, and features of them, of which a basis or a clustering is found; how many of those are kept."""


class Maps:
    """Reads features, and finds once what colours mean: of raw and clean of a version together, so that both share it."""

    def __init__(self, root: Path, listings: Listings) -> None:
        self.root, self.listings = root, listings
        self.meanings: OrderedDict[Hashable, Any] = OrderedDict()
        self.lock = threading.Lock()
        self.reader = lru_cache(maxsize=64)(self.open_reader)

    def open_reader(self, shard: str, stamp: tuple[int, int]) -> ShardReader:
        """Open a shard; another manifest may mean another file of the same name."""
        return ShardReader(self.root / shard)

    def read(self, row: dict[str, Any], variant: str) -> NDArray[np.float16]:
        """Return features (H, W, C) of an image's row; raises NotInStoreError where the variant is not stored."""
        if variant not in had(row["variants"]):
            raise NotInStoreError(f"{variant} is not stored of {row['image_id']}, only {', '.join(row['variants'])}")
        return self.reader(row["shard"], self.listings.stamp()).read(variant, row["shard_row"])

    def colours(self, listing: Listing, row: dict[str, Any], variant: str, beside: Listing | None) -> NDArray[np.uint8]:
        """Return principal components (H, W, 3) as colours; ``beside`` is shown next to it, in one basis where it can be."""
        values = self.read(row, variant).astype(np.float32)
        key, tokens = self.group(listing, variant, beside)
        return self.meaning(("pca", *key), lambda: fit_colours([tokens()[:, None]]))(values)

    def clusters(
        self, listing: Listing, row: dict[str, Any], variant: str, beside: Listing | None, count: int
    ) -> NDArray[np.uint8]:
        """Return the number (H, W) of each feature's cluster by k-means."""
        values = self.read(row, variant).astype(np.float32)
        key, tokens = self.group(listing, variant, beside)
        return nearest(values, self.meaning(("kmeans", count, *key), lambda: cluster(tokens(), count))).astype(np.uint8)

    def group(
        self, listing: Listing, variant: str, beside: Listing | None
    ) -> tuple[tuple[Hashable, ...], Callable[[], Floats]]:
        """Return what shares one meaning of colours: a key, and a function that reads its features (n, C)."""
        kinds = SEEN if variant in SEEN else (variant,)
        names = {listing.asked.version}
        if beside is not None and space_of(beside) == space_of(listing):
            names.add(beside.asked.version)
        wholes = [Asked(listing.asked.dataset, name) for name in sorted(names)]
        return (self.listings.stamp(), kinds, *wholes), lambda: self.tokens(wholes, kinds)

    def tokens(self, wholes: list[Asked], kinds: tuple[str, ...]) -> Floats:
        """Return features of some images of each version, spread by the digests of the images' bytes."""
        maps = []
        for asked in wholes:
            for row in self.listings.get(asked).rows(f"true ORDER BY sha256 LIMIT {IMAGES}", []):
                here = had(row["variants"])
                maps += [self.read(row, name).astype(np.float32) for name in kinds if name in here]
        return sampled(maps, TOKENS)

    def meaning(self, key: Hashable, make: Callable[[], Made]) -> Made:
        """Return what is kept under a key, made where it is not; one at a time, as two panels ask for the same at once."""
        with self.lock:
            if key not in self.meanings:
                self.meanings[key] = make()
                if len(self.meanings) > MEANINGS:
                    self.meanings.popitem(last=False)
            return cast(Made, self.meanings[key])


def space_of(listing: Listing) -> Any:
    """Return what decides whether features of two versions can be held against each other: the model and the block."""
    backbone = json.loads(listing.recipe).get("backbone", {})
    return [backbone.get(name) for name in ("id", "weights", "layer", "norm")]
