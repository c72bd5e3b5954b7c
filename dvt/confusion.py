"""Labels given against labels true: counts of both, accuracy and mean IoU of them, and how sure these are."""

import math
from collections.abc import Callable

import torch
from jaxtyping import Float, Int, Real
from torch import Tensor

__all__ = ["accuracy", "bootstrap", "count_pairs", "mean_iou"]

DRAWS = 1000
AT_ONCE = 50


def count_pairs(truth: Int[Tensor, " n"], given: Int[Tensor, " n"], classes: int) -> Int[Tensor, "k k"]:
    """Return how often each true label (row) was given each label (column), on the CPU."""
    return torch.bincount(truth * classes + given, minlength=classes * classes).reshape(classes, classes).cpu()


def accuracy(counts: Tensor) -> Float[Tensor, "*draws"]:
    """Return the share of labels given rightly, of counts (…, K, K); NaN without any."""
    counts = counts.double()
    return counts.diagonal(dim1=-2, dim2=-1).sum(dim=-1) / counts.sum(dim=(-2, -1))


def mean_iou(counts: Tensor) -> Float[Tensor, "*draws"]:
    """Return the IoU averaged over the classes that are truly there, of counts (…, K, K); NaN without any."""
    counts = counts.double()
    both, true, given = counts.diagonal(dim1=-2, dim2=-1), counts.sum(dim=-1), counts.sum(dim=-2)
    there = true > 0
    share = torch.where(there, both / (true + given - both).clamp(min=1), 0.0)
    return share.sum(dim=-1) / there.sum(dim=-1)


def bootstrap(
    figure: Callable[[Tensor], Tensor],
    counts: Real[Tensor, "n rows columns"],
    peer: Real[Tensor, "n rows columns"] | None = None,
    seed: int = 0,
) -> tuple[float, float]:
    """Return the interval that holds a figure with 95 % (percentiles of 1,000 draws of as many images, with replacement).

    ``counts`` are amounts of each image that add up; with a ``peer`` it is the interval of the figure less the peer's on the
    same draws. NaN for fewer than two images. That of a mean IoU leans upwards, since drawn images may miss rare classes,
    which then do not count; of a difference both sides miss them.
    """
    if len(counts) < 2:
        return math.nan, math.nan
    generator = torch.Generator().manual_seed(seed)
    drawn = torch.randint(len(counts), (DRAWS, len(counts)), generator=generator)
    times = torch.zeros(DRAWS, len(counts), dtype=torch.float64)
    times.scatter_add_(1, drawn, torch.ones_like(drawn, dtype=torch.float64))
    found = []
    for some in torch.split(times, AT_ONCE):
        value = figure(torch.einsum("dn,nkl->dkl", some, counts.double()))
        if peer is not None:
            value = value - figure(torch.einsum("dn,nkl->dkl", some, peer.double()))
        found.append(value)
    low, high = torch.cat(found).nanquantile(torch.tensor([0.025, 0.975], dtype=torch.float64)).tolist()
    return low, high
