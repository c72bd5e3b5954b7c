"""What positions of the input add to features whatever is shown there: the mean over crops in which content lies anywhere.

The left of a crop of a photograph lies more often at the photograph's left, where content differs from its right. A photograph
and its mirror images tile the plane; of a crop at a random place there, every part shows any part of the photograph alike.
"""

import hashlib
from collections.abc import Iterable, Iterator

import numpy as np
import torch
from jaxtyping import Float, UInt8
from numpy.typing import NDArray
from torch import Tensor

from .backbone import Backbone
from .errors import SolverError
from .preprocess import squash
from .raw import as_tensor, raw_of
from .views import ViewOptions, sample_crops

__all__ = ["crops_anywhere", "mean_anywhere"]


def crops_anywhere(
    image: NDArray[np.uint8], key: str, count: int, backbone: Backbone, area: tuple[float, float] = (0.1, 0.5)
) -> list[UInt8[Tensor, "3 height width"]]:
    """Return ``count`` crops of the tiled plane of an (h, w, 3) image, as the backbone's inputs; ``key`` decides which."""
    pixels = as_tensor(image)
    size = int(pixels.shape[1]), int(pixels.shape[2])
    plane = torch.cat([pixels, pixels.flip(1)], dim=1)
    plane = torch.cat([plane, plane.flip(2)], dim=2)
    generator = np.random.default_rng(list(hashlib.sha256(key.encode()).digest()))
    cut = []
    for crop in sample_crops(ViewOptions(area=area, spread=False), size, key, "anywhere", count):
        moved = generator.integers(0, (2 * size[0], 2 * size[1])).tolist()
        part = plane.roll(moved, dims=(1, 2))[:, : crop.height, : crop.width]
        cut.append(squash(part.contiguous(), backbone.input_size, backbone.interpolation))
    return cut


def mean_anywhere(
    backbone: Backbone, images: Iterable[tuple[NDArray[np.uint8], str]], crops: int, batch_size: int = 4
) -> Float[Tensor, "h w c"]:
    """Return the mean of raw features over ``crops`` crops of every (image, key), less its mean over positions, in float64.

    Content's own variation leaves one over the number of crops of its variance in it. Raises SolverError without an image.
    """
    total = torch.zeros(*backbone.grid, backbone.width, dtype=torch.float64)
    seen = 0
    for batch in batches(backbone, images, crops, batch_size):
        raw, _ = raw_of(backbone, batch)
        total += raw.double().sum(dim=0).cpu()
        seen += len(batch)
    if not seen:
        raise SolverError("there is no image to take the mean over")
    mean = total / seen
    return (mean - mean.mean(dim=(0, 1))).float()


def batches(
    backbone: Backbone, images: Iterable[tuple[NDArray[np.uint8], str]], crops: int, size: int
) -> Iterator[list[Tensor]]:
    """Yield the crops of all images, ``size`` at a time."""
    waiting: list[Tensor] = []
    for image, key in images:
        waiting += crops_anywhere(image, key, crops, backbone)
        while len(waiting) >= size:
            yield waiting[:size]
            waiting = waiting[size:]
    if waiting:
        yield waiting
