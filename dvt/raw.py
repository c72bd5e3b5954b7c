"""Method `raw`: the whole image's own features, nothing taken away."""

import time
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, UInt8
from numpy.typing import NDArray
from torch import Tensor

from .backbone import Backbone
from .decomposition import Decomposition
from .preprocess import normalise, squash
from .quality import norms

__all__ = ["RawDecomposer", "as_map", "as_tensor"]


def as_tensor(image: NDArray[np.uint8]) -> UInt8[Tensor, "3 h w"]:
    """Return an (h, w, 3) image as a (3, h, w) tensor that shares its memory."""
    return torch.from_numpy(image).permute(2, 0, 1)


def as_map(values: NDArray[np.float32]) -> Float[Tensor, "h w c"]:
    """Return an (h, w, c) map as a tensor of its own."""
    return torch.from_numpy(np.array(values, np.float32))


class RawDecomposer:
    """Raw features of whole images, ``batch_size`` at a time."""

    method = "raw"
    variants: tuple[str, ...] = ("raw",)
    forwards_per_image = 1

    def __init__(self, backbone: Backbone, batch_size: int = 4) -> None:
        self.backbone, self.batch_size = backbone, batch_size
        self.grid, self.width, self.prefix_tokens = backbone.grid, backbone.width, backbone.prefix_tokens

    def recipe(self) -> dict[str, Any]:
        """Return everything that decides the numbers."""
        return {"backbone": self.backbone.recipe(), "method": {"name": "raw"}}

    def seconds_per_image(self) -> float:
        """Return about how long an image takes [s], from one timed forward."""
        return self.backbone.seconds_per_forward(self.batch_size)

    def prepare(self, image: NDArray[np.uint8], key: str) -> UInt8[Tensor, "3 height width"]:
        """Squash an (h, w, 3) image to the model's input; ``key`` plays no part."""
        return squash(as_tensor(image), self.backbone.input_size, self.backbone.interpolation)

    def decompose(self, prepared: Sequence[UInt8[Tensor, "3 height width"]]) -> list[Decomposition]:
        """Run the model on prepared images."""
        started = time.perf_counter()
        model = self.backbone
        images = normalise(torch.stack(list(prepared)), model.mean, model.std, model.device)
        tokens, prefix = (value.cpu() for value in model.forward(images))
        seconds = (time.perf_counter() - started) / len(prepared)
        return [
            Decomposition(raw=raw, prefix=extra, stats={**norms(raw), "seconds": seconds})
            for raw, extra in zip(tokens, prefix, strict=True)
        ]
