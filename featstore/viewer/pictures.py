"""Photographs for a browser: thumbnails, the whole at a size for the screen, masks as colours."""

import colorsys
import io
import threading
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from featstore.images import opened, to_rgb, upright
from featstore.masks import read_mask
from featstore.members import naming, read_bytes

__all__ = ["Kept", "colour_of", "jpeg_of", "mask_of"]

QUALITY = 85


class Kept:
    """Answers kept in memory, the oldest given up beyond ``limit`` bytes."""

    def __init__(self, limit: int) -> None:
        self.limit, self.held = limit, 0
        self.answers: OrderedDict[object, bytes] = OrderedDict()
        self.lock = threading.Lock()

    def get(self, key: object, make: Callable[[], bytes]) -> bytes:
        """Return the answer under a key, made where it is not kept."""
        with self.lock:
            if key in self.answers:
                self.answers.move_to_end(key)
                return self.answers[key]
        made = make()
        with self.lock:
            if key not in self.answers:
                self.answers[key] = made
                self.held += len(made)
            while self.held > self.limit and len(self.answers) > 1:
                self.held -= len(self.answers.popitem(last=False)[1])
        return made


def jpeg_of(path: Path, side: int) -> bytes:
    """Return a photograph as JPEG, upright, its longest side at most ``side``; raises DecodeError naming the file.

    A JPEG is decoded at the nearest of its own smaller scales, which takes a fraction of the time.
    """
    with naming(path), opened(read_bytes(path)) as image:
        if image.format == "JPEG":
            image.draft("RGB", (side, side))
        picture = to_rgb(upright(image))
        picture.thumbnail((side, side), Image.Resampling.LANCZOS, reducing_gap=2.0)
        buffer = io.BytesIO()
        picture.save(buffer, "JPEG", quality=QUALITY)
    return buffer.getvalue()


def mask_of(path: Path, coding: str, ignored: tuple[int, ...], side: int) -> tuple[bytes, list[int]]:
    """Return a mask as a PNG of colours, clear where labels are ignored, and the labels in it; raises DecodeError."""
    with naming(path):
        labels = read_mask(read_bytes(path), coding, path)
    step = max(1, -(-max(labels.shape) // side))
    labels = labels[::step, ::step]
    found, places = np.unique(labels, return_inverse=True)
    colours = np.array([(*colour_of(int(n)), 0 if int(n) in ignored else 255) for n in found], np.uint8)
    shown: NDArray[np.uint8] = colours[places.reshape(labels.shape)]
    buffer = io.BytesIO()
    Image.fromarray(shown).save(buffer, "PNG")
    return buffer.getvalue(), [int(n) for n in found if int(n) not in ignored]


def colour_of(label: int) -> tuple[int, int, int]:
    """Return a label's colour: black for 0, hues a golden section apart for the others, neighbours unlike each other."""
    if label == 0:
        return 0, 0, 0
    red, green, blue = colorsys.hsv_to_rgb(
        label * 0.61803398875 % 1, 0.65 + 0.3 * (label % 2), 0.95 - 0.3 * (label % 3 == 0)
    )
    return round(red * 255), round(green * 255), round(blue * 255)
