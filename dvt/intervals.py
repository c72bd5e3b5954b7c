"""How sure a figure is, and its difference from a peer's: over seeds by Student's t, over images by bootstrap or jackknife."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from .confusion import bootstrap
from .errors import SolverError
from .scores import over_seeds

__all__ = ["Interval", "Jackknifed", "Sums", "jackknife"]

Interval = tuple[float, float, float]
"""A value and the ends of its 95 % interval, NaN where there is none."""


@dataclass(frozen=True, eq=False)
class Sums:
    """Amounts (S, N, K, L) of S seeds and N images that add up over images, and the figure that a sum (…, K, L) gives.

    Its value is the mean over seeds. ``over`` says what else there might have been: ``seeds`` takes a t-interval over
    them, ``images`` percentiles of 1,000 bootstrap draws of images, the same of every seed. One seed alone tells nothing of
    others, so that it is over images then.
    """

    amounts: Tensor
    score: Callable[[Tensor], Tensor]
    over: Literal["seeds", "images"] = "images"

    @property
    def told(self) -> str | None:
        """Say what the interval is over; None without one."""
        if self.by_seeds:
            return "seeds (t)"
        return "images (bootstrap)" if self.amounts.shape[1] > 1 else None

    @property
    def by_seeds(self) -> bool:
        """Whether it is over seeds."""
        return self.over == "seeds" and len(self.amounts) > 1

    @property
    def seeds(self) -> int:
        """How many seeds there are."""
        return len(self.amounts)

    def values(self) -> list[float]:
        """Return the figure of each seed."""
        found: list[float] = self.score(self.amounts.sum(dim=1)).double().tolist()
        return found

    def interval(self) -> Interval:
        """Return the figure with its interval."""
        if self.by_seeds:
            return over_seeds(self.values())
        return (sum(self.values()) / self.seeds, *bootstrap(self.mean_score, self.rows()))

    def beyond(self, peer: "Sums | Jackknifed") -> Interval:
        """Return by how much it exceeds a peer's, of the same seeds and images, paired; raises SolverError for others.

        K and L may differ (one grid shows a class that another does not): what is not there has amounts of 0.
        """
        if not isinstance(peer, Sums) or peer.amounts.shape[:2] != self.amounts.shape[:2]:
            raise SolverError("figures of the same seeds and images can be paired")
        if peer.amounts.shape != self.amounts.shape:
            rows, columns = (max(pair) for pair in zip(self.amounts.shape[2:], peer.amounts.shape[2:], strict=True))
            return self.padded(rows, columns).beyond(peer.padded(rows, columns))
        apart = [own - other for own, other in zip(self.values(), peer.values(), strict=True)]
        if self.by_seeds:
            return over_seeds(apart)
        return (sum(apart) / self.seeds, *bootstrap(self.mean_score, self.rows(), peer.rows()))

    def padded(self, rows: int, columns: int) -> "Sums":
        """Return it with amounts of ``rows`` by ``columns``, 0 where there were none."""
        missing = columns - self.amounts.shape[3], rows - self.amounts.shape[2]
        return replace(self, amounts=F.pad(self.amounts, (0, missing[0], 0, missing[1])))

    def rows(self) -> Tensor:
        """Return the amounts of each image (N, S·K, L), all seeds' below each other."""
        return self.amounts.transpose(0, 1).flatten(1, 2)

    def mean_score(self, sums: Tensor) -> Tensor:
        """Return the mean over seeds of the figure, of sums (…, S·K, L)."""
        return self.score(sums.reshape(*sums.shape[:-2], *self.amounts.shape[::2], sums.shape[-1])).mean(dim=-1)

    def joined(self, others: Sequence["Sums"]) -> "Sums":
        """Return it with the images of others at the end of its own."""
        return replace(self, amounts=torch.cat([self.amounts, *(other.amounts for other in others)], dim=1))


@dataclass(frozen=True)
class Jackknifed:
    """A figure of all images, and the same ``without`` each group of them in turn."""

    value: float
    without: tuple[float, ...]
    seeds = 1

    @property
    def told(self) -> str | None:
        """Say what the interval is over; None without one."""
        return "images (jackknife)" if len(self.without) > 1 else None

    def interval(self) -> Interval:
        """Return the figure with its interval."""
        return jackknife(self.value, self.without)

    def beyond(self, peer: "Sums | Jackknifed") -> Interval:
        """Return by how much it exceeds a peer's of the same groups of images; raises SolverError for others."""
        if not isinstance(peer, Jackknifed) or len(peer.without) != len(self.without):
            raise SolverError("figures of the same groups of images can be paired")
        pairs = zip(self.without, peer.without, strict=True)
        return jackknife(self.value - peer.value, [own - other for own, other in pairs])


def jackknife(value: float, without: Sequence[float]) -> Interval:
    """Return a value with its 95 % interval, value ± t s (n − 1) / √n of the n values that leave a group out each."""
    if len(without) < 2:
        return value, math.nan, math.nan
    _, low, high = over_seeds(without)
    half = (high - low) / 2 * (len(without) - 1)
    return value, value - half, value + half
