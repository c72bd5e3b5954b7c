"""The features of every view of some images: cut, resized and run through the model, on the device where it is a GPU."""

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from .backbone import Backbone
from .preprocess import normalise
from .resample import resize_views
from .views import Crop, ViewOptions, crop_size, render

__all__ = ["Batch", "Views", "extract", "settled"]


@dataclass(frozen=True)
class Views:
    """One image made ready: its pixels, groups of views to fit, one an input size, and views to judge the fit by.

    The first group begins with the whole image; what is held out goes through the model as the last group does.
    """

    image: UInt8[Tensor, "3 h w"]
    groups: tuple[tuple[Crop, ...], ...]
    holdout: tuple[Crop, ...]

    @property
    def size(self) -> tuple[int, int]:
        """Return (height, width) [pixels]."""
        return int(self.image.shape[1]), int(self.image.shape[2])

    def weights(self, group: int, context: float) -> Float[Tensor, "v"]:
        """Return the weight of a group's views: their share of the image's area, to the power of ``context``."""
        areas = torch.tensor([crop.width * crop.height for crop in self.groups[group]], dtype=torch.float64)
        return (areas / (self.size[0] * self.size[1])) ** context


@dataclass(frozen=True)
class Batch:
    """Features of the views of some images on the device, and each image's prefix tokens (T, C).

    ``groups`` holds (N, V, H, W, C) of every group, ``holdout`` the same of what is kept out of the fit.
    """

    images: Sequence[Views]
    groups: list[Tensor]
    holdout: Float[Tensor, "n unseen h w c"]
    prefix: list[Float[Tensor, "t c"]]
    seconds: float


def extract(backbones: Sequence[Backbone], images: Sequence[Views], forward_batch: int) -> Batch:
    """Run a backbone a group on all views of every image, ``forward_batch`` of one image at a time.

    All images have as many views.
    """
    started = time.perf_counter()
    prefix: list[Tensor] = []
    found = []
    last = len(backbones) - 1
    for group, backbone in enumerate(backbones):
        crops = [[*views.groups[group], *(views.holdout if group == last else ())] for views in images]
        features = torch.empty(len(images), len(crops[0]), *backbone.grid, backbone.width, device=backbone.device)
        for number, views in enumerate(images):
            first = run(backbone, views.image, crops[number], forward_batch, features[number])
            if group == 0:
                prefix.append(first)
        found.append(features)
    count = len(images[0].groups[last])
    holdout, found[last] = found[last][:, count:], found[last][:, :count]
    return Batch(images, found, holdout, prefix, (time.perf_counter() - started) / len(images))


def run(
    backbone: Backbone,
    image: UInt8[Tensor, "3 h w"],
    crops: Sequence[Crop],
    forward_batch: int,
    into: Float[Tensor, "v rows columns c"],
) -> Float[Tensor, "t c"]:
    """Put the features of an image's crops into place, and return the first one's prefix tokens."""
    pixels = image.to(backbone.device, non_blocking=True)
    first = into.new_zeros(backbone.prefix_tokens, backbone.width)
    for start in range(0, len(crops), forward_batch):
        inputs = cut(backbone, pixels, list(crops[start : start + forward_batch]))
        tokens, extra = backbone.forward(normalise(inputs, backbone.mean, backbone.std, backbone.device))
        into[start : start + len(inputs)] = tokens
        if start == 0:
            first = extra[0].clone()
    return first


def cut(backbone: Backbone, image: UInt8[Tensor, "3 h w"], crops: list[Crop]) -> UInt8[Tensor, "n 3 height width"]:
    """Return some views at the model's input size: by matrix products on a GPU, one by one in integers on the CPU."""
    size, interpolation = backbone.input_size, backbone.interpolation
    if image.device.type != "cpu":
        return resize_views(image, crops, size, interpolation)
    return torch.stack([render(image, crop, size, interpolation) for crop in crops])


def settled(views: ViewOptions, backbone: Backbone, direct: bool) -> ViewOptions:
    """Return the views with the crops' input size decided: that of the whole image but for lstsq on a large input."""
    if views.crop_input is not None:
        return views
    resizable = direct and backbone.stride == backbone.patch and backbone.resizable
    return replace(
        views, crop_input=crop_size(backbone.input_size, backbone.patch) if resizable else backbone.input_size
    )
