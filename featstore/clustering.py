"""k-means: a few seeded starts by k-means++, Lloyd's steps from each, the best kept."""

import numpy as np
from numpy.typing import NDArray

__all__ = ["cluster", "nearest"]

Floats = NDArray[np.float32]
STARTS, STEPS = 4, 100


def cluster(tokens: Floats, count: int, seed: int = 0) -> Floats:
    """Return the centres (k, C) of k-means on (n, C) tokens, the fullest cluster first.

    k is ``count``, or fewer where there are not as many different tokens. Starts follow Arthur and Vassilvitskii (2007):
    each next centre is drawn in proportion to the squared distance from those there are; ``seed`` decides the draws.
    """
    generator = np.random.default_rng(seed)
    found = [lloyd(tokens, begin(tokens, count, generator)) for _ in range(STARTS)]
    centres = min(found, key=lambda each: each[1])[0]
    sizes = np.bincount(nearest(tokens, centres), minlength=len(centres))
    ordered: Floats = centres[np.argsort(-sizes, kind="stable")]
    return ordered


def nearest(tokens: Floats, centres: Floats) -> NDArray[np.intp]:
    """Return the number of the nearest centre of each of (…, C) tokens."""
    numbers: NDArray[np.intp] = distances(tokens, centres).argmin(axis=-1)
    return numbers


def distances(tokens: Floats, centres: Floats) -> Floats:
    """Return squared Euclidean distances (…, k), without what all centres have in common: the token's own square."""
    apart: Floats = np.square(centres).sum(axis=-1) - 2 * (tokens @ centres.T)
    return apart


def begin(tokens: Floats, count: int, generator: np.random.Generator) -> Floats:
    """Draw the first centres (k, C) from the tokens."""
    centres = [tokens[generator.integers(len(tokens))]]
    apart = np.square(tokens - centres[0]).sum(axis=1, dtype=np.float64)
    while len(centres) < count and apart.max() > 0:
        centres.append(tokens[generator.choice(len(tokens), p=apart / apart.sum())])
        apart = np.minimum(apart, np.square(tokens - centres[-1]).sum(axis=1, dtype=np.float64))
    return np.stack(centres)


def lloyd(tokens: Floats, centres: Floats) -> tuple[Floats, float]:
    """Return the centres where Lloyd's steps end, and the sum of squared distances but for what no centre can change."""
    labels = nearest(tokens, centres)
    for _ in range(STEPS):
        # A cluster that lost its last token keeps its centre: it may win some back.
        centres = np.stack(
            [tokens[labels == n].mean(axis=0) if (labels == n).any() else c for n, c in enumerate(centres)]
        )
        before, labels = labels, nearest(tokens, centres)
        if np.array_equal(before, labels):
            break
    return centres, float(distances(tokens, centres).min(axis=1).sum(dtype=np.float64))
