"""The features of every view of some images: cut, resized and run through the model, on the device where it is a GPU."""

import time
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from .backbone import Backbone
from .preprocess import normalise
from .resample import resize_views
from .views import Crop, render

__all__ = ["Batch", "Views", "extract"]


@dataclass(frozen=True)
class Views:
    """One image made ready: its pixels, the views to fit (the whole image first), and those to judge the fit by."""

    image: UInt8[Tensor, "3 h w"]
    fit: tuple[Crop, ...]
    holdout: tuple[Crop, ...]

    @property
    def size(self) -> tuple[int, int]:
        """Return (height, width) [pixels]."""
        return int(self.image.shape[1]), int(self.image.shape[2])

    def weights(self, context: float) -> Float[Tensor, "v"]:
        """Return each view's weight: its share of the image's area, to the power of ``context``."""
        areas = torch.tensor([crop.width * crop.height for crop in self.fit], dtype=torch.float64)
        return (areas / (self.size[0] * self.size[1])) ** context


@dataclass(frozen=True)
class Batch:
    """Features of the views of some images (N, V, H, W, C) on the device, and each image's prefix tokens (T, C)."""

    images: Sequence[Views]
    features: Float[Tensor, "n v h w c"]
    prefix: list[Float[Tensor, "t c"]]
    seconds: float


def extract(backbone: Backbone, images: Sequence[Views], forward_batch: int) -> Batch:
    """Run the model on all views of every image, ``forward_batch`` of one image at a time; all have as many views."""
    started = time.perf_counter()
    count = len(images[0].fit) + len(images[0].holdout)
    features = torch.empty(len(images), count, *backbone.grid, backbone.width, device=backbone.device)
    prefix = []
    for number, views in enumerate(images):
        crops = [*views.fit, *views.holdout]
        pixels = views.image.to(backbone.device, non_blocking=True)
        for start in range(0, count, forward_batch):
            inputs = cut(backbone, pixels, crops[start : start + forward_batch])
            tokens, extra = backbone.forward(normalise(inputs, backbone.mean, backbone.std, backbone.device))
            features[number, start : start + len(inputs)] = tokens
            if start == 0:
                prefix.append(extra[0].clone())
    return Batch(images, features, prefix, (time.perf_counter() - started) / len(images))


def cut(backbone: Backbone, image: UInt8[Tensor, "3 h w"], crops: list[Crop]) -> UInt8[Tensor, "n 3 height width"]:
    """Return some views at the model's input size: by matrix products on a GPU, one by one in integers on the CPU."""
    size, interpolation = backbone.input_size, backbone.interpolation
    if image.device.type != "cpu":
        return resize_views(image, crops, size, interpolation)
    return torch.stack([render(image, crop, size, interpolation) for crop in crops])
