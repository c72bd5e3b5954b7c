"""From float32 maps to what is stored: float16 that still adds up, and a checksum of its bytes."""

import hashlib
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from .compute import Decomposition
from .errors import InputError

__all__ = ["checksum", "quantise"]

LARGEST = float(np.finfo(np.float16).max)
STORED = np.dtype("<f2")


def quantise(decomposition: Decomposition, variants: Sequence[str]) -> dict[str, NDArray[np.float16]]:
    """Return the variants asked for as (H, W, C) float16.

    The residual is what the rounded maps leave over, ``raw − clean − artifact``, so that raw = clean + artifact + residual
    holds within half a unit in the last place of the residual. Raises InputError for a variant that is not there, or a
    value that float16 cannot hold.
    """
    maps: dict[str, NDArray[np.float16]] = {}
    for name in ("raw", "clean", "artifact"):
        value = getattr(decomposition, name)
        if value is not None:
            maps[name] = to_half(name, np.asarray(value, dtype=np.float32))
    if len(maps) == 3:
        raw, clean, artifact = (maps[name].astype(np.float32) for name in ("raw", "clean", "artifact"))
        maps["residual"] = to_half("residual", raw - clean - artifact)
    absent = [name for name in variants if name not in maps]
    if absent:
        raise InputError(f"there is no {absent[0]} to store, only {', '.join(maps)}")
    return {name: maps[name] for name in variants}


def to_half(name: str, values: NDArray[np.float32]) -> NDArray[np.float16]:
    """Round to little-endian float16; raises InputError where that would lose a value."""
    largest = float(np.abs(values).max(initial=0.0))
    if not largest <= LARGEST:
        raise InputError(
            f"a {name} feature of magnitude {largest:.3g} does not fit float16 (largest {LARGEST:.0f}); "
            "take another layer, or apply the final norm"
        )
    return np.ascontiguousarray(values, dtype=STORED)


def checksum(values: NDArray[np.float16]) -> int:
    """Return the first 8 bytes, little-endian, of BLAKE2b over the stored bytes of a sample."""
    data = np.ascontiguousarray(values, dtype=STORED)
    return int.from_bytes(hashlib.blake2b(data.data, digest_size=8).digest(), "little")
