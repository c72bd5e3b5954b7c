"""Figures of one decomposition, named as the columns of the manifest's `features`. NaN where a figure has no meaning."""

import math

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

__all__ = ["figures", "heldout"]


def figures(
    raw: Float[Tensor, "n h w c"],
    clean: Float[Tensor, "n h w c"] | None = None,
    artifact: Float[Tensor, "#n h w c"] | None = None,
) -> list[dict[str, float]]:
    """Return each image's figures, worked out where the maps are and fetched at once.

    The smallest, median and largest L2 norm of raw's patch tokens; with clean and artifact the mean cosine of raw and clean,
    and the variance of artifact and residual over that of raw (over positions, summed over channels).
    """
    lengths = raw.norm(dim=-1).flatten(1)
    found = {
        "norm_min": lengths.amin(dim=1),
        "norm_median": lengths.median(dim=1).values,
        "norm_max": lengths.amax(dim=1),
    }
    if clean is not None and artifact is not None:
        total = spread(raw)
        total = torch.where(total > 0, total, math.nan)
        found |= {
            "cos_raw_clean": F.cosine_similarity(raw, clean, dim=-1).mean(dim=(1, 2)),
            "artifact_share": spread(artifact) / total,
            "residual_share": spread(raw - clean - artifact) / total,
        }
    table = torch.stack([values.double() for values in found.values()], dim=1).tolist()
    return [dict(zip(found, row, strict=True)) for row in table]


def spread(values: Float[Tensor, "n h w c"]) -> Float[Tensor, " n"]:
    """Return each map's variance over positions, summed over channels, in float64."""
    flat = values.double().flatten(1, 2)
    return (flat - flat.mean(dim=1, keepdim=True)).square().mean(dim=1).sum(dim=1)


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
