"""Antialiased crops of one image as matrix products: every view of it in two of them, on the device, no loop over crops."""

import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from .views import Crop

__all__ = ["resize_views", "resize_weights"]

BICUBIC = -0.5  # Pillow's and torch's antialiased kernel
WIDTHS = {"bicubic": 2.0, "bilinear": 1.0}


def resize_views(
    image: UInt8[Tensor, "3 h w"], crops: list[Crop], size: tuple[int, int], interpolation: str
) -> UInt8[Tensor, "n 3 height width"]:
    """Cut views out of an image, resize them to (height, width) [pixels] and mirror those that flip, on the image's device.

    The same as ``views.render`` one by one to within a grey level: that one rounds between the two directions as Pillow does.
    """
    lefts = [(crop.left, crop.width, crop.flip) for crop in crops]
    tops = [(crop.top, crop.height, False) for crop in crops]
    across = resize_weights(lefts, image.shape[2], size[1], interpolation).to(image.device)
    down = resize_weights(tops, image.shape[1], size[0], interpolation).to(image.device)
    lines = image.float().flatten(0, 1) @ across.mT  # (n, 3h, width)
    views = down[:, None] @ lines.reshape(len(crops), 3, image.shape[1], size[1])
    return views.round_().clamp_(0, 255).to(torch.uint8)


def resize_weights(
    spans: list[tuple[int, int, bool]], full: int, out: int, interpolation: str
) -> Float[Tensor, "n out full"]:
    """Return the weights that resize pixels [start, start + length) of a line of ``full`` to ``out``, mirrored where told.

    Output i has its centre at (i + ½)·length/out; the kernel is widened by the scale where it shrinks, and its weights are
    normalised within the span (Pillow's ``Resample.c``, torch's ``antialias=True``).
    """
    start = torch.tensor([span[0] for span in spans], dtype=torch.float64)[:, None, None]
    length = torch.tensor([span[1] for span in spans], dtype=torch.float64)[:, None, None]
    flip = torch.tensor([span[2] for span in spans])
    scale = length / out
    wide = scale.clamp(min=1)
    centre = (torch.arange(out, dtype=torch.float64)[None, :, None] + 0.5) * scale
    pixel = torch.arange(full, dtype=torch.float64) - start  # (n, 1, full), counted from the span's start
    reach = WIDTHS.get(interpolation, 2.0) * wide
    inside = (pixel >= (centre - reach + 0.5).floor().clamp(min=0)) & (pixel < (centre + reach + 0.5).floor())
    inside &= pixel < length
    weights = torch.where(inside, kernel((pixel - centre + 0.5) / wide, interpolation), 0.0)
    weights = weights / weights.sum(dim=-1, keepdim=True)
    return torch.where(flip[:, None, None], weights.flip(1), weights).float()


def kernel(x: Tensor, interpolation: str) -> Tensor:
    """Return the interpolation kernel at distances ``x``: Keys' cubic (a = −½), or a triangle."""
    x = x.abs()
    if interpolation == "bilinear":
        return (1 - x).clamp(min=0)
    near = ((BICUBIC + 2) * x - (BICUBIC + 3)) * x * x + 1
    far = (((x - 5) * x + 8) * x - 4) * BICUBIC
    return torch.where(x < 1, near, torch.where(x < 2, far, 0.0))
