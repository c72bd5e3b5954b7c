"""Pixels to model input: squashed to the input size, then normalised, both the model's own way."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from jaxtyping import Float, UInt8
from torch import Tensor

__all__ = ["normalise", "squash", "upsampled"]


def squash(
    image: UInt8[Tensor, "3 h w"], size: tuple[int, int], interpolation: str = "bicubic"
) -> UInt8[Tensor, "3 height width"]:
    """Resize an image to ``size`` (height, width) [pixels] whatever its aspect, antialiased, rounded to 8 bits.

    On the CPU this is torch's integer path, which follows Pillow to one grey level; elsewhere floating point, rounded.
    """
    mode = interpolation if interpolation in ("bicubic", "bilinear") else "bicubic"
    if image.device.type == "cpu":
        return F.interpolate(image[None], size, mode=mode, antialias=True)[0]
    resized = F.interpolate(image[None].float(), size, mode=mode, antialias=True)[0]
    return resized.round_().clamp_(0, 255).to(torch.uint8)


def normalise(
    images: UInt8[Tensor, "n 3 h w"], mean: Sequence[float], std: Sequence[float], device: torch.device
) -> Float[Tensor, "n 3 h w"]:
    """Return ``(images / 255 − mean) / std`` on ``device``."""
    centre = torch.tensor(mean, device=device).view(1, 3, 1, 1)
    scale = torch.tensor(std, device=device).view(1, 3, 1, 1)
    return (images.to(device, non_blocking=True).float() / 255 - centre) / scale


def upsampled(left: Float[Tensor, "h w c"], grid: tuple[int, int]) -> Float[Tensor, "high wide c"]:
    """Return a map at the centres of another grid's cells, bilinear."""
    return F.interpolate(left.permute(2, 0, 1)[None], grid, mode="bilinear")[0].permute(1, 2, 0)
