"""Figures of one decomposition, named as the columns of the manifest's `features`. NaN where a figure has no meaning."""

import math

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

__all__ = ["FIGURES", "figures", "figures_table", "heldout"]


FIGURES = ("norm_min", "norm_median", "norm_max", "cos_raw_clean", "artifact_share", "residual_share")


def figures(
    raw: Float[Tensor, "n h w c"],
    clean: Float[Tensor, "n h w c"] | None = None,
    artifact: Float[Tensor, "#n h w c"] | None = None,
) -> list[dict[str, float]]:
    """Return each image's figures, as ``figures_table`` has them, fetched at once."""
    return [dict(zip(FIGURES, row, strict=False)) for row in figures_table(raw, clean, artifact).tolist()]


def figures_table(
    raw: Float[Tensor, "n h w c"],
    clean: Float[Tensor, "n h w c"] | None = None,
    artifact: Float[Tensor, "#n h w c"] | None = None,
) -> Float[Tensor, "n figures"]:
    """Return a row of ``FIGURES`` an image, float64, worked out where the maps are.

    The smallest, median and largest L2 norm of raw's patch tokens; with clean and artifact the mean cosine of raw and clean,
    and the variance of artifact and residual over that of raw (over positions, summed over channels).
    """
    lengths = raw.norm(dim=-1).flatten(1)
    found = [lengths.amin(dim=1), lengths.median(dim=1).values, lengths.amax(dim=1)]
    if clean is not None and artifact is not None:
        total = spread(raw)
        total = torch.where(total > 0, total, math.nan)
        found += [
            F.cosine_similarity(raw, clean, dim=-1).mean(dim=(1, 2)),
            spread(artifact) / total,
            spread(raw - clean - artifact) / total,
        ]
    return torch.stack([values.double() for values in found], dim=1)


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
