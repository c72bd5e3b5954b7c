"""The artifact pooled over a stored version: what its images share, a prior for those to come."""

import json
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .errors import InputError
from .query import viewed
from .reading import ShardPool
from .selection import select_samples
from .versions import find_version

__all__ = ["PooledArtifact", "pool_artifact"]


@dataclass(frozen=True)
class PooledArtifact:
    """``mean`` (H, W, C) float32 over ``images`` images of ``version``; ``backbone`` is that part of its recipe."""

    mean: NDArray[np.float32]
    images: int
    version: str
    backbone: dict[str, Any]


def pool_artifact(root: Path, name: str, sha256s: Collection[str] | None = None) -> PooledArtifact:
    """Return the mean of every ``artifact`` map stored in the version that ``name`` means, added up in float64.

    ``sha256s`` are the images to take, None all. Raises NotInStoreError where there is none, or it stores no artifact,
    InputError where it holds no image yet.
    """
    with viewed(root) as connection:
        version = find_version(connection, name)
        known = connection.execute(
            "SELECT image_id, sha256 FROM images WHERE dataset = ?", [version.dataset]
        ).fetchall()
    wanted = {image_id for image_id, sha256 in known if sha256s is None or sha256 in sha256s}
    chosen = select_samples(root, version.dataset, version.backbone, ("artifact",), f"v{version.number}", None, False)
    fits = (chosen.grids == version.grid).all(axis=1)  # of a version that keeps shapes: the images in the input's own
    found = zip(chosen.image_ids.tolist(), fits[chosen.shard].tolist(), strict=True)
    places = [place for place, (image_id, fit) in enumerate(found) if image_id in wanted and fit]
    if not places:
        raise InputError(f"{version.name} holds no image yet: build it first")
    pool = ShardPool(chosen.shards, verify=True)
    total = np.zeros((*version.grid, version.channels))
    for place in places:
        total += pool[chosen.shard.item(place)].read("artifact", chosen.row.item(place))
    mean = (total / len(places)).astype(np.float32)
    return PooledArtifact(mean, len(places), version.name, json.loads(chosen.recipe)["backbone"])
