"""Judging a denoiser by images it has not seen: how near it comes to clean, and how much positions still explain."""

import math
from collections.abc import Iterable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from .precision import autocast

__all__ = ["PositionShare", "Validation", "validate"]


@dataclass(frozen=True)
class Validation:
    """Means over images never trained on, beside those of raw, which a denoiser must beat.

    ``loss`` is mse + 1 − cosine against clean; ``position`` the share of variance that positions explain in D(raw), in raw
    and in clean (``PositionShare``).
    """

    images: int
    loss: float
    mse: float
    cosine: float
    raw_mse: float
    raw_cosine: float
    position: float
    raw_position: float
    clean_position: float


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


@torch.inference_mode()
def validate(
    model: nn.Module,
    unseen: Iterable[tuple[Float[Tensor, "n h w c"], Float[Tensor, "n h w c"]]],
    device: torch.device,
    dtype: str,
) -> Validation:
    """Judge a model by batches of (raw, clean)."""
    training = model.training
    model.eval()
    sums = torch.zeros(4, dtype=torch.float64, device=device)
    shares = [PositionShare(), PositionShare(), PositionShare()]
    for raw, clean in unseen:
        raw, clean = (values.to(device).float() for values in (raw, clean))
        with autocast(device, dtype):
            found = model(raw)
        found = found.float()
        for start, values in ((0, found), (2, raw)):
            sums[start] += F.mse_loss(values, clean).double() * len(raw)
            sums[start + 1] += F.cosine_similarity(values, clean, dim=-1).mean().double() * len(raw)
        for share, values in zip(shares, (found, raw, clean), strict=True):
            share.add(values)
    model.train(training)
    images = shares[0].images
    mse, cosine, raw_mse, raw_cosine = (sums / images).tolist() if images else [math.nan] * 4
    positions = [share.value() for share in shares]
    return Validation(images, mse + 1 - cosine, mse, cosine, raw_mse, raw_cosine, *positions)
