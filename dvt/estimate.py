"""How long a fit will take, before there is anything to fit."""

import time
from copy import copy
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import torch

from .field import FieldOptions

if TYPE_CHECKING:
    from .stage1 import Stage1Decomposer

__all__ = ["seconds_per_image"]

SAMPLED = 20
"""Iterations of the field that are timed."""


def seconds_per_image(method: "Stage1Decomposer") -> float:
    """Return about how long an image takes [s], from one timed batch of forwards at each input and one solve."""
    timed = [model.seconds_per_forward(method.forward_batch) for model in method.backbones]
    forwards = sum(count * seconds for count, seconds in zip(method.view_counts(), timed, strict=True))
    solve = seconds_per_solve(method)
    # On a GPU a group is solved while the next one's views run.
    return max(forwards, solve) if method.backbone.device.type == "cuda" else forwards + solve


def seconds_per_solve(method: "Stage1Decomposer") -> float:
    """Return about how long fitting an image takes [s], from a second fit to noise; of the field, some iterations."""
    sample, factor = copy(method), 1.0
    if isinstance(method.solver, FieldOptions) and method.solver.iterations > SAMPLED:
        sample.solver, factor = replace(method.solver, iterations=SAMPLED), method.solver.iterations / SAMPLED
    height, width = method.backbone.input_size
    pixels = np.zeros((height, width, 3), np.uint8)
    images = [method.prepare(pixels, str(number)) for number in range(method.together)]
    noise = torch.Generator().manual_seed(0)
    features = []
    for index, model in enumerate(method.backbones):
        shape = (len(images[0].groups[index]), *model.grid, method.width)
        one = torch.randn(shape, generator=noise)
        features.append(one.expand(len(images), *shape).to(method.backbone.device))
    sample.fit(images, features)[0].artifact.cpu()  # a first one, as of forwards: kernels load, memory is taken
    started = time.perf_counter()
    for fit in sample.fit(images, features):
        fit.artifact.cpu()
    return factor * (time.perf_counter() - started) / len(images)
