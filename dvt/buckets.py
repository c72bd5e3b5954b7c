"""Images in shapes near their own: one decomposer an input size, all of one recipe and with one set of weights."""

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch.nn.functional as F
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Tensor

from .backbone import Backbone
from .errors import BackboneError
from .framing import nearest_input
from .patches import grid_of

__all__ = ["Buckets", "resampled"]


@dataclass(frozen=True)
class Ready:
    """An image made ready by the decomposer of its input size."""

    size: tuple[int, int]
    prepared: Any


class Buckets:
    """Has each image computed at the input of ``Backbone.inputs`` that is nearest to its shape.

    ``make`` returns what computes with a backbone. Recipe and all that is asked before an image is known are those of
    ``base``, at the backbone's own input size: the recipe lists the inputs and the rule is ``nearest_input``. Images of one
    call of ``decompose`` are of one grid, as ``grid_for`` tells it beforehand. Raises BackboneError where ``base`` gives clean
    on another grid, too.
    """

    def __init__(self, base: Any, make: Callable[[Backbone], Any]) -> None:
        if getattr(base, "fine_grid", None):
            raise BackboneError("a clean map of another grid needs one shape of input: it does not go with keep")
        self.base, self.make, self.backbone = base, make, base.backbone
        self.made: dict[tuple[int, int], Any] = {base.backbone.input_size: base}
        self.lock = threading.Lock()

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__") or "base" not in self.__dict__:
            raise AttributeError(name)
        return getattr(self.base, name)

    def input_for(self, height: int, width: int) -> tuple[int, int]:
        """Return the input (height, width) [pixels] of an image."""
        return nearest_input((height, width), self.backbone.inputs)

    def grid_for(self, height: int, width: int) -> tuple[int, int]:
        """Return the grid (H, W) [patches] of an image of this size [pixels]."""
        return grid_of(self.input_for(height, width), self.backbone.patch, self.backbone.stride)

    def of(self, size: tuple[int, int]) -> Any:
        """Return what computes at an input size, made when it is first needed."""
        with self.lock:
            if size not in self.made:
                self.made[size] = self.make(self.backbone.resized(size))
            return self.made[size]

    def prepare(self, image: NDArray[np.uint8], key: str) -> Ready:
        """Make an (h, w, 3) image ready."""
        size = self.input_for(*image.shape[:2])
        return Ready(size, self.of(size).prepare(image, key))

    def decompose(self, prepared: Sequence[Ready]) -> Sequence[Any]:
        """Compute images of one input size."""
        (size,) = {one.size for one in prepared}
        found: Sequence[Any] = self.of(size).decompose([one.prepared for one in prepared])
        return found


def resampled(values: Float[Tensor, "h w c"], grid: tuple[int, int]) -> Float[Tensor, "high wide c"]:
    """Return an artifact on another grid, bilinear over the input, with its mean over positions kept at zero."""
    if tuple(values.shape[:2]) == tuple(grid):
        return values
    found = F.interpolate(values.permute(2, 0, 1)[None], grid, mode="bilinear", antialias=True)[0].permute(1, 2, 0)
    return found - found.mean(dim=(0, 1)) + values.mean(dim=(0, 1))
