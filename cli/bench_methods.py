"""``featstore bench methods``: every method on the same images."""

import math
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
import numpy as np

from featstore.denoisers import newest_denoiser
from featstore.errors import InputError
from featstore.geometry import Geometry
from featstore.labelled import Labelled, labelled_images, read_labels, read_photograph

from . import options
from .compute import ComputeOptions, load_backbone, make_decomposer
from .compute_options import METHODS
from .index import run_index
from .method import choose_method
from .model_options import model_options
from .printing import emit_json, plural, table_text
from .progress import Progress
from .reproduce import options_of

if TYPE_CHECKING:
    from dvt import Backbone, Patches

__all__ = ["methods"]

COLUMNS = ("method", "R²", "position", "cosine", "kNN mIoU", "- raw", "linear acc", "- raw", "s", "forwards")


@dataclass(frozen=True)
class Data:
    """A data set in a store, and its images that are compared."""

    root: Path
    dataset: str
    images: tuple[Labelled, ...]


@click.command(context_settings={"show_default": True})
@click.argument("data", nargs=-1, required=True, metavar="DATASET|IMAGE…")
@click.option("--methods", "chosen", metavar="LIST", help="With commas.  [default: all that can be had]")
@click.option("--limit", type=click.IntRange(min=2), metavar="N", help="Only N images, the first by SHA-256.")
@click.option("--views", type=click.IntRange(min=1), metavar="N", help="stage1: crops an image.  [default: 64]")
@model_options("backbone", "weights", "device", "batch_size", "dtype", "input_size")
@options.root
@options.as_json
def methods(
    data: tuple[str, ...],
    chosen: str | None,
    limit: int | None,
    views: int | None,
    root: Path,
    as_json: bool,
    **model: Any,
) -> None:
    """Run methods on the same images with the same backbone, and print what each makes of them.

    R² is that of crops kept out of stage 1's fit; position the share of the features' variance that positions explain; cosine
    that of raw and clean. Where the data set has masks, its images to train on label the patches of those to validate
    on (split val or test; else every second image is of those): kNN by mean IoU of the classes that those truly have
    (`featstore eval` counts classes wrongly given besides, as mmsegmentation does), a linear map by accuracy, and what
    they are better by than raw, each with the interval that holds 95 % of 1,000 bootstrap draws of the images
    judged. s are seconds an image. Other options of the methods are at their defaults.

    \b
    Examples:
      featstore bench methods voc --backbone dinov2_s --limit 90
      featstore bench methods *.jpg --methods raw,stage1,shift-mean
    """
    names = check_methods(chosen)
    settings: dict[str, Any] = options_of("featstore build any") | model
    settings = {key: value for key, value in settings.items() if key not in ("name", "store")}
    with opened(data, root, limit) as found:
        compute = ComputeOptions(**settings | {"method": "raw"})
        backbone = load_backbone(compute)
        if not as_json:
            click.echo(f"{backbone.id}, {backbone.weights_source}, {backbone.device}: {told(found)}", err=True)
        names = names or tuple(name for name in METHODS if name != "stage2" or has_denoiser(found, backbone))
        rows = compare(found, compute, backbone, ("raw", *(name for name in names if name != "raw")), views, as_json)
    if as_json:
        emit_json(rows)
    else:
        click.echo(table_text(COLUMNS, [line(row, rows[0]) for row in rows]))


def check_methods(text: str | None) -> tuple[str, ...]:
    """Return the methods named, none for all; raises InputError for one that there is not."""
    names = tuple(dict.fromkeys(word.strip() for word in (text or "").split(",") if word.strip()))
    wrong = [name for name in names if name not in METHODS]
    if wrong:
        raise InputError(f"unknown method {', '.join(wrong)}: choose from {', '.join(METHODS)}")
    return names


@contextmanager
def opened(data: tuple[str, ...], root: Path, limit: int | None) -> Iterator[Data]:
    """Give the data set that is named, or one of the image files that are, in a store that is gone afterwards.

    Raises NotInStoreError, InputError for a file that is none.
    """
    if len(data) == 1 and not Path(data[0]).is_file():
        yield Data(root, data[0], enough(labelled_images(root, data[0], limit)))
        return
    paths = [Path(name).absolute() for name in data]
    wrong = [str(path) for path in paths if not path.is_file()]
    if wrong:
        raise InputError(f"{wrong[0]} is no file: give one data set, or image files")
    with tempfile.TemporaryDirectory() as folder:
        for number, path in enumerate(paths):
            place = Path(folder) / "images" / f"{number:05d}{path.suffix}"
            place.parent.mkdir(exist_ok=True)
            place.symlink_to(path)
        store = Path(folder) / "store"
        run_index(store, "images", Path(folder) / "images", "folder", quiet=True)
        yield Data(store, "images", enough(labelled_images(store, "images", limit)))


