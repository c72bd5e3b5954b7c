"""From float32 maps to what is stored: float16 that still adds up, and a checksum of its bytes."""

import hashlib
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .compute import FINE, Decomposition
from .errors import InputError
from .halves import BLOCK, narrow_into, widened

__all__ = ["DERIVABLE", "STORED", "checksum", "fitting", "quantise", "residual_of", "to_half"]

STORED = np.dtype("<f2")
DERIVABLE = ("raw", "clean", "artifact")
"""The variants from which the residual follows."""

EXPONENT = np.uint16(0x7C00)  # all ones in NaN and infinity
LARGEST = float(np.finfo(np.float16).max)


def quantise(decomposition: Decomposition, variants: Sequence[str]) -> dict[str, NDArray[np.float16]]:
    """Return the variants asked for as (H, W, C) float16, ``clean_fine`` as (H', W', C).

    The residual is what the rounded maps leave over, so that raw = clean + artifact + residual holds within half a unit in
    the last place of the residual. Raises InputError for a variant that is not there, or a value that float16 cannot hold.
    """
    maps: dict[str, NDArray[np.float16]] = {}
    for name in DERIVABLE:
        value = getattr(decomposition, name)
        if value is not None:
            maps[name] = to_half(name, np.asarray(value))
    fine = getattr(decomposition, FINE, None) if FINE in variants else None
    if fine is not None:
        maps[FINE] = to_half(FINE, np.asarray(fine))
    wanted = [name for name in variants if name not in maps]
    if "residual" in wanted and maps.keys() >= set(DERIVABLE):
        maps["residual"] = residual_of(*(maps[name] for name in DERIVABLE))
        wanted.remove("residual")
    if wanted:
        raise InputError(f"there is no {wanted[0]} to store, only {', '.join(maps) or 'nothing'}")
    return {name: maps[name] for name in variants}


def residual_of(
    raw: NDArray[np.float16], clean: NDArray[np.float16], artifact: NDArray[np.float16]
) -> NDArray[np.float16]:
    """Return raw − clean − artifact, rounded once; all (H, W, C).

    Raises InputError where it does not fit float16.
    """
    out = np.empty(raw.shape, STORED)
    flat, parts = out.reshape(-1), [part.reshape(-1) for part in (raw, clean, artifact)]
    for start in range(0, out.size, BLOCK):
        block = slice(start, start + BLOCK)
        # float16 values are whole multiples of 2^-24 below 2^16, so float64 differences are exact; float32 ones are not, where
        # large maps cancel.
        difference, *others = (widened(part[block], np.float64) for part in parts)
        for other in others:
            difference -= other
        check_range("residual", difference)
        single = difference.astype(np.float32)
        narrow_into(flat[block], single)
        # What float32 cannot hold would be rounded twice.
        twice = np.flatnonzero(single != difference)
        flat[start + twice] = difference[twice]
    return out


def to_half(name: str, values: NDArray[np.floating]) -> NDArray[np.float16]:
    """Round to little-endian float16; raises InputError, calling the values ``name``, where one does not fit.

    What is float16 already is only looked at.
    """
    if values.dtype == STORED and not (np.ascontiguousarray(values).view("<u2") & EXPONENT == EXPONENT).any():
        return np.ascontiguousarray(values)
    check_range(name, values)
    if values.dtype != np.float32:
        return np.ascontiguousarray(values, dtype=STORED)
    half = np.empty(values.shape, STORED)
    narrow_into(half, values)
    return half


def check_range(name: str, values: NDArray[np.floating]) -> None:
    """Raise InputError, calling the values ``name``, where one does not fit float16."""
    largest = max(-float(values.min(initial=0.0)), float(values.max(initial=0.0)))
    if not largest <= LARGEST:  # NaN, too, is not smaller
        if not np.isfinite(largest):
            raise InputError(
                f"a {name} feature is NaN or infinite and does not fit float16: look at what the model made of this image"
            )
        raise InputError(
            f"a {name} feature of magnitude {largest:.3g} does not fit float16 (largest {LARGEST:.0f}); "
            "take another layer, or apply the final norm"
        )


def fitting(
    image_id: str, name: str, values: NDArray[np.float16] | None, shape: tuple[int, ...]
) -> NDArray[np.float16]:
    """Return the values as they are stored; raises InputError where they are not what the header promises."""
    if values is None:
        raise InputError(f"{image_id} has no {name}, which this shard holds")
    if values.shape != shape or values.dtype != STORED:
        raise InputError(f"{name} of {image_id} is {values.shape} {values.dtype}, this shard holds {shape} float16")
    return np.ascontiguousarray(values, dtype=STORED)


def checksum(*stored: NDArray[Any]) -> int:
    """Return the first 8 bytes, little-endian, of BLAKE2b over a sample as it is stored, filters aside.

    That is its float16 values; of int8 the codes and then the row of float32 beside them.
    """
    sums = hashlib.blake2b(digest_size=8)
    for values in stored:
        sums.update(np.ascontiguousarray(values).data)
    return int.from_bytes(sums.digest(), "little")
