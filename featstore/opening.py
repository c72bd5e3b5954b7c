"""``featstore.open``: stored features by the name that the command line prints."""

import os
from typing import Any

from .dataset import FeatureDataset
from .errors import InputError

__all__ = ["open_features"]


def open_features(name: str, root: str | os.PathLike[str] | None = None, **options: Any) -> FeatureDataset:
    """Open ``dataset/backbone/version``, or ``dataset/backbone`` for the newest version that stores the variants.

    ``version`` is ``v3``, a tag or the first digits of a digest; ``options`` and ``root`` are those of ``FeatureDataset``:
    ``featstore.open("voc/dinov2_b/v2", variants=("raw", "clean"), where="split = 'train'")``. Raises InputError for a name of
    other parts, and what FeatureDataset raises.
    """
    dataset, *rest = name.strip("/").split("/")
    if not 1 <= len(rest) <= 2 or not all((dataset, *rest)):
        raise InputError(f"{name!r} names no features: give dataset/backbone, or dataset/backbone/version")
    version = rest[1] if len(rest) == 2 else None
    return FeatureDataset(root, dataset, backbone=rest[0], version=version, **options)
