"""Which images are shown, under which headings."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from featstore.shown import choose_images

from .facts import GRIDDED, Facts
from .histogram import number
from .pictures import Bar, Picture, make_pictures

__all__ = ["RANKINGS", "Group", "make_gallery"]

QUALITY = "Worst and best images", "The worst", "The best", "From the worst to the best"
CHANGE = "Images changed most and least", "Changed most", "Changed least", "From the most changed to the least"
RANKINGS = {"heldout_r2": QUALITY, "heldout_cos": QUALITY, "cos_raw_clean": CHANGE}
"""Headings by the statistic that ranks from the smallest, the first that a version has: of all, of each end, of few images."""


@dataclass(frozen=True)
class Group:
    """Pictures under one heading, with what each is ranked by."""

    title: str
    pictures: tuple[tuple[Picture, str], ...]


def make_gallery(root: Path, facts: Facts, count: int) -> tuple[list[Group], list[Bar]]:
    """Return the worst and the best images with the bars of their norms; where nothing ranks them, some by name."""
    ranked = dict(facts.ranked)
    names = tuple(ranked) if facts.ranking else spread(facts.sample, count)
    if not names or not count:
        return [], []
    pictures, bars = make_pictures(choose_images(root, facts.version.name, names, GRIDDED, None, len(names)))
    shown = [(pictures[name], number(ranked[name]) if ranked else "") for name in names]
    if not facts.ranking:
        return [Group("", tuple(shown))], bars
    _, first, last, few = RANKINGS[facts.ranking]
    if len(shown) < 2 * count:
        return [Group(few, tuple(shown))], bars
    return [Group(first, tuple(shown[:count])), Group(last, tuple(shown[: -count - 1 : -1]))], bars


def spread(names: Sequence[str], count: int) -> tuple[str, ...]:
    """Return ``count`` of some names, evenly from the first to the last."""
    places = np.linspace(0, max(0, len(names) - 1), min(count, len(names))).round().astype(int)
    return tuple(names[n] for n in np.unique(places))
