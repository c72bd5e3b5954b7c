"""Solvers of stage 1 side by side on the same views of the same photographs: seconds, quality, memory."""

import resource
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Tensor

from .backbone import Backbone
from .quality import heldout
from .solvers import SolverOptions, solver_name
from .stage1 import Stage1Decomposer
from .view_features import Batch, Views
from .views import ViewOptions

__all__ = ["Measured", "Setting", "compare"]


@dataclass(frozen=True)
class Setting:
    """A solver with the views that it is given, and a name to show."""

    label: str
    solver: SolverOptions
    views: ViewOptions


@dataclass(frozen=True)
class Measured:
    """What one setting took and gave for one image.

    ``forward_seconds`` is the time its views took [s], cutting and resizing included; ``solve_seconds`` the fit's [s];
    ``peak_bytes`` what the device had allocated at most while solving (on the CPU: the process so far, all told). The held-out
    figures are of views cut from the full-resolution image and placed at patch centres, the same for every setting.
    """

    label: str
    solver: str
    views: int
    image: int
    forward_seconds: float
    solve_seconds: float
    heldout_r2: float
    heldout_cos: float
    cos_raw_clean: float
    artifact_share: float
    residual_share: float
    peak_bytes: int


def compare(
    backbone: Backbone,
    images: Sequence[tuple[NDArray[np.uint8], str]],
    settings: Sequence[Setting],
    batch_size: int = 4,
    encoding: str = "auto",
) -> Iterator[Measured]:
    """Run every setting on every image, (h, w, 3) pixels with a key, and yield what came of it, image by image.

    Settings that draw views alike share their features: fewer views are the first of more. Raises SolverError.
    """
    for number, (pixels, key) in enumerate(images):
        cache: dict[ViewOptions, tuple[Batch, float]] = {}
        unseen: dict[tuple[int, int] | None, tuple[Views, Tensor]] = {}
        for setting in settings:
            decomposer = Stage1Decomposer(backbone, setting.views, setting.solver, batch_size, encoding=encoding)
            size = decomposer.views.crop_input
            if size not in unseen:
                judge = replace(ViewOptions(views=1, holdout=setting.views.holdout), wide=1, crop_input=size)
                by = Stage1Decomposer(backbone, judge, batch_size=batch_size)
                views = by.prepare(pixels, key)
                unseen[size] = views, by.extract([views]).holdout[0]
            batch, seconds = features_of(decomposer, settings, pixels, key, cache)
            yield measure(decomposer, setting, batch, number, seconds, *unseen[size])


def features_of(
    decomposer: Stage1Decomposer,
    settings: Sequence[Setting],
    pixels: NDArray[np.uint8],
    key: str,
    cache: dict[ViewOptions, tuple[Batch, float]],
) -> tuple[Batch, float]:
    """Return one image's features as this decomposer needs them, and the seconds that they took or would have taken."""
    views = decomposer.prepare(pixels, key)
    drawn = replace(decomposer.views, views=1, holdout=0)
    if drawn not in cache:
        most = max(setting.views.views for setting in settings)
        every = Stage1Decomposer(
            decomposer.backbone,
            replace(decomposer.views, views=most, holdout=0),
            decomposer.solver,
            decomposer.forward_batch,
        )
        synchronise(decomposer)
        started = time.perf_counter()
        found = every.extract([every.prepare(pixels, key)])
        synchronise(decomposer)
        cache[drawn] = found, time.perf_counter() - started
    found, seconds = cache[drawn]
    groups = [group[:, : len(crops)] for group, crops in zip(found.groups, views.groups, strict=True)]
    patches = [group.shape[1] * group.shape[2] * group.shape[3] for group in found.groups]
    taken = [group.shape[1] * group.shape[2] * group.shape[3] for group in groups]
    return replace(found, images=[views], groups=groups), seconds * sum(taken) / sum(patches)


def measure(
    decomposer: Stage1Decomposer,
    setting: Setting,
    batch: Batch,
    number: int,
    seconds: float,
    standard: Views,
    unseen: Float[Tensor, "v h w c"],
) -> Measured:
    """Fit one setting to its features, and judge it by the features ``unseen`` of the crops held out of ``standard``."""
    reset_peak(decomposer)
    started = time.perf_counter()
    fit = decomposer.fit(batch.images, batch.groups)[0]
    synchronise(decomposer)
    solved = time.perf_counter() - started
    peak = peak_bytes(decomposer)
    parts = decomposer.take_apart(fit, batch.images[0], batch.groups[0][0, 0], batch.prefix[0])
    by = Stage1Decomposer(
        decomposer.backbone, ViewOptions(crop_input=decomposer.views.crop_input), batch_size=decomposer.forward_batch
    )
    shown = {name: parts.stats[name] for name in ("cos_raw_clean", "artifact_share", "residual_share")}
    shown |= heldout(by.predict(fit, standard, standard.holdout), unseen)
    name, used = solver_name(setting.solver), setting.views.views
    return Measured(setting.label, name, used, number, seconds, solved, peak_bytes=peak, **shown)


def synchronise(decomposer: Stage1Decomposer) -> None:
    """Wait for the device, so that a clock read next tells what was done."""
    if decomposer.backbone.device.type == "cuda":
        torch.cuda.synchronize(decomposer.backbone.device)


def reset_peak(decomposer: Stage1Decomposer) -> None:
    """Begin to count the device's peak anew."""
    if decomposer.backbone.device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(decomposer.backbone.device)


def peak_bytes(decomposer: Stage1Decomposer) -> int:
    """Return the device's peak since it was reset, or the process's."""
    if decomposer.backbone.device.type == "cuda":
        return int(torch.cuda.max_memory_allocated(decomposer.backbone.device))
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
