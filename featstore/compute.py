"""The door to the model code: what a build is given, and nothing about how it is made.

``featstore`` never imports ``dvt``; anything with these attributes will do, and the tests bring a plain numpy one.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

__all__ = ["FINE", "PARTS", "VARIANTS", "Decomposer", "Decomposition", "fine_grid"]

PARTS = ("raw", "clean", "artifact", "residual")
"""The variants on the ViT's own grid: raw = clean + artifact + residual."""

FINE = "clean_fine"
"""Clean on a grid of the user's choice."""

VARIANTS = (*PARTS, FINE)
"""All there are, in the order in which they are stored; a method gives some of them."""


class Decomposition(Protocol):
    """One image's feature maps. Every map is (H, W, C), real, finite, readable by ``numpy.asarray``; None where absent.

    ``prefix`` is (T, C): class and register tokens. ``stats`` maps column names of ``features`` to numbers. One more map,
    ``clean_fine`` (H', W', C), may be absent altogether: only a decomposer with a ``fine_grid`` needs it.
    """

    @property
    def raw(self) -> Any: ...  # noqa: D102
    @property
    def clean(self) -> Any: ...  # noqa: D102
    @property
    def artifact(self) -> Any: ...  # noqa: D102
    @property
    def prefix(self) -> Any: ...  # noqa: D102
    @property
    def stats(self) -> Mapping[str, float]: ...  # noqa: D102


class Decomposer(Protocol):
    """Images in, decompositions out.

    One that makes several versions in one pass has ``parts``, decomposers that all take what the first has prepared, and
    ``one_pass()``, a context in which they share what they have in common.

    ``grid`` is (H, W) [patches], ``width`` is C, ``prefix_tokens`` is T, ``variants`` what this method can give, in the
    order of ``VARIANTS``; ``forwards_per_image`` sizes shards and estimates; ``batch_size`` is how many prepared images
    one ``decompose`` call should be given; ``recipe`` is everything that decides the numbers, JSON-ready.

    One whose maps differ in shape with the images' has ``grid_for``: height and width of an image [pixels] in, (H, W) out;
    the images of one call of ``decompose`` are of one grid. One that gives ``clean_fine`` has one more attribute,
    ``fine_grid``: (H', W') of that map [points]. In its recipe it stands as ``method.clean_grid``. One that cleans stored
    features has ``prepare_stored``: raw (H, W, C) and prefix (T, C) or None, both float16, in; what ``decompose`` takes
    out. One that reads what others computed has ``prepare_given``, which is given what the request has in place of the
    image, and raises OSError or ValueError where that is of no use.
    """

    grid: tuple[int, int]
    width: int
    prefix_tokens: int
    variants: tuple[str, ...]
    method: str
    forwards_per_image: int
    batch_size: int

    def recipe(self) -> dict[str, Any]:
        """Return everything that decides the numbers; the same dict for the same numbers, whatever the machine."""
        ...

    def prepare(self, image: NDArray[np.uint8], key: str) -> Any:
        """Make one decoded image ready, off the main thread. (h, w, 3) RGB in, ``key`` is its SHA-256 in hex."""
        ...

    def decompose(self, prepared: Sequence[Any]) -> Sequence[Decomposition]:
        """Compute 1 … ``batch_size`` prepared images; results in the same order."""
        ...


def fine_grid(decomposer: Decomposer) -> tuple[int, int] | None:
    """Return (H', W') of ``clean_fine`` [points], None where the decomposer does not give it."""
    grid: tuple[int, int] | None = getattr(decomposer, "fine_grid", None)
    return grid if FINE in decomposer.variants else None
