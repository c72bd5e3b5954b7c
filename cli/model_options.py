"""Options of the backbone itself, each declared once; commands that run a model share them."""

from collections.abc import Callable
from typing import Any, TypeVar

import click

from .options import Size, picked

__all__ = ["model_options"]

F = TypeVar("F", bound=Callable[..., Any])


def model_options(*names: str) -> Callable[[F], F]:
    """Return a decorator that adds options of the backbone: those named, else all."""
    return picked(OPTIONS, names)


OPTIONS: dict[str, Callable[[Any], Any]] = {
    "backbone": click.option(
        "--backbone",
        metavar="NAME",
        default="dinov2_s",
        help="Alias (dinov2_b, mae_b, clip_b …) or any timm name: featstore backbones.",
    ),
    "weights": click.option(
        "--weights",
        metavar="FILE",
        help="safetensors, pth or ONNX file; a folder or hub:owner/name as transformers or timm save them; "
        "or hub, demo, random.  [default: hub]",
    ),
    "device": click.option("--device", metavar="NAME", default="auto", help="cpu, cuda, cuda:1 …"),
    "batch_size": click.option(
        "--batch-size", type=click.IntRange(min=1), metavar="N", help="Inputs a forward.  [default: 4, GPU 32]"
    ),
    "dtype": click.option(
        "--dtype",
        type=click.Choice(["float32", "bfloat16"]),
        help="Precision of the model; bfloat16 by autocast.  [default: float32, on a GPU bfloat16]",
    ),
    "input_size": click.option(
        "--input-size",
        type=Size(),
        help="What images are resized to [pixels].  [default: 518 with patch 14, 512 with patch 16, as the paper]",
    ),
    "stride": click.option(
        "--stride",
        type=click.IntRange(min=1),
        metavar="N",
        help="Pixels from patch to patch; below the patch they overlap.  [default: the patch]",
    ),
}
