"""``featstore.open``: stored features by the name that the command line prints."""

import os
from collections.abc import Mapping
from typing import Any

from .dataset import FeatureDataset
from .errors import InputError

__all__ = ["open_features"]


def open_features(
    name: str | Mapping[str, str], root: str | os.PathLike[str] | None = None, **options: Any
) -> FeatureDataset:
    """Open ``dataset/backbone/version``, or ``dataset/backbone`` for the newest version that stores the variants.

    ``version`` is ``v3``, a tag or the first digits of a digest; ``options`` and ``root`` are those of ``FeatureDataset``:
    ``featstore.open("voc/dinov2_b/v2", variants=("raw", "clean"), where="split = 'train'")``. A dict of names opens several
    versions side by side: ``{"dino": "voc/dinov2_b", "clip": "voc/clip_b"}``. Raises InputError for a name of other parts,
    and what FeatureDataset raises.
    """
    if isinstance(name, Mapping):
        return FeatureDataset(root, versions=name, **options)
    dataset, *rest = name.strip("/").split("/")
    if not 1 <= len(rest) <= 2 or not all((dataset, *rest)):
        raise InputError(f"{name!r} names no features: give dataset/backbone, or dataset/backbone/version")
    version = rest[1] if len(rest) == 2 else None
    return FeatureDataset(root, dataset, backbone=rest[0], version=version, **options)
