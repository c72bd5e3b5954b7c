"""Linear heads on stored features: one version's variants on the same images, a head a variant and seed."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from featstore.geometry import nearest
from featstore.query import restricted
from featstore.truths import IGNORED, Parts, classes_of, depth_of, labels_of
from featstore.versions import Version

if TYPE_CHECKING:
    import torch

    from dvt import ClassHead, HeadOptions, Jackknifed, Sums
    from featstore import FeatureDataset

    Targets = Mapping[str, torch.Tensor]
    Outcome = dict[tuple[str, str], Sums | Jackknifed]

__all__ = [
    "SEGMENTATION",
    "Job",
    "Outcome",
    "depth",
    "known_classes",
    "mean_over_images",
    "numbered",
    "segmentation",
    "segmentation_score",
]

DEPTHS = (1e-3, 10.0)
SEGMENTATION = ("mIoU", "aAcc", "mAcc")


@dataclass(frozen=True)
class Job:
    """Variants of one version and the images they are measured on; ``device`` is PyTorch's, ``over`` what intervals are over.

    A task gives for every variant and metric what figure, interval and differences are made of (an ``Outcome``).
    """

    root: Path
    version: Version
    variants: tuple[str, ...]
    parts: Parts
    options: "HeadOptions"
    seeds: int
    device: Any
    neighbours: int
    k_patches: int
    gradient: float
    over: Literal["seeds", "images"]
    advance: Callable[[int], None] = lambda count: None

    def data(self, train: bool, **wanted: bool) -> "FeatureDataset":
        """Open the images to train on, or those to judge by."""
        from featstore import FeatureDataset

        chosen = {"backbone": self.version.backbone, "version": f"v{self.version.number}", "variants": self.variants}
        ids = self.parts.train if train else self.parts.val
        return FeatureDataset(self.root, self.version.dataset, image_ids=ids, **chosen, **wanted)  # type: ignore[arg-type]


def segmentation(job: Job) -> "Outcome":
    """Train a linear head a variant and seed, and count pixels of masks at their own size."""
    import torch

    import dvt

    truth, judged = job.data(train=True, mask=True), job.data(train=False, mask=True)
    classes = known_classes(truth, judged)
    targets = {
        name: torch.from_numpy(nearest(numbered(labels_of(truth, place), classes), finer(job, truth, place)))
        for place, name in enumerate(truth.image_ids)
    }
    heads = trained(job, targets, lambda generator: dvt.ClassHead(job.version.channels, len(classes), generator))
    counts = Tally(job)
    for place, item in judged_items(job):
        labels = torch.from_numpy(numbered(labels_of(judged, place), classes))
        there = labels != IGNORED
        for key, head in heads.items():
            given = predicted(job, head, item[key[0]], tuple(labels.shape)).argmax(dim=0).cpu()
            counts.add(key, dvt.count_pairs(labels[there], given[there], len(classes)))
    return counts.outcome({name: partial(segmentation_score, name) for name in SEGMENTATION})


def segmentation_score(name: str, counts: "torch.Tensor") -> "torch.Tensor":
    """Return one figure of counts (…, K, K)."""
    import dvt

    return dvt.segmentation_scores(counts)[name]


def depth(job: Job) -> "Outcome":
    """Train a linear depth head a variant and seed; figures are means over the images judged, maps at their own size."""
    import torch

    import dvt

    truth, judged = job.data(train=True, depth=True), job.data(train=False, depth=True)
    targets = {
        name: torch.from_numpy(nearest(depth_of(truth, place), finer(job, truth, place)))
        for place, name in enumerate(truth.image_ids)
    }
    heads = trained(
        job, targets, lambda g: dvt.DepthHead(job.version.channels, *DEPTHS, gradient=job.gradient, generator=g)
    )
    crop = dvt.EIGEN_CROP if layout_of(job) == "nyu" else None
    scores = Tally(job)
    for place, item in judged_items(job):
        true = torch.from_numpy(depth_of(judged, place, crop))
        for key, head in heads.items():
            given = predicted(job, head, item[key[0]], tuple(true.shape)).cpu()
            found = dvt.depth_scores(given, true, *DEPTHS)
            row = [*found.values(), 1] if found else [0] * (len(dvt.DEPTH_METRICS) + 1)
            scores.add(key, torch.tensor([row], dtype=torch.float64))
    return scores.outcome({name: partial(mean_over_images, place) for place, name in enumerate(dvt.DEPTH_METRICS)})


def mean_over_images(place: int, sums: "torch.Tensor") -> "torch.Tensor":
    """Return the mean of one figure, of sums (…, 1, figures + 1) whose last is a count of images."""
    return sums[..., 0, place] / sums[..., 0, -1]


class Tally:
    """What each head made of each image judged: amounts (K, L) that add up; added at once where seeds alone are told apart."""

    def __init__(self, job: Job) -> None:
        self.job, self.found = job, dict[tuple[str, int], list["torch.Tensor"]]()

    def add(self, key: tuple[str, int], amounts: "torch.Tensor") -> None:
        """Take what one image gives of a variant and seed."""
        held = self.found.setdefault(key, [])
        if held and self.job.over == "seeds" and self.job.seeds > 1:
            held[0] = held[0] + amounts
        else:
            held.append(amounts)

    def outcome(self, scores: Mapping[str, Callable[["torch.Tensor"], "torch.Tensor"]]) -> "Outcome":
        """Return the figures that sums give, by name."""
        import torch

        import dvt

        outcome: Outcome = {}
        for variant in self.job.variants:
            seeds = [torch.stack(self.found[variant, seed]) for seed in range(self.job.seeds)]
            for name, score in scores.items():
                outcome[variant, name] = dvt.Sums(torch.stack(seeds), score, self.job.over)
        return outcome


def trained(job: Job, targets: "Targets", make: Callable[["torch.Generator"], "ClassHead"]) -> dict[Any, "ClassHead"]:
    """Return a head of each variant and seed; the seed decides the first weights and the order of the images."""
    import torch

    import dvt

    heads = {}
    for variant in job.variants:
        for seed in range(job.seeds):
            head = make(torch.Generator().manual_seed(seed)).to(job.device)
            dvt.train_head(head, batches(job, variant, targets, seed), job.options)
            heads[variant, seed] = head
            job.advance(1)
    return heads


def batches(job: Job, variant: str, targets: "Targets", seed: int) -> Iterator[tuple["torch.Tensor", "torch.Tensor"]]:
    """Yield batches of features and what they should tell, epoch after epoch."""
    import torch

    import featstore

    data = job.data(train=True)
    load = featstore.loader(data, job.options.batch, shuffle="shards", seed=seed, workers=1, device=job.device)
    epoch = 0
    while True:
        load.set_epoch(epoch)
        for batch in load:
            true = torch.stack([targets[name] for name in batch["image_id"]])
            yield batch[variant].float(), true.to(job.device)
        epoch += 1


def predicted(job: Job, head: "ClassHead", features: "torch.Tensor", size: tuple[int, ...]) -> "torch.Tensor":
    """Return what a head makes of one image at ``size``."""
    import torch

    with torch.no_grad():
        found: torch.Tensor = head(features[None].float().to(job.device), size)[0]
    return found


def judged_items(job: Job) -> Iterator[tuple[int, dict[str, Any]]]:
    """Yield place and features of the images to judge by."""
    data = job.data(train=False)
    yield from ((place, data[place]) for place in range(len(data)))


def finer(job: Job, data: "FeatureDataset", place: int) -> tuple[int, int]:
    """Return the size at which a sample's loss is taken: the grid times ``upsample``."""
    height, width = data.stored[0].grid(place)
    return height * job.options.upsample, width * job.options.upsample


def known_classes(*parts: "FeatureDataset") -> "np.ndarray[Any, np.dtype[np.int64]]":
    """Return the labels that count, sorted: those that the layout names, else all that are in the masks."""
    named = classes_of(parts[0])
    if named is None:
        seen = {
            int(label) for data in parts for place in range(len(data)) for label in np.unique(labels_of(data, place))
        }
        named = tuple(sorted(seen - {IGNORED}))
    return np.array(named, np.int64)


def numbered(mask: Any, classes: Any) -> Any:
    """Return a mask's labels as numbers among ``classes``, −1 for those that are none of them."""
    at = np.searchsorted(classes, mask).clip(max=len(classes) - 1)
    return np.where(classes[at] == mask, at, IGNORED)


def layout_of(job: Job) -> str:
    """Return the layout of the data set."""
    with restricted(job.root, job.version.dataset) as connection:
        return str(connection.execute("SELECT layout FROM datasets").fetchall()[0][0])