def enough(images: tuple[Labelled, ...]) -> tuple[Labelled, ...]:
    """Raise InputError for fewer than two images, of which positions tell nothing."""
    if len(images) < 2:
        raise InputError("methods are compared on two images or more: positions explain nothing of one")
    return images


def told(found: Data) -> str:
    """Say which images are compared."""
    masks = [image for image in found.images if image.mask]
    judged = sum(image.judged for image in masks)
    parts = f", {len(masks) - judged} with masks to fit by, {judged} to judge by" if masks else ", without masks"
    return plural(len(found.images), "image") + parts


def has_denoiser(found: Data, backbone: "Backbone") -> bool:
    """Whether stage 2 can be had."""
    return newest_denoiser(found.root, backbone.recipe(), found.dataset) is not None


def compare(
    found: Data, compute: ComputeOptions, backbone: "Backbone", names: tuple[str, ...], views: int | None, quiet: bool
) -> list[dict[str, Any]]:
    """Run the methods, raw first, and return what is told of each."""
    import dvt

    patches = labels_of(found, backbone)
    pixels = [(read_photograph(image), image.sha256) for image in found.images]
    results: list[dvt.MethodResult] = []
    rows = []
    with Progress("comparing", quiet=quiet) as progress:
        progress.start(len(names) * len(pixels))
        for name in names:
            own = replace(compute, method=name, views=views if name == "stage1" else None)
            started = time.perf_counter()
            choice = choose_method(found.root, found.dataset, own, backbone, name, dry_run=True)
            decomposer = make_decomposer(choice.compute, backbone, choice.known)
            before = time.perf_counter() - started
            results.append(dvt.run_method(decomposer, pixels, progress.advance))
            if patches is not None:
                dvt.judge(results[-1], patches, results[0] if len(results) > 1 else None)
            rows.append(results[-1].told() | {"seconds_before": before, "images": len(pixels), "prior": choice.prior})
            results[1:] = []
    return rows


def labels_of(found: Data, backbone: "Backbone") -> "Patches | None":
    """Return the labels of all patches; None without a mask to fit by and one to judge by."""
    import dvt

    geometry = Geometry.of({"backbone": backbone.recipe()})
    if {image.judged for image in found.images if image.mask} != {True, False} or geometry is None:
        return None
    labels = []
    for image in found.images:
        mask = read_labels(found.root, found.dataset, image)
        empty = np.full(backbone.grid[0] * backbone.grid[1], -1)
        labels.append(empty if mask is None else dvt.patch_labels(geometry.cut(mask[0]), backbone.grid, mask[1]))
    return dvt.Patches(labels, [image.judged for image in found.images])


def line(row: dict[str, Any], raw: dict[str, Any]) -> tuple[str, ...]:
    """Return a line of the table."""
    own = row is raw
    cells = [row["method"], number(row["heldout_r2"])]
    cells.append(number(raw["position"]) if own else f"{number(raw['position'])} → {number(row['position'])}")
    cells.append("–" if own else number(row["cos_raw_clean"]))
    for name in ("knn", "linear"):
        figure = row.get(name)
        cells.append("–" if figure is None else f"{number(figure['value'])} {interval(figure['interval'])}")
        cells.append("–" if figure is None or own else difference(figure))
    return (*cells, f"{row['seconds']:.2f}", str(row["forwards"]))


def number(value: float) -> str:
    """Return a figure, or a dash."""
    return "–" if math.isnan(value) else f"{value:.3f}"


def interval(ends: tuple[float, float]) -> str:
    """Return an interval."""
    return "" if math.isnan(ends[0]) else f"[{ends[0]:.3f}, {ends[1]:.3f}]"


def difference(figure: dict[str, Any]) -> str:
    """Return a difference with its interval."""
    low, high = figure["difference_interval"]
    return f"{figure['difference']:+.3f}" + ("" if math.isnan(low) else f" [{low:+.3f}, {high:+.3f}]")
