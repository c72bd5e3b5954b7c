"""What features are worth without training a network: labels of patches by nearest neighbours, and by one linear map."""

from collections.abc import Collection, Sequence

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from numpy.typing import NDArray
from torch import Tensor

from .confusion import count_pairs, mean_iou

__all__ = ["knn_labels", "patch_labels", "ridge_labels", "ridge_weights"]

NEIGHBOURS = 20
RIDGES = (10.0, 100.0, 1000.0, 10_000.0)
FOLDS = 4
QUERIES = 4096


def patch_labels(mask: NDArray[np.integer], grid: tuple[int, int], ignored: Collection[int] = ()) -> NDArray[np.int64]:
    """Return the label (H·W,) that most pixels of each patch have in a mask (h, w), row by row; −1 where that is ``ignored``.

    Of equally many the smallest; −1 where no pixel lies in a patch.
    """
    rows, columns = (np.arange(side) * count // side for side, count in zip(mask.shape, grid, strict=True))
    cell = rows[:, None] * grid[1] + columns[None, :]
    classes, codes = np.unique(mask, return_inverse=True)
    counts = np.bincount(
        (cell * len(classes) + codes.reshape(mask.shape)).ravel(), minlength=grid[0] * grid[1] * len(classes)
    )
    votes = counts.reshape(-1, len(classes))
    label = classes.astype(np.int64)[votes.argmax(axis=1)]
    return np.where(np.isin(label, list(ignored)) | (votes.sum(axis=1) == 0), -1, label)


def knn_labels(
    known: Float[Tensor, "n c"], labels: Int[Tensor, " n"], asked: Float[Tensor, "m c"], count: int = NEIGHBOURS
) -> Int[Tensor, " m"]:
    """Return the labels that the ``count`` nearest known features by cosine give, each with its cosine as its vote.

    ``labels`` are 0 … K − 1, none ignored.
    """
    reference, count = F.normalize(known, dim=1), min(count, len(known))
    classes = int(labels.max()) + 1
    found = []
    for queries in torch.split(F.normalize(asked, dim=1), QUERIES):
        near = (queries @ reference.T).topk(count, dim=1)
        votes = near.values.new_zeros(len(queries), classes)
        votes.scatter_add_(1, labels[near.indices], near.values)
        found.append(votes.argmax(dim=1))
    return torch.cat(found)


def ridge_weights(
    features: Float[Tensor, "n c"], labels: Int[Tensor, " n"], classes: int, ridges: Sequence[float]
) -> list[Float[Tensor, "rows k"]]:
    """Return, for each ridge, the linear map (C + 1, K) that minimises ‖Xw − y‖² + ridge ‖w‖², whose last row is the
    intercept.

    y is 1 for a patch's label and −1 for the others; X are the features, each channel with mean 0 and variance 1, which the
    map takes as they come. float64.
    """
    values = features.double()
    mean, deviation = values.mean(dim=0), values.std(dim=0, correction=0)
    deviation = torch.where(deviation > 0, deviation, 1.0)
    standard = (values - mean) / deviation
    wanted = 2 * F.one_hot(labels, classes).double() - 1
    level = wanted.mean(dim=0)
    gram, shared = standard.T @ standard, standard.T @ (wanted - level)
    maps = []
    for ridge in ridges:
        inner = torch.linalg.solve(gram + ridge * torch.eye(len(gram), dtype=gram.dtype, device=gram.device), shared)
        inner = inner / deviation[:, None]
        maps.append(torch.cat([inner, (level - mean @ inner)[None]]))
    return maps


def applied(weights: Float[Tensor, "rows k"], features: Float[Tensor, "n c"]) -> Int[Tensor, " n"]:
    """Return the labels that a map of ``ridge_weights`` gives."""
    return (features.double() @ weights[:-1] + weights[-1]).argmax(dim=1)


def ridge_labels(
    known: Sequence[Float[Tensor, "_ c"]],
    labels: Sequence[Int[Tensor, "_"]],
    asked: Float[Tensor, "m c"],
    classes: int,
    ridges: Sequence[float] = RIDGES,
) -> tuple[Int[Tensor, " m"], float]:
    """Return the labels that one linear map gives, and its ridge; ``known`` and ``labels`` come image by image.

    The ridge is that of ``ridges`` with the best mean IoU over four folds of the images, which keeps the queries out of it.
    """
    chosen = ridges[0]
    if len(known) >= FOLDS and len(ridges) > 1:
        found = torch.zeros(len(ridges), classes, classes, dtype=torch.int64)
        for fold in range(FOLDS):
            fit = [n for n in range(len(known)) if n % FOLDS != fold]
            own, truth = torch.cat(list(known[fold::FOLDS])), torch.cat(list(labels[fold::FOLDS]))
            maps = ridge_weights(
                torch.cat([known[n] for n in fit]), torch.cat([labels[n] for n in fit]), classes, ridges
            )
            found += torch.stack([count_pairs(truth, applied(weights, own), classes) for weights in maps])
        chosen = ridges[int(mean_iou(found).argmax())]
    (weights,) = ridge_weights(torch.cat(list(known)), torch.cat(list(labels)), classes, (chosen,))
    return applied(weights, asked), chosen
