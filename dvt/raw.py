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
from .quality import figures

__all__ = ["RawDecomposer", "as_map", "as_maps", "as_tensor", "raw_of"]


def as_tensor(image: NDArray[np.uint8]) -> UInt8[Tensor, "3 h w"]:
    """Return an (h, w, 3) image as a (3, h, w) tensor that shares its memory."""
    return torch.from_numpy(image).permute(2, 0, 1)


def as_map(values: NDArray[np.floating]) -> Float[Tensor, "h w c"]:
    """Return an (h, w, c) map as a tensor of its own."""
    return torch.from_numpy(np.array(values, np.float32))


def as_maps(values: Sequence[NDArray[np.floating]]) -> Float[Tensor, "n h w c"]:
    """Return (h, w, c) maps as one batch."""
    return torch.stack([as_map(value) for value in values])


def raw_of(
    backbone: Backbone, prepared: Sequence[UInt8[Tensor, "3 height width"]]
) -> tuple[Float[Tensor, "n h w c"], Float[Tensor, "n t c"]]:
    """Return patch tokens and prefix tokens of prepared images, float32 on the backbone's device."""
    images = normalise(torch.stack(list(prepared)), backbone.mean, backbone.std, backbone.device)
    patches, prefix = backbone.forward(images)
    return patches, prefix


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
        """Resize an (h, w, 3) image to the model's input; ``key`` plays no part."""
        return squash(self.backbone.frame(as_tensor(image)), self.backbone.input_size, self.backbone.interpolation)

    def decompose(self, prepared: Sequence[UInt8[Tensor, "3 height width"]]) -> list[Decomposition]:
        """Run the model on prepared images."""
        started = time.perf_counter()
        tokens, prefix = raw_of(self.backbone, prepared)
        told = figures(tokens)
        tokens, prefix = tokens.cpu(), prefix.cpu()
        seconds = (time.perf_counter() - started) / len(prepared)
        return [
            Decomposition(raw=raw, prefix=extra, stats={**own, "seconds": seconds})
            for raw, extra, own in zip(tokens, prefix, told, strict=True)
        ]
