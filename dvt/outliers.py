"""Which tokens stand out by their norm, where, and how often."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float
from numpy.typing import NDArray

from .errors import BackboneError

__all__ = ["OutlierRule", "Place", "Spread", "frequent_places", "log_edges", "spread_of"]


@dataclass(frozen=True)
class OutlierRule:
    """A patch token is an outlier whose L2 norm is above ``times`` the median of its image's patch tokens.

    With ``above`` it is one whose norm is above that, whatever the image: "Vision Transformers Need Registers" (Darcet et
    al., arXiv 2309.16588, section 2) cuts DINOv2's at 150, where their two groups part. Norms of other models lie elsewhere,
    so that twice the median is the default. Raises BackboneError for a rule that cannot be.
    """

    times: float = 2.0
    above: float | None = None

    def __post_init__(self) -> None:
        if self.above is not None and not self.above > 0:
            raise BackboneError(f"a norm above {self.above:g} is no sign: give a threshold above 0")
        if self.above is None and not self.times > 1:
            raise BackboneError(f"{self.times:g} times the median makes half of the tokens outliers: give more than 1")

    @property
    def text(self) -> str:
        """Return the rule in words."""
        if self.above is not None:
            return f"norm above {self.above:g}"
        return f"norm above {self.times:g} × the median of the image's patch tokens"

    def find(self, norms: Float[np.ndarray, "*image h w"]) -> Bool[np.ndarray, "*image h w"]:
        """Tell which tokens of each map are outliers."""
        limit = self.times * np.median(norms, axis=(-2, -1), keepdims=True) if self.above is None else self.above
        return np.asarray(norms > limit)


@dataclass(frozen=True)
class Spread:
    """Norms of all images' patch tokens: smallest, median, largest; outliers an image, share [0, 1] of images with any."""

    minimum: float
    median: float
    maximum: float
    outliers: float
    images: float


@dataclass(frozen=True)
class Place:
    """A patch by its row and column from the top left, and the share [0, 1] of images in which it is an outlier."""

    row: int
    column: int
    share: float


def spread_of(norms: Float[np.ndarray, "n h w"], rule: OutlierRule) -> Spread:
    """Sum up the norms of one layer."""
    counts = rule.find(norms).sum(axis=(1, 2))
    levels = float(norms.min()), float(np.median(norms)), float(norms.max())
    return Spread(*levels, float(counts.mean()), float((counts > 0).mean()))


def frequent_places(norms: Float[np.ndarray, "n h w"], rule: OutlierRule) -> list[Place]:
    """Return every patch that is an outlier in some image, the most frequent first, then row by row."""
    share = rule.find(norms).mean(axis=0)
    rows, columns = np.nonzero(share)
    places = [
        Place(int(row), int(column), float(share[row, column])) for row, column in zip(rows, columns, strict=True)
    ]
    return sorted(places, key=lambda place: (-place.share, place.row, place.column))


def log_edges(norms: Sequence[NDArray[np.floating]], bins: int = 48) -> NDArray[np.float64]:
    """Return the edges (bins + 1,) of bins of equal ratio that hold all norms, the lowest at a thousandth of the largest."""
    highest = max((float(values.max()) for values in norms), default=0.0)
    lowest = min((float(values.min()) for values in norms), default=0.0)
    if not highest > 0:
        return np.linspace(0, 1, bins + 1)
    edges = (
        np.geomspace(max(lowest, highest / 1000), highest, bins + 1) if lowest < highest else np.full(bins + 1, highest)
    )
    edges[0], edges[-1] = min(lowest, edges[0]), highest
    return edges if lowest < highest else np.linspace(highest / 2, highest * 3 / 2, bins + 1)
