"""Methods side by side on the same images: what each makes of their features, and what labels those are worth."""

import math
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Tensor

from .confusion import accuracy, bootstrap, count_pairs, mean_iou
from .errors import SolverError
from .position import position_share
from .probe import knn_labels, ridge_labels

__all__ = ["Figure", "MethodResult", "Patches", "judge", "run_method"]

TRAINED = 400  # patches of an image to fit by
FIGURES = {"knn": mean_iou, "linear": accuracy}


@dataclass(frozen=True)
class Figure:
    """A figure with its 95 % interval over the images judged, and the same of its difference from the peer's."""

    value: float
    interval: tuple[float, float]
    difference: float = math.nan
    difference_interval: tuple[float, float] = (math.nan, math.nan)


@dataclass
class MethodResult:
    """What a method made of some images: clean maps (N, H, W, C), raw where it has none, float16 on the CPU, and figures.

    ``position`` is the share of variance that positions explain (``position_share``), ``heldout_r2`` and ``cos_raw_clean``
    are means over images, NaN where the method has none, ``seconds`` are those of one image, from its pixels to its maps
    [s].
    """

    method: str
    forwards: int
    maps: Float[Tensor, "n h w c"]
    seconds: float
    position: float
    heldout_r2: float = math.nan
    cos_raw_clean: float = math.nan
    probes: dict[str, Figure] = field(default_factory=dict)
    counts: dict[str, Tensor] = field(default_factory=dict)

    def told(self) -> dict[str, Any]:
        """Return the figures, JSON-ready."""
        kept = ("method", "forwards", "seconds", "position", "heldout_r2", "cos_raw_clean")
        return {name: getattr(self, name) for name in kept} | {name: asdict(one) for name, one in self.probes.items()}


@dataclass(frozen=True)
class Patches:
    """Labels (H·W,) of the images' patches, −1 for none; ``judged`` says which images are to judge by, the others to fit
    by.
    """

    labels: Sequence[NDArray[np.int64]]
    judged: Sequence[bool]


def run_method(decomposer: Any, images: Sequence[tuple[NDArray[np.uint8], str]], advance: Any = None) -> MethodResult:
    """Compute images, (h, w, 3) pixels with a key, as a build would, and keep what is to be compared."""
    maps: list[Tensor] = []
    stats: list[dict[str, float]] = []
    started = time.perf_counter()
    for start in range(0, len(images), decomposer.batch_size):
        batch = images[start : start + decomposer.batch_size]
        for one in decomposer.decompose([decomposer.prepare(pixels, key) for pixels, key in batch]):
            maps.append((one.raw if one.clean is None else one.clean).half())
            stats.append(dict(one.stats))
        if advance is not None:
            advance(len(batch))
    seconds = (time.perf_counter() - started) / max(1, len(images))
    stacked = torch.stack(maps)
    result = MethodResult(
        decomposer.method, decomposer.forwards_per_image, stacked, seconds, position_share(stacked.float())
    )
    result.heldout_r2, result.cos_raw_clean = (mean(stats, name) for name in ("heldout_r2", "cos_raw_clean"))
    return result


def mean(stats: Sequence[dict[str, float]], name: str) -> float:
    """Return the mean of a figure over the images that have it."""
    known = [one[name] for one in stats if math.isfinite(one.get(name, math.nan))]
    return sum(known) / len(known) if known else math.nan


def judge(result: MethodResult, patches: Patches, peer: MethodResult | None = None, seed: int = 0) -> None:
    """Give a result its ``probes``: kNN mean IoU and linear accuracy of patch labels, beside the peer's on the same images.

    kNN takes 20 neighbours by cosine; the linear map is a ridge regression on standardised channels, its ridge chosen by the
    images to fit by. Of each of those at most 400 patches take part, drawn. Raises SolverError where nothing can be judged.
    """
    names, compact = compacted(patches)
    drawn = np.random.default_rng(seed)
    known: list[tuple[Tensor, Tensor]] = []
    asked: list[tuple[Tensor, Tensor]] = []
    for features, own, judged in zip(result.maps.flatten(1, 2), compact, patches.judged, strict=True):
        order = torch.from_numpy(drawn.permutation(len(own)))
        picked = order if judged else order[:TRAINED]
        picked = picked[own[picked] >= 0]
        (asked if judged else known).append((features[picked].float(), own[picked]))
    if not any(len(own) for _, own in known) or not any(len(own) for _, own in asked):
        raise SolverError("there is no labelled patch to fit or to judge by")
    fitted, labels = [features for features, _ in known], [own for _, own in known]
    queries, sizes = torch.cat([features for features, _ in asked]), [len(own) for _, own in asked]
    given = {"knn": knn_labels(torch.cat(fitted), torch.cat(labels), queries)}
    given["linear"] = ridge_labels(fitted, labels, queries, len(names))[0]
    for name in FIGURES:
        parts = zip(asked, torch.split(given[name], sizes), strict=True)
        result.counts[name] = torch.stack([count_pairs(true, found, len(names)) for (_, true), found in parts])
        result.probes[name] = figure_of(name, result.counts[name], None if peer is None else peer.counts[name])


def figure_of(name: str, counts: Tensor, peer: Tensor | None) -> Figure:
    """Return a figure of the counts of each image (N, K, K), beside the peer's."""
    of = FIGURES[name]
    value = float(of(counts.sum(dim=0)))
    if peer is None:
        return Figure(value, bootstrap(of, counts))
    return Figure(value, bootstrap(of, counts), value - float(of(peer.sum(dim=0))), bootstrap(of, counts, peer))


def compacted(patches: Patches) -> tuple[list[int], list[Tensor]]:
    """Return the labels there are, and every image's as numbers among them."""
    names = sorted({int(label) for own in patches.labels for label in np.unique(own) if label >= 0})
    at = {name: number for number, name in enumerate(names)}
    return names, [torch.tensor([at.get(label, -1) for label in own.tolist()]) for own in patches.labels]
