"""Figures of one decomposition, named as the columns of the manifest's `features`. NaN where a figure has no meaning."""

import math

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from .decomposition import Decomposition

__all__ = ["heldout", "norms", "shares"]


def norms(raw: Float[Tensor, "h w c"]) -> dict[str, float]:
    """Return the smallest, median and largest L2 norm of the patch tokens."""
    lengths = raw.norm(dim=-1).flatten()
    return {
        "norm_min": float(lengths.min()),
        "norm_median": float(lengths.median()),
        "norm_max": float(lengths.max()),
    }


def shares(parts: Decomposition) -> dict[str, float]:
    """Return the mean cosine of raw and clean, and the variance of artifact and residual over that of raw.

    Variance is over positions, summed over channels.
    """
    if parts.clean is None or parts.artifact is None or parts.residual is None:
        return {}
    total = spread(parts.raw)
    return {
        "cos_raw_clean": float(F.cosine_similarity(parts.raw, parts.clean, dim=-1).mean()),
        "artifact_share": spread(parts.artifact) / total if total > 0 else math.nan,
        "residual_share": spread(parts.residual) / total if total > 0 else math.nan,
    }


def spread(values: Float[Tensor, "h w c"]) -> float:
    """Return the variance over positions, summed over channels."""
    flat = values.double().flatten(0, 1)
    return float((flat - flat.mean(dim=0)).square().mean(dim=0).sum())


def heldout(predicted: Float[Tensor, "*place c"], raw: Float[Tensor, "*place c"]) -> dict[str, float]:
    """Return how well raw features never seen in the fit are predicted.

    R² = 1 − Σ‖raw − predicted‖² / Σ‖raw − mean‖² with each channel's mean over all held-out patches, all channels pooled; and
    the mean cosine.
    """
    if raw.numel() == 0:
        return {"heldout_r2": math.nan, "heldout_cos": math.nan}
    flat, guess = raw.reshape(-1, raw.shape[-1]).double(), predicted.reshape(-1, raw.shape[-1]).double()
    total = float((flat - flat.mean(dim=0)).square().sum())
    left = float((flat - guess).square().sum())
    cosine = float(torch.nan_to_num(F.cosine_similarity(flat, guess, dim=-1)).mean())
    return {"heldout_r2": 1 - left / total if total > 0 else math.nan, "heldout_cos": cosine}
