"""How much of features is position: its share of their variance, and what channels and coordinates tell of each other."""

import math

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from .mic import maximal_information

__all__ = ["MIC_CHANNELS", "MIC_TOKENS", "PositionShare", "chance_mic", "position_mic", "position_share"]

MIC_CHANNELS, MIC_TOKENS = 16, 1024


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


def position_mic(
    features: Float[Tensor, "n h w c"], channels: int = MIC_CHANNELS, tokens: int = MIC_TOKENS, seed: int = 0
) -> float:
    """Return the mean MIC [0, 1] of feature channels and patch coordinates, over tokens of all images taken together.

    For each of ``channels`` channels, evenly spread over C, and each of the two coordinates (row, column), the maximal
    information coefficient (``maximal_information``) over ``tokens`` tokens drawn from all images, or all where there are no
    more; the mean of these. Of few images content has a part in it; of independent numbers it is ``chance_mic``, which depends
    on the number of tokens: compare figures of equal ``tokens`` alone. NaN without a token.
    """
    count, height, width, depth = features.shape
    places = count * height * width
    if not places or not depth:
        return math.nan
    drawn = np.arange(places)
    if places > tokens:
        drawn = np.sort(np.random.default_rng(seed).choice(places, tokens, replace=False))
    taken = np.unique(np.linspace(0, depth - 1, min(channels, depth)).round().astype(int))
    where = torch.from_numpy(drawn).to(features.device)
    values = (
        features.reshape(places, depth)[where][:, torch.from_numpy(taken).to(features.device)].double().cpu().numpy()
    )
    coordinates = np.unravel_index(drawn, (count, height, width))[1:]
    found = [maximal_information(axis.astype(float), channel) for axis in coordinates for channel in values.T]
    return float(np.mean(found))


def chance_mic(
    images: int, grid: tuple[int, int], channels: int = MIC_CHANNELS, tokens: int = MIC_TOKENS, seed: int = 0
) -> float:
    """Return what ``position_mic`` gives for as many images of independent numbers: the level below which nothing is told.

    MIC depends on the order of values alone, so that it is the same whatever the features' distribution.
    """
    noise = torch.randn(images, *grid, channels, generator=torch.Generator().manual_seed(seed))
    return position_mic(noise, channels, tokens, seed)
