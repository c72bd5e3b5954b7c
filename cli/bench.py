"""``featstore bench``: measure, on this machine and these photographs."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click

from featstore.errors import DecodeError, InputError
from featstore.images import decode

from . import options
from .compute import ComputeOptions, load_backbone, run_comparison
from .model_options import model_options
from .printing import emit_json, table_text
from .progress import Progress
from .stage1_options import stage1_options

__all__ = ["bench"]

COLUMNS = (
    "solver",
    "views",
    "forward [s]",
    "solve [s]",
    "R²",
    "cosine",
    "cos(raw, clean)",
    "G",
    "residual",
    "peak [GB]",
)
FIELDS = ("heldout_r2", "heldout_cos", "cos_raw_clean", "artifact_share", "residual_share")


class Counts(click.ParamType[tuple[int, ...]]):
    """Whole numbers with commas."""

    name = "LIST"

    def convert(self, value: Any, parameter: click.Parameter | None, context: click.Context | None) -> tuple[int, ...]:
        """Return them in order."""
        if isinstance(value, tuple):
            return value
        words = str(value).split(",")
        if not all(word.strip().isdigit() and int(word) for word in words):
            self.fail(f"{value!r} is no list of numbers of views: give 16,32,64")
        return tuple(int(word) for word in words)


@click.group()
def bench() -> None:
    """Measure methods on this machine and on your photographs."""


@bench.command(context_settings={"show_default": True})
@click.argument(
    "images", nargs=-1, required=True, metavar="IMAGE…", type=click.Path(exists=True, dir_okay=False, path_type=Path)
)
@model_options("backbone", "weights")
@click.option("--solvers", metavar="LIST", default="lstsq", help="Of lstsq, field and faithful, with commas.")
@click.option("--views", type=Counts(), default=(16, 32, 64), help="Numbers of crops to fit, with commas.")
@model_options("device", "batch_size", "dtype", "input_size")
@stage1_options("holdout", "area", "crop_input", "wide", "nodes", "smooth", "rounds", "iterations", "encoding", "seed")
@options.as_json
def stage1(images: tuple[Path, ...], solvers: str, views: tuple[int, ...], as_json: bool, **chosen: Any) -> None:
    """Fit each photograph with each solver and number of views, and judge the fits by the same crops, kept out of all.

    Crops are as large as the whole image's input unless --crop-input says, so that both solvers see the same; R² and cosine
    tell how well the fit predicts the raw features of crops that it has not seen; G and residual are their
    variance over that of raw. The mean over the photographs is printed; --json tells of each.

    \b
    Examples:
      featstore bench stage1 cat.jpg --views 16,64,256
      featstore bench stage1 *.jpg --solvers lstsq,field --device cuda
    """
    names = check_solvers(solvers)
    photographs = [(read_image(path), path.name) for path in images]
    common = {"method": "stage1", "layer": None, "norm": True, "stride": None, "solver": None, "views": None}
    unused = {"context": 0.0, "blend": 0.0, "artifact_prior": None, "faithful": False, "memory": None}
    compute = ComputeOptions(**chosen | common | unused)
    backbone = load_backbone(compute)
    if not as_json:
        click.echo(f"{backbone.id}, weights {backbone.weights_source}, {backbone.device}, {backbone.dtype}", err=True)
    rows: list[dict[str, Any]] = []
    with Progress("measuring", quiet=as_json) as progress:
        progress.start(len(images) * len(names) * len(views))
        for row in run_comparison(compute, backbone, names, views, photographs):
            rows.append(row)
            progress.advance(1)
    if as_json:
        emit_json([row | {"image": photographs[row["image"]][1]} for row in rows])
        return
    click.echo(table_text(COLUMNS, summarised(rows)))


def check_solvers(text: str) -> tuple[str, ...]:
    """Return the solvers named; raises InputError for one that there is not."""
    names = tuple(word.strip() for word in text.split(",") if word.strip())
    wrong = [name for name in names if name not in ("lstsq", "field", "faithful")]
    if wrong or not names:
        raise InputError(f"unknown solver {', '.join(wrong) or repr(text)}: choose from lstsq, field, faithful")
    return names


def read_image(path: Path) -> Any:
    """Return a photograph's pixels; raises DecodeError naming the file."""
    try:
        return decode(path.read_bytes())
    except DecodeError as error:
        raise DecodeError(f"{path}: {error}") from error


def summarised(rows: Sequence[dict[str, Any]]) -> list[tuple[Any, ...]]:
    """Return a line for each solver and number of views: the mean over photographs, the largest peak."""
    lines = []
    for label, count in dict.fromkeys((row["label"], row["views"]) for row in rows):
        same = [row for row in rows if (row["label"], row["views"]) == (label, count)]
        seconds = [f"{mean(same, name):.2f}" for name in ("forward_seconds", "solve_seconds")]
        figures = [f"{mean(same, name):.4f}" for name in FIELDS]
        lines.append((label, count, *seconds, *figures, f"{max(row['peak_bytes'] for row in same) / 1e9:.2f}"))
    return lines


def mean(rows: Sequence[dict[str, Any]], name: str) -> float:
    """Return the mean of a figure."""
    return float(sum(row[name] for row in rows)) / len(rows)
