"""Options that decide what is computed, declared once for ``build`` and for reading its command line again."""

from collections.abc import Callable
from typing import Any, TypeVar

import click

from . import devices
from .denoisers import HELP
from .model_options import model_options
from .neighbours import NEIGHBOURS
from .stage1_options import stage1_options

__all__ = ["METHODS", "compute_options"]

F = TypeVar("F", bound=Callable[..., Any])
METHODS = ("raw", "stage1", "stage2", *NEIGHBOURS)

OPTIONS: tuple[Callable[[Any], Any], ...] = (
    model_options("backbone", "weights"),
    click.option(
        "--method",
        type=click.Choice(METHODS),
        help="How features are cleaned; raw leaves them as they are.  "
        "[default: stage2 where a denoiser for these features is trained, else stage1]",
    ),
    click.option("--denoiser", metavar="NAME", help=f"stage2: {HELP}  [default: the newest for these features]"),
    click.option("--device", metavar="LIST", default="auto", help=devices.HELP),
    model_options("batch_size", "dtype", "input_size"),
    click.option(
        "--resize",
        type=click.Choice(["squash", "shortest", "keep"]),
        default="squash",
        help="Whole images in the input's shape; their middle; or whole, in the nearest of eleven shapes of as many patches.",
    ),
    model_options("stride"),
    click.option("--layer", type=int, metavar="N", help="Block to take, from 0; -1 is the last.  [default: the last]"),
    click.option("--norm/--no-norm", default=True, help="Apply the model's final norm."),
    click.option(
        "--solver", type=click.Choice(["lstsq", "field"]), help="stage1: direct, or the paper's.  [default: lstsq]"
    ),
    click.option(
        "--views",
        type=click.IntRange(min=1),
        metavar="N",
        help="stage1: crops to fit an image; shift-mean: views, all told.  [default: 64; 10]",
    ),
    stage1_options(),
    click.option(
        "--rasa-rounds",
        type=click.IntRange(min=1),
        default=9,
        metavar="N",
        help="rasa: planes of directions to project out at most.",
    ),
    click.option(
        "--register-neurons",
        type=click.IntRange(min=1),
        default=10,
        metavar="N",
        help="test-time-registers: hidden neurons to move to an extra token.",
    ),
    click.option(
        "--register-layer",
        type=click.IntRange(min=0),
        metavar="N",
        help="test-time-registers: block up to which they are looked for.  [default: that where outliers appear]",
    ),
    click.option("--compile", "compiled", is_flag=True, help="stage2: run the denoiser through torch.compile."),
)


def compute_options(command: F) -> F:
    """Add every option of ``ComputeOptions``, under its field's name."""
    for option in reversed(OPTIONS):
        command = option(command)
    return command
