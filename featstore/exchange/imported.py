"""Features from elsewhere, as a build wants them: what they are said to be, and maps in place of computed ones."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from featstore.compute import FINE, VARIANTS
from featstore.errors import InputError

from .formats import Reader
from .matching import Entry
from .source import PREFIX

__all__ = ["Arrays", "Described", "Imported", "arranged", "shapes_of"]

Arrays = dict[str, NDArray[Any]]
METHOD = "imported"


@dataclass(frozen=True)
class Described:
    """What is known of imported features: the recipe's ``backbone``, and of ``method`` what is told of their making."""

    backbone: Mapping[str, Any]
    method: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Maps:
    """One image's maps as a build takes them, (H, W, C) each; prefix tokens (T, C)."""

    raw: NDArray[Any] | None
    clean: NDArray[Any] | None
    artifact: NDArray[Any] | None
    prefix: NDArray[Any] | None
    stats: Mapping[str, float]
    clean_fine: NDArray[Any] | None = None


class Imported:
    """A decomposer that computes nothing: it reads what others have computed.

    ``shapes`` are those of one sample, (H, W, C) for maps and (T, C) for prefix tokens.
    """

    method = METHOD
    forwards_per_image, batch_size = 1, 4

    def __init__(
        self,
        reader: Reader,
        shapes: Mapping[str, tuple[int, ...]],
        described: Described,
        channels: str,
        grid: Any = None,
    ) -> None:
        self.reader, self.shapes, self.described, self.channels, self.flat = reader, shapes, described, channels, grid
        self.variants = tuple(name for name in VARIANTS if name in shapes)
        first = next(name for name in self.variants if name != FINE or len(self.variants) == 1)
        height, width, self.width = shapes[first]
        self.grid = (height, width)
        self.prefix_tokens = shapes[PREFIX][0] if PREFIX in shapes else 0
        if FINE in shapes:
            self.fine_grid = (shapes[FINE][0], shapes[FINE][1])

    def recipe(self) -> dict[str, Any]:
        """Return all that is known of the features; whatever else made them, they are never taken for computed ones."""
        method = {"name": METHOD, "grid": list(self.grid), "channels": self.width, "prefix_tokens": self.prefix_tokens}
        if FINE in self.shapes:
            method["clean_grid"] = list(self.fine_grid)
        return {"backbone": dict(self.described.backbone), "method": method | dict(self.described.method)}

    def prepare(self, image: NDArray[np.uint8], key: str) -> Any:
        """Refuse: nothing is computed of an image here."""
        raise InputError("imported features are read, not computed")

    def prepare_given(self, entry: Entry) -> Maps:
        """Read one image's features; raises InputError where they are not like the others, OSError, ValueError."""
        # The residual follows from the others, as it does in a build.
        wanted = {name: shape for name, shape in self.shapes.items() if name != "residual"}
        found = self.reader.load(entry.place, tuple(wanted))
        arrays: Arrays = {}
        for name, shape in wanted.items():
            if name not in found:
                raise InputError(f"{entry.name} has no {name}")
            arrays[name] = arranged(name, found[name], self.channels, self.flat)
            if arrays[name].shape != shape:
                raise InputError(f"{name} of {entry.name} is {arrays[name].shape}, and {shape} of most others")
        maps = {name: arrays.get(name) for name in ("raw", "clean", "artifact", FINE)}
        return Maps(**maps, prefix=arrays.get(PREFIX), stats=figures(maps["raw"], maps["clean"]))

    def decompose(self, prepared: Sequence[Maps]) -> Sequence[Maps]:
        """Return what was read."""
        return prepared


def arranged(name: str, values: NDArray[Any], channels: str, grid: tuple[int, int] | None) -> NDArray[Any]:
    """Return an array as (H, W, C), or (T, C) for prefix tokens; leading axes of one are dropped.

    ``grid`` is (H, W) of maps that lie as (H·W, C), or (C, H·W). Raises InputError for what is no feature map.
    """
    if not np.issubdtype(values.dtype, np.floating):
        raise InputError(f"{name} is {values.dtype}: features are floating-point numbers")
    axes = 2 if name == PREFIX or grid else 3
    while values.ndim > axes and values.shape[0] == 1:
        values = values[0]
    if name == PREFIX:
        if values.ndim != 2:
            raise InputError(f"{name} is {values.shape}: it should be (tokens, channels)")
        return values
    if channels == "first" and values.ndim > 1:
        values = np.moveaxis(values, 0, -1)
    if grid and values.ndim == 2 and values.shape[0] == grid[0] * grid[1]:
        return values.reshape(*grid, -1)
    if values.ndim != 3:
        hint = ": --grid 37x37 says which rows and columns" if values.ndim == 2 else ""
        raise InputError(f"{name} is {values.shape}, not (height, width, channels){hint}")
    return values


def shapes_of(
    reader: Reader, entries: Sequence[Entry], variants: Sequence[str], channels: str, grid: tuple[int, int] | None
) -> dict[str, tuple[int, ...]]:
    """Return the shape that most of the first few samples have; raises InputError where none can be read."""
    seen: Counter[tuple[tuple[str, tuple[int, ...]], ...]] = Counter()
    why = "there is nothing"
    for entry in entries[:9]:
        try:
            found = reader.load(entry.place, (*variants, PREFIX))
            wanted = [name for name in (*variants, PREFIX) if name in found or name != PREFIX]
            shapes = tuple((name, arranged(name, found[name], channels, grid).shape) for name in wanted)
        except (OSError, ValueError, KeyError) as error:
            why = f"{entry.name}: {error}" if not isinstance(error, KeyError) else f"{entry.name}: there is no {error}"
            continue
        seen[shapes] += 1
    if not seen:
        raise InputError(f"no features can be read ({why})")
    return dict(seen.most_common(1)[0][0])


def figures(raw: NDArray[Any] | None, clean: NDArray[Any] | None) -> dict[str, float]:
    """Return the statistics that follow from the maps alone."""
    stats: dict[str, float] = {}
    if raw is not None:
        norms = np.sort(np.linalg.norm(raw.astype(np.float32), axis=-1), axis=None)
        middle = norms[(norms.size - 1) // 2]
        stats = {"norm_min": float(norms[0]), "norm_median": float(middle), "norm_max": float(norms[-1])}
    if raw is not None and clean is not None and raw.shape == clean.shape:
        a, b = raw.astype(np.float32), clean.astype(np.float32)
        lengths = np.linalg.norm(a, axis=-1) * np.linalg.norm(b, axis=-1)
        stats["cos_raw_clean"] = float(((a * b).sum(-1) / np.maximum(lengths, 1e-12)).mean())
    return stats
