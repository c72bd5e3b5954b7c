"""Figures of tasks: segmentation as mmsegmentation counts it, depth as Eigen et al. do, CorLoc, and means with intervals."""

import math
from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

__all__ = ["DEPTH_METRICS", "EIGEN_CROP", "box_iou", "corloc", "depth_scores", "over_seeds", "segmentation_scores"]

DEPTH_METRICS = ("RMSE", "AbsRel", "delta1", "delta2", "delta3")
"""What ``depth_scores`` gives, in order."""

EIGEN_CROP = (45, 471, 41, 601)
"""Top, bottom, left, right of the part of NYU's 480 × 640 that counts: Eigen et al., NeurIPS 2014 (arXiv 1406.2283)."""

# Student's t at 97.5 % for 1, 2 … degrees of freedom.
STUDENT = (
    *(12.7062, 4.3027, 3.1824, 2.7764, 2.5706, 2.4469, 2.3646, 2.3060, 2.2622, 2.2281),
    *(2.2010, 2.1788, 2.1604, 2.1448, 2.1314, 2.1199, 2.1098, 2.1009, 2.0930),
)


def segmentation_scores(counts: Tensor) -> dict[str, Float[Tensor, "*draws"]]:
    """Return mIoU, aAcc and mAcc of counts (…, K, K), true labels in rows; pixels that are ignored are not among them.

    As mmsegmentation's IoUMetric has them: IoU = both / (true + given − both) of a class, averaged over classes that are
    true or given anywhere; aAcc = the share of pixels labelled rightly; mAcc = recall averaged over classes that are true.
    NaN without a pixel.
    """
    counts = counts.double()
    both, true, given = counts.diagonal(dim1=-2, dim2=-1), counts.sum(dim=-1), counts.sum(dim=-2)
    return {
        "mIoU": (both / (true + given - both)).nanmean(dim=-1),
        "aAcc": both.sum(dim=-1) / true.sum(dim=-1),
        "mAcc": (both / true).nanmean(dim=-1),
    }


def depth_scores(
    given: Float[Tensor, "h w"], true: Float[Tensor, "h w"], least: float, most: float
) -> dict[str, float] | None:
    """Return RMSE [m], AbsRel and δ1 … δ3 of one image's depths [m], over pixels truly within (``least``, ``most``).

    What is given is clamped to that range first. δk is the share of pixels with max(given / true, true / given) < 1.25^k
    (Eigen et al. 2014). None without such a pixel. A data set's figures are means over its images.
    """
    there = (true > least) & (true < most)
    if not bool(there.any()):
        return None
    found, wanted = given[there].double().clamp(least, most), true[there].double()
    worse = torch.maximum(found / wanted, wanted / found)
    figures = [(found - wanted).square().mean().sqrt(), ((found - wanted).abs() / wanted).mean()]
    figures += [(worse < 1.25**power).double().mean() for power in (1, 2, 3)]
    return dict(zip(DEPTH_METRICS, torch.stack(figures).tolist(), strict=True))


def box_iou(box: Float[Tensor, " 4"], others: Float[Tensor, "k 4"]) -> Float[Tensor, " k"]:
    """Return the area that a box shares with each of several over the area of both; left, top, right, bottom each."""
    low, high = torch.maximum(box[:2], others[:, :2]), torch.minimum(box[2:], others[:, 2:])
    shared = (high - low).clamp(min=0).prod(dim=-1)
    return shared / ((box[2:] - box[:2]).prod() + (others[:, 2:] - others[:, :2]).prod(dim=-1) - shared)


def corloc(counts: Tensor) -> Float[Tensor, "*draws"]:
    """Return the share of images whose object was found, of counts (…, 1, 2): found, and judged. NaN without an image."""
    counts = counts.double()
    return counts[..., 0, 0] / counts[..., 0, 1]


def over_seeds(values: Sequence[float]) -> tuple[float, float, float]:
    """Return the mean of at most 20 values and the ends of its 95 % t-interval, mean ± t s / √n; NaN ends for a single one."""
    mean = math.fsum(values) / len(values)
    if len(values) < 2:
        return mean, math.nan, math.nan
    deviation = math.sqrt(math.fsum((value - mean) ** 2 for value in values) / (len(values) - 1))
    half = STUDENT[len(values) - 2] * deviation / math.sqrt(len(values))
    return mean, mean - half, mean + half
