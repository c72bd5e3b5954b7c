"""Options of method `stage1`, each declared once; `build` and `bench` share them."""

from collections.abc import Callable
from typing import Any, TypeVar

import click

from .options import Size, picked

__all__ = ["Memory", "Smooth", "Span", "stage1_options"]

F = TypeVar("F", bound=Callable[..., Any])
CANDIDATES = (0.01, 0.1, 1.0, 10.0)
UNITS = {"": 1.0, "K": 1e3, "M": 1e6, "G": 1e9, "T": 1e12}


class Smooth(click.ParamType[float | tuple[float, ...]]):
    """A number, several to choose from, or ``auto``."""

    name = "LAMBDA"

    def convert(
        self, value: Any, parameter: click.Parameter | None, context: click.Context | None
    ) -> float | tuple[float, ...]:
        """Return one number, or the candidates."""
        if isinstance(value, float | tuple):
            return value
        if value == "auto":
            return CANDIDATES
        try:
            numbers = tuple(float(word) for word in str(value).split(","))
        except ValueError:
            self.fail(f"{value!r} is no smoothness: give a number, several with commas, or auto")
        return numbers[0] if len(numbers) == 1 else numbers


class Span(click.ParamType[tuple[float, float]]):
    """Two numbers, smallest first."""

    name = "MIN,MAX"

    def convert(
        self, value: Any, parameter: click.Parameter | None, context: click.Context | None
    ) -> tuple[float, float]:
        """Return both."""
        if isinstance(value, tuple):
            return value
        words = str(value).split(",")
        try:
            low, high = (float(word) for word in words)
        except ValueError:
            self.fail(f"{value!r} is no range: give two numbers, 0.1,0.5")
        return low, high


class Memory(click.ParamType[int]):
    """A number of bytes: 8GB, 500MB."""

    name = "SIZE"

    def convert(self, value: Any, parameter: click.Parameter | None, context: click.Context | None) -> int:
        """Return bytes."""
        word = str(value).upper().removesuffix("IB").removesuffix("B").strip()
        unit = word[-1:] if word[-1:].isalpha() else ""
        try:
            return int(float(word.removesuffix(unit)) * UNITS[unit])
        except (ValueError, KeyError):
            self.fail(f"{value!r} is no amount of memory: give 8GB or 500MB")


def stage1_options(*names: str) -> Callable[[F], F]:
    """Return a decorator that adds options of stage 1: those named, else all."""
    return picked(OPTIONS, names)


OPTIONS: dict[str, Callable[[Any], Any]] = {
    "holdout": click.option(
        "--holdout", type=click.IntRange(min=0), default=8, metavar="N", help="Crops to judge the fit by."
    ),
    "area": click.option(
        "--area", type=Span(), metavar="MIN,MAX", help="Share of the image a crop covers.  [default: 0.1,0.5]"
    ),
    "crop_input": click.option(
        "--crop-input",
        type=Size(),
        help="What crops are resized to [pixels].  [default: lstsq about 224, field as --input-size]",
    ),
    "wide": click.option(
        "--wide",
        type=click.IntRange(min=1),
        default=8,
        metavar="N",
        help="Crops run at --input-size, too, where --crop-input is another.",
    ),
    "nodes": click.option(
        "--nodes",
        type=click.IntRange(min=2),
        metavar="N",
        help="lstsq: nodes along the long side.  [default: one a patch of a mean crop]",
    ),
    "clean_grid": click.option(
        "--clean-grid", type=Size(), help="Store clean on this grid, too, as clean_fine: 74x74."
    ),
    "smooth": click.option(
        "--smooth",
        type=Smooth(),
        default="0.1",
        help="lstsq: weight of smoothness, lambda; of several (0.01,0.1 or auto) each image takes the one that predicts best.",
    ),
    "rounds": click.option(
        "--rounds", type=click.IntRange(min=0), metavar="N", default=1, help="lstsq: rounds of robust reweighting."
    ),
    "context": click.option(
        "--context", type=float, metavar="POWER", default=0.0, help="lstsq: views weigh as their area to this power."
    ),
    "blend": click.option(
        "--blend",
        type=click.FloatRange(0, 1),
        metavar="SHARE",
        default=0.0,
        help="Share of what S and G leave of raw that clean keeps.",
    ),
    "artifact_prior": click.option(
        "--artifact-prior",
        metavar="VERSION",
        help="Begin from an artifact known beforehand: the mean over a version built before, or `measure`, that of up "
        "to 512 crops of the data set in which content lies anywhere; `none` is without.  [default: measure]",
    ),
    "iterations": click.option(
        "--iterations", type=click.IntRange(min=2), metavar="N", help="field: steps.  [default: 1000]"
    ),
    "encoding": click.option(
        "--encoding",
        type=click.Choice(["auto", "tinycudann", "pytorch"]),
        default="auto",
        help="field: auto takes tinycudann where there are a GPU and the package.",
    ),
    "faithful": click.option(
        "--faithful",
        is_flag=True,
        help="The original code's settings, traps included: field, 768 views, 20,000 iterations.",
    ),
    "memory": click.option(
        "--memory", type=Memory(), metavar="SIZE", help="Keep within this: 8GB.  [default: no limit]"
    ),
    "seed": click.option("--seed", type=int, metavar="N", default=0, help="Seed of the crops, and of the field."),
}
