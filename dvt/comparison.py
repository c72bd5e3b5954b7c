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
from .quality import heldout, shares
from .solvers import SolverOptions, solver_name
from .stage1 import Stage1Decomposer
from .view_features import extract
from .views import ViewOptions, lattice

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
        judge = Stage1Decomposer(
            backbone, ViewOptions(views=1, holdout=settings[0].views.holdout), batch_size=batch_size
        )
        standard = judge.prepare(pixels, key)
        unseen = extract(backbone, [standard], batch_size).features[0, len(standard.fit) :]
        places = lattice(*judge.lines(standard, standard.holdout)).to(backbone.device)
        cache: dict[ViewOptions, tuple[Tensor, float]] = {}
        for setting in settings:
            decomposer = Stage1Decomposer(backbone, setting.views, setting.solver, batch_size, encoding=encoding)
            yield measure(decomposer, setting, pixels, key, number, settings, cache, unseen, places)


def measure(
    decomposer: Stage1Decomposer,
    setting: Setting,
    pixels: NDArray[np.uint8],
    key: str,
    number: int,
    settings: Sequence[Setting],
    cache: dict[ViewOptions, tuple[Tensor, float]],
    unseen: Float[Tensor, "v h w c"],
    places: Float[Tensor, "v h w 2"],
) -> Measured:
    """Fit one setting to its share of the features, and judge it."""
    drawn = replace(setting.views, views=1, holdout=0)
    if drawn not in cache:
        most = max(s.views.views for s in settings if replace(s.views, views=1, holdout=0) == drawn)
        all_views = Stage1Decomposer(
            decomposer.backbone, replace(drawn, views=most), batch_size=decomposer.forward_batch
        )
        synchronise(decomposer)
        started = time.perf_counter()
        batch = extract(decomposer.backbone, [all_views.prepare(pixels, key)], decomposer.forward_batch)
        synchronise(decomposer)
        cache[drawn] = batch.features[0], (time.perf_counter() - started) / (most + 1)
    features, seconds = cache[drawn]
    views = decomposer.prepare(pixels, key)
    count = len(views.fit)
    reset_peak(decomposer)
    started = time.perf_counter()
    fit = decomposer.fit([views], features[None, :count])[0]
    synchronise(decomposer)
    solved = time.perf_counter() - started
    peak = peak_bytes(decomposer)
    plain = replace(views, holdout=())
    parts = decomposer.take_apart(fit, plain, features[:count], features.new_zeros(0, features.shape[-1]))
    figures = heldout(fit.sample(places) + fit.artifact, unseen) | shares(parts)
    name, used = solver_name(setting.solver), setting.views.views
    return Measured(setting.label, name, used, number, seconds * count, solved, peak_bytes=peak, **figures)


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
