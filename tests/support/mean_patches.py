"""A backbone whose feature is the mean colour of a patch: where its maps lie on the image can be seen."""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from dvt import RawDecomposer
from dvt.backbone import Backbone
from dvt.buckets import Buckets
from dvt.framing import inputs_near

PATCH = 8


class MeanPatches(Backbone):
    """No model: three channels, the means of red, green and blue over each patch, in [0, 1]."""

    def __init__(self, size: tuple[int, int], resize: str = "squash") -> None:
        self.input_size, self.resize, self.patch, self.stride = size, resize, PATCH, PATCH
        self.grid = size[0] // PATCH, size[1] // PATCH
        self.inputs = inputs_near(size, PATCH, PATCH) if resize == "keep" else (size,)
        self.width, self.prefix_tokens, self.interpolation = 3, 0, "bilinear"
        self.mean, self.std, self.device = (0.0, 0.0, 0.0), (1.0, 1.0, 1.0), torch.device("cpu")

    def resized(self, input_size: tuple[int, int]) -> "MeanPatches":
        return MeanPatches(input_size)

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        return F.avg_pool2d(images, PATCH).permute(0, 2, 3, 1), images.new_zeros(len(images), 0, 3)

    def recipe(self) -> dict[str, Any]:
        shapes = {"inputs": [list(size) for size in self.inputs]} if self.resize == "keep" else {}
        told: dict[str, Any] = {"id": "mean_patches", "weights": "0" * 64, "layer": 0, "norm": False}
        told |= {"input": list(self.input_size), "stride": PATCH, "resize": self.resize, "interpolation": "bilinear"}
        return told | {"mean": [0.0] * 3, "std": [1.0] * 3, "dtype": "float32"} | shapes


def decomposer(size: tuple[int, int], resize: str) -> Any:
    """Raw features of it, as ``featstore build --resize`` computes them."""
    base = RawDecomposer(MeanPatches(size, resize), batch_size=3)
    return Buckets(base, RawDecomposer) if resize == "keep" else base
