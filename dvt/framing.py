"""How an image of any shape meets a model's input: squashed, its middle cut out, or in a shape near its own."""

import math
from collections.abc import Sequence

from .errors import BackboneError

__all__ = ["RESIZES", "centred", "check_resize", "inputs_near", "nearest_input"]

RESIZES = ("squash", "shortest", "keep")
"""The whole image whatever its shape; the middle of the input's shape; the whole image in the nearest of a few shapes."""

SHAPES = (1 / 2, 9 / 16, 2 / 3, 3 / 4, 5 / 6, 1.0, 6 / 5, 4 / 3, 3 / 2, 16 / 9, 2.0)
"""Width to height of the inputs of ``keep``: what cameras make, and enough between that a shape is at most a tenth off."""

Size = tuple[int, int]


def centred(image: Size, size: Size) -> tuple[int, int, int, int]:
    """Return (top, left, height, width) of the largest box in the middle of an image that has the shape of ``size``.

    Both are (height, width) [pixels]; the box is whole pixels, half a pixel off at most. Resizing it to ``size`` is to resize
    the shortest side and cut the rest off evenly, as timm's and torchvision's evaluation transforms do.
    """
    (height, width), (rows, columns) = image, size
    if width * rows > height * columns:
        cut = max(1, (2 * height * columns + rows) // (2 * rows))
        return 0, (width - cut) // 2, height, cut
    cut = max(1, (2 * width * rows + columns) // (2 * columns))
    return (height - cut) // 2, 0, cut, width


def inputs_near(size: Size, patch: int, stride: int) -> tuple[Size, ...]:
    """Return the inputs (height, width) [pixels] of ``keep``: about as many patches as ``size`` has, in every shape."""
    area = size[0] * size[1]
    found: list[Size] = []
    for shape in SHAPES:
        sides = math.sqrt(area / shape), math.sqrt(area * shape)
        height, width = (patch + max(0, round((side - patch) / stride)) * stride for side in sides)
        if (height, width) not in found:
            found.append((height, width))
    return tuple(found)


def nearest_input(image: Size, inputs: Sequence[Size]) -> Size:
    """Return the input whose shape is nearest to that of an image (height, width), by the logarithm of width to height."""
    own = math.log(image[1] / image[0])
    height, width = min(inputs, key=lambda size: abs(math.log(size[1] / size[0]) - own))
    return height, width


def check_resize(resize: str) -> str:
    """Return how images are resized; raises BackboneError for an unknown way."""
    if resize not in RESIZES:
        raise BackboneError(f"unknown resize {resize!r}: choose from {', '.join(RESIZES)}")
    return resize
