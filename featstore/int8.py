"""Features in one byte each: every token divided by its norm, every channel of that on 256 even steps of its own range."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from .halves import BLOCK, narrow_into, widened

__all__ = ["AFFINE", "INT8", "RECIPE", "affine_length", "affine_name", "decode", "encode"]

INT8 = np.dtype("i1")
AFFINE = np.dtype("<f4")
RECIPE = {
    "dtype": "int8",
    "value": "norm[token] * (scale[channel] * code + offset[channel])",
    "error": "norm * scale / 2, then float16",
}
"""What the recipe says of it: other numbers than float16's, so another version."""

LEVELS = 256
LARGEST = float(np.finfo(np.float16).max)


def affine_name(variant: str) -> str:
    """Return the name of the data set that holds scale, offset and norm of a variant's samples."""
    return f"affine/{variant}"


def affine_length(shape: tuple[int, ...]) -> int:
    """Return how many float32 a sample of shape (H, W, C) has beside its codes: scale (C), offset (C), norm (H·W)."""
    height, width, channels = shape
    return 2 * channels + height * width


def encode(values: NDArray[np.float16]) -> tuple[NDArray[np.int8], NDArray[np.float32]]:
    """Return the codes (H, W, C) of finite features (H, W, C), and scale, offset and norm in one row (2C + H·W).

    Tokens are brought to one length first, since some of a ViT's are twenty times as long as the others: on steps that such a
    one needs, the direction of the others would be lost. A decoded value is off by at most norm · scale / 2, and float16's
    own rounding.
    """
    channels = values.shape[-1]
    tokens = widened(values.reshape(-1, channels), np.float32)
    norm = np.sqrt(np.square(tokens).sum(axis=1, dtype=np.float64)).astype(AFFINE)
    some = norm > 0
    # A token of zeros has no direction: it is zero by its norm, whatever its codes, and takes no part in the ranges.
    tokens = tokens if some.all() else tokens[some]
    tokens /= norm[some, None]
    low, high = (f(tokens, axis=0) if some.any() else np.zeros(channels, AFFINE) for f in (np.min, np.max))
    scale = (high - low) / np.float32(LEVELS - 1)
    offset = low + scale * np.float32(LEVELS // 2)
    tokens -= offset
    tokens /= np.where(scale > 0, scale, 1)  # a channel that is constant is its offset
    np.clip(np.rint(tokens, out=tokens), -LEVELS // 2, LEVELS // 2 - 1, out=tokens)
    codes = np.zeros((len(norm), channels), INT8)
    codes[some] = tokens
    return codes.reshape(values.shape), np.concatenate([scale, offset, norm])


def decode(
    codes: NDArray[np.int8], affine: NDArray[np.float32], window: tuple[slice, slice] | None = None
) -> NDArray[np.float16]:
    """Return the features (H, W, C) float16 of ``encode``'s two parts: norm · (scale · code + offset) in float32, rounded.

    ``window`` takes those rows and columns alone.
    """
    channels = codes.shape[-1]
    scale, offset, norm = np.split(affine, [channels, 2 * channels])
    if window is not None:
        norm = norm.reshape(codes.shape[:2])[window].reshape(-1)
        codes = codes[window]
    tokens, out = codes.reshape(-1, channels), np.empty((codes.size // channels, channels), "<f2")
    # Half a step of a long token may lead past what float16 holds; what was encoded does not lie there.
    reach = float(norm.max(initial=0)) * float((np.abs(offset) + LEVELS // 2 * scale).max(initial=0))
    rows = max(1, BLOCK // channels)
    for start in range(0, len(tokens), rows):
        block = slice(start, start + rows)
        values: NDArray[Any] = tokens[block] * scale
        values += offset
        values *= norm[block, None]
        if reach > LARGEST:
            np.clip(values, -LARGEST, LARGEST, out=values)
        narrow_into(out[block], values)
    return out.reshape(codes.shape)
