"""What a depth head is trained by: the scale-invariant loss of log depths, and that of their gradients."""

import torch
from jaxtyping import Bool, Float
from torch import Tensor

__all__ = ["GRADIENT", "gradient_loss", "scale_invariant_loss"]

GRADIENT = 0.5
"""Weight of the gradient loss beside the scale-invariant one, in DINOv2's depth configurations."""
STRIDES = (1, 2, 4, 6)
APART = 2


def scale_invariant_loss(
    given: Float[Tensor, " n"], true: Float[Tensor, " n"], share: float = 0.85, eps: float = 1e-3
) -> Float[Tensor, ""]:
    """Return √(mean d² − share · (mean d)²) of d = log given − log true: Eigen et al. 2014; 0 for fewer than two values."""
    if len(given) < 2:
        return given.sum() * 0
    away = torch.log(given + eps) - torch.log(true + eps)
    inner = away.square().mean() - share * away.mean().square()
    return inner.clamp(min=1e-12).sqrt()


def gradient_loss(
    given: Float[Tensor, "n h w"], true: Float[Tensor, "n h w"], known: Bool[Tensor, "n h w"], eps: float = 1e-3
) -> Float[Tensor, ""]:
    """Return Σ over four scales of (Σ |∇x d| + Σ |∇y d|) / count, d = log given − log true at the pixels ``known``.

    MegaDepth's gradient matching (Li and Snavely, CVPR 2018, arXiv 1804.00607) with DINOv2's scales: every pixel, every
    second, fourth and sixth of rows and columns; ∇ is the difference of values two apart at that scale, of which both have
    to be known; the count is that of the scale's known pixels. A common factor of all depths costs nothing. Gradients are
    those of each image, as in DINOv3's evaluation: DINOv2's published code takes them along the first two axes of
    (N, 1, H, W), which are images and channels.
    """
    away = torch.where(known, torch.log(given + eps) - torch.log(true + eps), 0.0)
    total = given.sum() * 0
    for stride in STRIDES:
        coarse, there = away[:, ::stride, ::stride], known[:, ::stride, ::stride]
        down = (coarse[:, APART:] - coarse[:, :-APART]).abs() * (there[:, APART:] & there[:, :-APART])
        across = (coarse[..., APART:] - coarse[..., :-APART]).abs() * (there[..., APART:] & there[..., :-APART])
        total = total + (down.sum() + across.sum()) / there.sum().clamp(min=1)
    return total
