"""From one image's float16 maps to the chunks of a shard, in whatever thread has time: int8, checksums, filters."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .filters import encoder
from .int8 import affine_name, encode
from .layout import INT8, PREFIX, ShardHeader
from .quantise import checksum, fitting

__all__ = ["PackedSample", "pack_sample"]


@dataclass(frozen=True)
class PackedSample:
    """One sample as the file takes it: a chunk a data set, and the checksum of each variant and of the prefix tokens."""

    chunks: dict[str, bytes | NDArray[Any]]
    checksums: dict[str, int]


def pack_sample(
    header: ShardHeader, image_id: str, maps: Mapping[str, NDArray[np.float16]], prefix: NDArray[np.float16] | None
) -> PackedSample:
    """Make the chunks of one sample: every variant of the header, prefix tokens as (T, C) or None where T is 0.

    Raises InputError where a map is missing, of another shape or not float16.
    """
    given = {**maps, PREFIX: prefix}
    compress = encoder(header.codec)
    chunks: dict[str, bytes | NDArray[Any]] = {}
    checksums: dict[str, int] = {}
    for name, shape in header.shapes().items():
        stored: tuple[NDArray[Any], ...] = (fitting(image_id, name, given.get(name), shape),)
        if header.store == INT8 and name != PREFIX:
            stored = encode(stored[0])
        checksums[name] = checksum(*stored)
        chunks |= zip((name, affine_name(name)), stored, strict=False)
        if compress is not None and name != PREFIX:
            chunks[name] = compress(stored[0])
    return PackedSample(chunks, checksums)
