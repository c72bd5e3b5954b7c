"""Features as colours: their three leading principal components become red, green and blue."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

__all__ = ["MOST", "Colours", "basis", "colours", "fit_colours", "sampled"]

MOST = 1 << 15
"""Tokens of which a basis is found."""
FLAT = 1e-4
"""A component whose range is this small beside the largest is rounding, and is not drawn."""


@dataclass(frozen=True)
class Colours:
    """A basis and a range of colours, to be put on any number of maps: the same feature has the same colour in all of them.

    ``mean`` (C,), ``directions`` (C, k ≤ 3), ``low`` and ``span`` (k,): where a component's colour begins, and how far it goes.
    """

    mean: NDArray[np.float32]
    directions: NDArray[np.float32]
    low: NDArray[np.float32]
    span: NDArray[np.float32]

    def __call__(self, features: NDArray[np.float32]) -> NDArray[np.uint8]:
        """Return (H, W, C) features as a (H, W, 3) picture."""
        placed = ((features - self.mean) @ self.directions - self.low) / self.span
        shades = (np.clip(placed, 0, 1) * 255).astype(np.uint8)
        return np.pad(shades, ((0, 0), (0, 0), (0, 3 - shades.shape[-1])))


def basis(features: NDArray[np.float32]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Return mean (C,) and the three leading principal directions (C, 3) of (n, C) features.

    The largest entry of each direction is positive: the same features have the same signs wherever they are computed.
    """
    exact = features.astype(np.float64)
    mean = exact.mean(axis=0)
    away = exact - mean
    leading = np.linalg.eigh(away.T @ away)[1][:, ::-1][:, :3]
    signs = np.sign(leading[np.abs(leading).argmax(axis=0), np.arange(leading.shape[1])])
    return mean.astype(np.float32), (leading * signs).astype(np.float32)


def sampled(maps: Sequence[NDArray[np.float32]], most: int) -> NDArray[np.float32]:
    """Return the features (n, C) of (H, W, C) maps; every second, third … where they are more than ``most``."""
    step = -(-sum(m.shape[0] * m.shape[1] for m in maps) // most)
    return np.concatenate([m.reshape(-1, m.shape[-1])[::step] for m in maps])


def fit_colours(maps: Sequence[NDArray[np.float32]]) -> Colours:
    """Find one basis for (H, W, C) maps together, and colours from the 2nd to the 98th percentile of their components."""
    tokens = sampled(maps, MOST)
    mean, directions = basis(tokens)
    low, high = np.percentile((tokens - mean) @ directions, [2, 98], axis=0).astype(np.float32)
    shown = high - low > FLAT * (high - low).max()
    span = np.where(shown, high - low, np.float32(np.inf))
    return Colours(mean, directions, low, span)


def colours(maps: Sequence[NDArray[np.float32]]) -> list[NDArray[np.uint8]]:
    """Return one (H, W, 3) picture a (H, W, C) map: one PCA basis and one colour scale for all of them."""
    shades = fit_colours(maps)
    return [shades(m) for m in maps]
