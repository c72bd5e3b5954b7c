"""Judging a denoiser by images it has not seen: how near it comes to clean, and how much positions still explain."""

import math
from collections.abc import Iterable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from .position import PositionShare
from .precision import autocast

__all__ = ["Validation", "validate"]


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
