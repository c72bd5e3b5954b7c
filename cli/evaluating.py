"""Linear heads on stored features: one version's variants on the same images, a head a variant and seed."""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from featstore.evaluations import Figure
from featstore.geometry import nearest
from featstore.query import restricted
from featstore.truths import IGNORED, Parts, classes_of, depth_of, labels_of
from featstore.versions import Version

if TYPE_CHECKING:
    import torch

    from dvt import ClassHead, HeadOptions
    from featstore import FeatureDataset

    Targets = Mapping[str, torch.Tensor]
    Samples = Mapping[tuple[str, int], Sequence[Mapping[str, float]]]

__all__ = ["Job", "Outcome", "depth", "known_classes", "numbered", "seeded", "segmentation"]

OVER_SEEDS, DEPTHS = "seeds (t)", (1e-3, 10.0)


@dataclass(frozen=True)
class Job:
    """Variants of one version and the images they are measured on; ``device`` is PyTorch's."""

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
    advance: Callable[[int], None] = lambda count: None

    def data(self, train: bool, **wanted: bool) -> "FeatureDataset":
        """Open the images to train on, or those to judge by."""
        from featstore import FeatureDataset

        chosen = {"backbone": self.version.backbone, "version": f"v{self.version.number}", "variants": self.variants}
        ids = self.parts.train if train else self.parts.val
        return FeatureDataset(self.root, self.version.dataset, image_ids=ids, **chosen, **wanted)  # type: ignore[arg-type]


@dataclass(eq=False)
class Outcome:
    """Figures of all variants, and behind each first metric what differences from a peer are taken of.

    ``seeds`` are values a seed by variant; ``counts`` (N, K, K) are confusions of each image, of which ``score`` makes the
    first metric.
    """

    figures: list[Figure]
    seeds: dict[str, list[float]] = field(default_factory=dict)
    counts: dict[str, Any] = field(default_factory=dict)
    score: Callable[[Any], Any] | None = None


def segmentation(job: Job) -> Outcome:
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
    counts = {key: torch.zeros(len(classes), len(classes), dtype=torch.int64) for key in heads}
    for place, item in judged_items(job):
        labels = torch.from_numpy(numbered(labels_of(judged, place), classes))
        there = labels != IGNORED
        for key, head in heads.items():
            given = predicted(job, head, item[key[0]], tuple(labels.shape)).argmax(dim=0).cpu()
            counts[key] += dvt.count_pairs(labels[there], given[there], len(classes))
    scores = {key: {name: float(v) for name, v in dvt.segmentation_scores(c).items()} for key, c in counts.items()}
    return over_seeds(job, {key: [value] for key, value in scores.items()})


def depth(job: Job) -> Outcome:
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
    found: dict[tuple[str, int], list[Mapping[str, float]]] = {key: [] for key in heads}
    for place, item in judged_items(job):
        true = torch.from_numpy(depth_of(judged, place, crop))
        for key, head in heads.items():
            given = predicted(job, head, item[key[0]], tuple(true.shape)).cpu()
            scores = dvt.depth_scores(given, true, *DEPTHS)
            found[key] += [scores] if scores else []
    return over_seeds(job, found)


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


def over_seeds(job: Job, found: "Samples") -> Outcome:
    """Return means over seeds with t-intervals; a seed's own figures are means over what was judged one by one."""
    outcome = Outcome([])
    for variant in job.variants:
        own = [found[variant, seed] for seed in range(job.seeds)]
        names = list(own[0][0]) if own[0] else []
        values = {name: [math.fsum(s[name] for s in seed) / len(seed) for seed in own] for name in names}
        outcome.figures += [seeded(variant, name, values[name]) for name in names]
        outcome.seeds[variant] = values[names[0]] if names else []
    return outcome


def seeded(variant: str, name: str, values: list[float]) -> Figure:
    """Return the figure of several seeds."""
    import dvt

    return Figure(variant, name, *dvt.over_seeds(values), OVER_SEEDS if len(values) > 1 else None, len(values))
