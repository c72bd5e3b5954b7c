"""How much of features is position: its share of their variance, and what channels and coordinates tell of each other."""

import math

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from .intervals import Jackknifed
from .mic import maximal_information

__all__ = [
    "MIC_PAIRS",
    "MIC_TOKENS",
    "JackknifeShare",
    "PositionShare",
    "chance_mic",
    "mic_channels",
    "position_mic",
    "position_mics",
    "position_share",
]

MIC_PAIRS = 16
"""Pairs of an image and a channel over which ``position_mic`` takes the mean."""

MIC_TOKENS = 1500
"""Tokens of an image that it looks at, drawn where there are more."""


def position_share(features: Float[Tensor, "n h w c"]) -> float:
    """Return the share of variance over images and positions that positions explain, as ``PositionShare`` has it.

    NaN for fewer than two images. Large sets are added batch by batch to a ``PositionShare``.
    """
    share = PositionShare()
    share.add(features)
    return share.value()


class PositionShare:
    """The share of variance over images and positions that each position's mean over images explains, without bias.

    The mean over n images keeps 1/n of what images do to positions by chance, which is taken off as a two-way analysis of
    variance has it: (between − left / (n − 1)) / total, where left = total − between − the variance of images' own means, for
    what an image has in common at all positions moves none of them. NaN for fewer than two images.
    """

    def __init__(self) -> None:
        self.total: Tensor | None = None
        self.squares = self.wholes = 0.0
        self.images = 0

    def add(self, maps: Float[Tensor, "n h w c"]) -> None:
        """Add images' maps."""
        maps = maps.double()
        part = maps.sum(dim=0)
        self.total = part if self.total is None else self.total + part
        self.squares += float(maps.square().sum())
        self.wholes += float(maps.mean(dim=(1, 2)).square().sum())
        self.images += len(maps)

    def value(self) -> float:
        """Return the share, in (−∞, 1]; around 0 where positions tell nothing."""
        if self.total is None or self.images < 2:
            return math.nan
        mean = self.total / self.images
        places = mean.shape[0] * mean.shape[1]
        middle = mean.mean(dim=(0, 1))
        between = float((mean - middle).square().sum()) / places
        common = float(middle.square().sum())
        spread = self.squares / (self.images * places) - common
        left = spread - between - (self.wholes / self.images - common)
        return (between - left / (self.images - 1)) / spread if spread > 0 else math.nan


class JackknifeShare:
    """The same share with what its interval is made of: the share without each of ten groups of the images, or fewer."""

    def __init__(self, groups: int = 10) -> None:
        self.groups = [PositionShare() for _ in range(groups)]
        self.images = 0

    def add(self, maps: Float[Tensor, "n h w c"]) -> None:
        """Add images' maps; they go to the groups in turns."""
        for number, one in enumerate(maps, self.images):
            self.groups[number % len(self.groups)].add(one[None])
        self.images += len(maps)

    def estimate(self) -> Jackknifed:
        """Return the share of all images, and without each group; of fewer than four images it has no interval."""
        filled = [group for group in self.groups if group.images]
        apart = filled if self.images > 3 else []
        without = (merged([other for other in filled if other is not own]).value() for own in apart)
        return Jackknifed(merged(filled).value(), tuple(without))


def merged(parts: list[PositionShare]) -> PositionShare:
    """Return the share of the images of several parts."""
    whole = PositionShare()
    totals = [part.total for part in parts if part.total is not None]
    whole.total = torch.stack(totals).sum(dim=0) if totals else None
    whole.squares, whole.wholes = sum(p.squares for p in parts), sum(p.wholes for p in parts)
    whole.images = sum(part.images for part in parts)
    return whole


def position_mic(
    features: Float[Tensor, "n h w c"], pairs: int = MIC_PAIRS, tokens: int = MIC_TOKENS, seed: int = 0
) -> float:
    """Return the mean of ``position_mics``; NaN without a token."""
    found = position_mics(features, pairs, tokens, seed)
    return float(found.mean()) if len(found) else math.nan


def position_mics(
    features: Float[Tensor, "n h w c"], pairs: int = MIC_PAIRS, tokens: int = MIC_TOKENS, seed: int = 0
) -> Float[Tensor, " pairs"]:
    """Return the MIC [0, 1] of a feature channel and the patch coordinates, over the tokens of one image at a time.

    ``pairs`` of an image and a channel take part, channels evenly spread over C and images in turn (the first ``pairs`` of
    more), pair k image k modulo n; each gives the mean of two maximal information coefficients (``maximal_information``), with
    row and column, over all tokens of an image, or over ``tokens`` drawn ones of more. Their mean is what the paper calls
    position dependence (arXiv 2401.02957), as far as that is told. Content that differs between left and right, or above
    and below, has a part in it, and numbers independent of position do not have 0 but ``chance_mic``. Empty without a token.
    """
    count, height, width, depth = features.shape
    places = height * width
    if not count * places * depth:
        return torch.zeros(0)
    drawn = np.arange(places)
    if places > tokens:
        drawn = np.sort(np.random.default_rng(seed).choice(places, tokens, replace=False))
    coordinates = [axis.astype(float) for axis in np.unravel_index(drawn, (height, width))]
    found = []
    for number, channel in enumerate(mic_channels(depth, pairs)):
        values = features[number % count, :, :, channel].double().cpu().numpy().ravel()[drawn]
        found.append(float(np.mean([maximal_information(axis, values) for axis in coordinates])))
    return torch.tensor(found, dtype=torch.float64)


def mic_channels(depth: int, pairs: int = MIC_PAIRS) -> list[int]:
    """Return the channel of each pair: evenly spread over ``depth``, each some times over where there are fewer than pairs."""
    spread: list[int] = (np.arange(pairs) * depth // pairs).tolist()
    return spread


def chance_mic(grid: tuple[int, int], pairs: int = MIC_PAIRS, tokens: int = MIC_TOKENS, seed: int = 0) -> float:
    """Return what ``position_mic`` gives for independent numbers on a grid (H, W): below it nothing is told.

    MIC depends on the order of values alone, so that it is the same whatever the features' distribution.
    """
    noise = torch.randn(1, *grid, pairs, generator=torch.Generator().manual_seed(seed))
    return position_mic(noise, pairs, tokens, seed)
