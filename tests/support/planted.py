"""A planted truth: views of a known field S, with a known artifact G and a sparse residual, made without the solver."""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor


@dataclass(frozen=True)
class Plant:
    features: Tensor
    places: Tensor
    clean: Tensor
    artifact: Tensor
    raw: Tensor


def field(places: np.ndarray, channels: int, generator: np.random.Generator, cycles: float = 6.0) -> np.ndarray:
    """A band-limited random field: sums of sines of up to ``cycles`` periods across the image."""
    waves = generator.uniform(-cycles, cycles, (2, 3 * channels)) * 2 * np.pi
    phases = generator.uniform(0, 2 * np.pi, 3 * channels)
    values = np.sin(places @ waves + phases)
    return values.reshape(*places.shape[:-1], channels, 3).sum(-1) * np.sqrt(2 / 3)


def plant(
    views: int,
    side: int,
    channels: int,
    seed: int = 0,
    noise: float = 0.3,
    sparse: float = 0.05,
    cycles: float = 6.0,
    shape: tuple[int, int] | None = None,
    rank: int | None = None,
) -> Plant:
    """``views`` crops of 10-50 % of an image, the whole image first, as (v, side, side, channels) features.

    ``shape`` (rows, columns) replaces side × side; of ``rank``, the field is that many random fields mixed into the channels.
    """
    generator = np.random.default_rng(seed)
    rows, columns = shape or (side, side)
    down, across = (np.arange(rows) + 0.5) / rows, (np.arange(columns) + 0.5) / columns
    boxes = [(0.0, 0.0, 1.0, 1.0)]
    for _ in range(views):
        area, ratio = generator.uniform(0.1, 0.5), np.exp(generator.uniform(np.log(3 / 4), np.log(4 / 3)))
        width, height = min(np.sqrt(area * ratio), 1), min(np.sqrt(area / ratio), 1)
        boxes.append((generator.uniform(0, 1 - width), generator.uniform(0, 1 - height), width, height))
    places = np.stack(
        [np.stack(np.meshgrid(x + across * w, y + down * h, indexing="xy"), axis=-1) for x, y, w, h in boxes]
    )
    seeds = generator.integers(1 << 30)
    clean = field(places, rank or channels, np.random.default_rng(seeds), cycles)
    if rank:
        clean = clean @ (generator.standard_normal((rank, channels)) / np.sqrt(rank))
    artifact = generator.standard_normal((rows, columns, channels))
    artifact -= artifact.mean(axis=(0, 1))
    features = clean + artifact + noise * generator.standard_normal(clean.shape)
    hit = generator.random(clean.shape[:-1]) < sparse
    features[hit] += 4 * generator.standard_normal((int(hit.sum()), channels))
    tensors = (torch.from_numpy(a).float() for a in (features, places, clean[0], artifact, features[0]))
    return Plant(*tensors)
