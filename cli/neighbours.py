"""Methods beside DVT's own: what each takes of a sample of the data set beforehand, and what then computes it."""

import hashlib
import json
from collections.abc import Callable, Iterator
from contextlib import nullcontext, suppress
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from featstore.calibration import Calibration, decoded, sample_images
from featstore.compute import Decomposer
from featstore.errors import InputError, StoreError

from .printing import plural
from .progress import counted

if TYPE_CHECKING:
    import torch

    from dvt import Backbone

    from .compute import ComputeOptions

__all__ = ["NEIGHBOURS", "SHIFTS", "calibrated", "make_neighbour", "regridded"]

NEIGHBOURS = ("shift-mean", "position-mean", "rasa", "test-time-registers")
SHIFTS = 10
SEARCHED = 64  # images in which register neurons are looked for
Array = NDArray[np.float32]


@dataclass(frozen=True)
class Sample:
    """The data set's first images by SHA-256, run through a backbone ``size`` at a time."""

    root: Path
    dataset: str
    backbone: "Backbone"
    size: int
    dry_run: bool

    def prepared(self, count: int | None = None) -> Iterator[list["torch.Tensor"]]:
        """Yield the images that can be read as the model's inputs, in batches; all of the sample, or ``count``."""
        import dvt

        loader = dvt.RawDecomposer(self.backbone, self.size)
        named = (
            sample_images(self.root, self.dataset) if count is None else sample_images(self.root, self.dataset, count)
        )
        shown = counted(decoded(named), len(named), "calibrating")
        images = (loader.prepare(image, "") for image in shown)
        while group := list(islice(images, self.size)):
            yield group

    def raw(self) -> Iterator["torch.Tensor"]:
        """Yield raw maps (N, H, W, C) as a store holds them, rounded to float16."""
        import dvt

        for group in self.prepared():
            yield dvt.raw_of(self.backbone, group)[0].half().float()

    def kept(self, kind: str, options: dict[str, Any], make: Callable[[], Array]) -> tuple[Array, str]:
        """Return an array that belongs to data set and backbone, made once and then kept; and where it lies in words.

        A dry run keeps it as well, so that the build need not make it again, but does not mind where it cannot.
        """
        decided = json.dumps({"dataset": self.dataset} | options, sort_keys=True)
        key = hashlib.sha256(decided.encode()).hexdigest()
        place = Calibration(self.root, key, self.backbone.recipe(), kind)
        values = place.load()
        if values is not None:
            return values, f"kept in {place.path.name}"
        values = make()
        told = "not kept, since the store cannot be written"
        with suppress(StoreError) if self.dry_run else nullcontext():
            place.save(values)
            told = f"taken of {plural(len(sample_images(self.root, self.dataset)), 'image')}, kept in {place.path.name}"
        return values, told


def calibrated(
    root: Path, dataset: str, compute: "ComputeOptions", backbone: "Backbone", size: int, dry_run: bool
) -> tuple["ComputeOptions", Array | None, str]:
    """Return the options as they are to be computed, what the method knows beforehand, and a line that says so.

    Raises InputError and StoreError, and what dvt raises without an image.
    """
    sample = Sample(root, dataset, backbone, size, dry_run)
    if compute.method == "position-mean":
        values, told = sample.kept("position-mean", {}, lambda: mean_of(sample))
        return compute, values, f"artifact: the mean of raw, {told}"
    if compute.method == "rasa":
        values, told = sample.kept("rasa", {"rounds": compute.rasa_rounds}, lambda: directions_of(sample, compute))
        along = len(values) - backbone.grid[0] * backbone.grid[1]
        return compute, values, f"{plural(along, 'direction')} of row and column: {told}"
    if compute.method == "test-time-registers":
        return registers(sample, compute)
    return compute, None, ""


def mean_of(sample: Sample) -> Array:
    """Return the artifact of position-mean (H, W, C)."""
    import dvt

    found: Array = dvt.position_mean((raw, 0 * raw) for raw in sample.raw()).numpy()
    return found


def directions_of(sample: Sample, compute: "ComputeOptions") -> Array:
    """Return rasa's directions, a row each, then the mean feature at each position, a row each: (K + H·W, C)."""
    import dvt

    along, mean = dvt.fit_rasa(sample.raw(), dvt.RasaOptions(rounds=compute.rasa_rounds))
    found: Array = np.concatenate([along.numpy(), mean.flatten(0, 1).numpy()])
    return found


def registers(sample: Sample, compute: "ComputeOptions") -> tuple["ComputeOptions", Array, str]:
    """Find the register neurons, and with them the artifact."""
    import dvt

    options = {"neurons": compute.register_neurons, "last": compute.register_layer}

    def search() -> Array:
        images = [image for group in sample.prepared(SEARCHED) for image in group]
        wanted = dvt.RegisterOptions(compute.register_neurons, compute.register_layer)
        found = dvt.find_neurons(sample.backbone, images, wanted, sample.size)
        return np.array(found, np.float32).reshape(-1, 2)

    places, _ = sample.kept("register-neurons", options, search)
    neurons = tuple((int(block), int(place)) for block, place in places.tolist())

    def mean() -> Array:
        nothing = np.zeros((*sample.backbone.grid, sample.backbone.width), np.float32)
        if not neurons:
            return nothing
        method = dvt.RegistersDecomposer(sample.backbone, neurons, dvt.as_map(nothing), sample.size)
        found: Array = dvt.position_mean(method.pair(group) for group in sample.prepared()).numpy()
        return found

    values, told = sample.kept("registers", {"moved": neurons}, mean)
    return replace(compute, neurons=neurons), values, f"artifact: the mean of raw - clean, {told}"


def make_neighbour(options: "ComputeOptions", backbone: "Backbone", known: Array | None, size: int) -> Decomposer:
    """Return what computes one of ``NEIGHBOURS``; ``known`` is what ``calibrated`` returned."""
    import dvt

    if options.method == "shift-mean":
        shifts = dvt.ShiftOptions(views=options.views or SHIFTS, seed=options.seed)
        return dvt.ShiftMeanDecomposer(backbone, shifts, size)
    if known is None:
        raise InputError(f"method {options.method} needs what is taken of a sample of the data set beforehand")
    if options.method == "position-mean":
        return dvt.PositionMeanDecomposer(backbone, dvt.as_map(known), size)
    if options.method == "rasa":
        along, mean = unpacked(known, backbone.grid)
        return dvt.RasaDecomposer(backbone, dvt.as_map(along[None])[0], dvt.as_map(mean), size)
    return dvt.RegistersDecomposer(backbone, options.neurons, dvt.as_map(known), size)


def unpacked(known: Array, grid: tuple[int, int]) -> tuple[Array, Array]:
    """Return directions (K, C) and means (H, W, C) of rasa."""
    places = grid[0] * grid[1]
    return known[: len(known) - places], known[len(known) - places :].reshape(*grid, -1)


def regridded(method: str, known: Array | None, grid: tuple[int, int], other: tuple[int, int]) -> Array | None:
    """Return what is known beforehand of features on another grid: maps are resampled, directions stay."""
    import dvt

    if known is None:
        return None
    if method != "rasa":
        return dvt.resampled(dvt.as_map(known), other).numpy()
    along, mean = unpacked(known, grid)
    centre = mean.mean(axis=(0, 1))
    moved = dvt.resampled(dvt.as_map(mean - centre), other).flatten(0, 1).numpy() + centre
    return np.concatenate([along, moved])
