"""Tasks on stored features that train nothing: labels of patches by nearest neighbours, and how much of them is position."""

from collections.abc import Callable, Iterator
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from featstore.aligned import one_grid
from featstore.errors import InputError
from featstore.truths import IGNORED, labels_of

from .evaluating import (
    SEGMENTATION,
    Job,
    depth,
    known_classes,
    mean_over_images,
    numbered,
    segmentation,
    segmentation_score,
)
from .evaluating_objects import discovery

if TYPE_CHECKING:
    import torch

    from featstore import FeatureDataset

    from .evaluating import Outcome

__all__ = ["TASKS"]

AN_IMAGE, IN_ALL = 400, 200_000  # patches that kNN knows


def knn(job: Job) -> "Outcome":
    """Label the patches of images to judge by with those nearest by cosine; nothing is drawn but patches of large sets."""
    import torch

    import dvt

    truth, judged = job.data(train=True, mask=True), job.data(train=False, mask=True)
    classes = known_classes(truth, judged)
    sides = {True: patch_classes(job, truth, classes), False: patch_classes(job, judged, classes)}
    outcome: Outcome = {}
    limit = max(1, min(AN_IMAGE, IN_ALL // len(truth)))
    for variant in job.variants:
        drawn = np.random.default_rng(0)
        known, names, counts = [], [], []
        for labels, features in zip(sides[True], maps(job.data(train=True), variant), strict=True):
            order = torch.from_numpy(drawn.permutation(len(labels)))
            picked = order[labels[order] >= 0][:limit]
            known.append(features[picked])
            names.append(labels[picked])
        fitted, given = torch.cat(known).to(job.device), torch.cat(names).to(job.device)
        for labels, features in zip(sides[False], maps(job.data(train=False), variant), strict=True):
            there = labels >= 0
            found = dvt.knn_labels(fitted, given, features[there].to(job.device), job.neighbours)
            counts.append(dvt.count_pairs(labels[there], found.cpu(), len(classes)))
        job.advance(1)
        whole = torch.stack(counts)[None]
        outcome |= {(variant, name): dvt.Sums(whole, partial(segmentation_score, name)) for name in SEGMENTATION}
    return outcome


def position(job: Job) -> "Outcome":
    """Return the share of variance that positions explain, and MIC, of all images judged; maps must be on one grid.

    MIC is taken of 16 drawn images a seed, each with another channel.
    """
    import torch

    import dvt

    outcome: Outcome = {}
    for variant in job.variants:
        data = job.data(train=False)
        if data.ragged:
            told = one_grid(data.stored[0].grids[data.stored[0].shard])
            raise InputError(f"{job.version.name} has maps of several grids: {told.replace('--where', '--val-where')}")
        share = dvt.JackknifeShare()
        for start in range(0, len(data), job.options.batch):
            batch = data.batch(range(start, min(len(data), start + job.options.batch)))[variant]
            share.add(batch.permute(0, 2, 3, 1).to(job.device))
        outcome[variant, "variance explained"] = share.estimate()
        pairs = job.seeds * dvt.MIC_PAIRS
        some = np.random.default_rng(0).permutation(len(data))[:pairs]
        mics = dvt.position_mics(data.batch(some.tolist())[variant].permute(0, 2, 3, 1).float(), pairs)
        amounts = torch.zeros(1, len(some), 1, 2, dtype=torch.float64)
        for number, value in enumerate(mics):
            amounts[0, number % len(some), 0] += torch.tensor([float(value), 1.0])
        outcome[variant, "MIC"] = dvt.Sums(amounts, partial(mean_over_images, 0))
        job.advance(1)
    return outcome


def patch_classes(job: Job, data: "FeatureDataset", classes: Any) -> list["torch.Tensor"]:
    """Return the number (H·W,) of the label that most pixels of each patch have, −1 for none."""
    import torch

    import dvt

    masks = (numbered(labels_of(data, place), classes) for place in range(len(data)))
    grids = (data.stored[0].grid(place) for place in range(len(data)))
    return [torch.from_numpy(dvt.patch_labels(*each, (IGNORED,))) for each in zip(masks, grids, strict=True)]


def maps(data: "FeatureDataset", variant: str) -> Iterator["torch.Tensor"]:
    """Yield each image's features (H·W, C) float32."""
    yield from (data[place][variant].flatten(1).T.float() for place in range(len(data)))


TASKS: dict[str, Callable[[Job], "Outcome"]] = {
    "segmentation": segmentation,
    "knn": knn,
    "depth": depth,
    "position": position,
    "discovery": discovery,
}
