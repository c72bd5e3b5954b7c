"""Norms of every patch of some images, drawn and in figures."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from featstore.shown import choose_images

from .facts import GRIDDED, Facts
from .histogram import Histogram, make_histogram, number

__all__ = ["Norms", "measure_norms"]

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Norms:
    """Norms of one variant, patch by patch; ``outliers`` is the share above twice the median."""

    variant: str
    chart: Histogram
    figures: tuple[str, ...]


def measure_norms(root: Path, facts: Facts) -> tuple[list[Norms], int]:
    """Return the norms of every patch of the sampled images by variant, on one axis, and how many images that are."""
    if not facts.sample:
        return [], 0
    chosen = choose_images(root, facts.version.name, facts.sample, GRIDDED, None, len(facts.sample))
    lengths: dict[str, list[Floats]] = {name: [] for name in chosen.variants}
    for _, maps in chosen.maps():
        for name, values in maps.items():
            lengths[name].append(np.linalg.norm(values, axis=-1).ravel().astype(np.float64))
    joined = {name: np.concatenate(parts) for name, parts in lengths.items()}
    span = 0.0, max(float(values.max()) for values in joined.values())
    return [norms(name, values, span) for name, values in joined.items()], len(chosen)


def norms(variant: str, values: Floats, span: tuple[float, float]) -> Norms:
    """Return the norms of one variant, drawn and in figures."""
    quantiles = np.quantile(values, [0, 0.5, 0.99, 1])
    outliers = float((values > 2 * quantiles[1]).mean())
    chart = make_histogram(variant, values, "patches", span, log=True)
    return Norms(variant, chart, (*(number(float(one)) for one in quantiles), f"{outliers:.2%}"))
