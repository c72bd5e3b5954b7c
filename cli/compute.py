"""Where featstore meets dvt: options in, a decomposer out. torch is imported here, when it is needed."""

import platform
import shlex
import subprocess
import sys
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from featstore.compute import Decomposer
from featstore.errors import InputError

if TYPE_CHECKING:
    from dvt import Backbone

__all__ = ["ComputeOptions", "environment", "load_backbone", "make_decomposer", "provenance"]

PACKAGES = ("featstore-dvt", "torch", "timm", "numpy", "pillow", "h5py", "duckdb")


@dataclass(frozen=True)
class ComputeOptions:
    """What the command line decides about the model and the method; sizes in pixels, layers from 0, or from the end."""

    backbone: str
    weights: str | None
    method: str
    device: str
    batch_size: int | None
    input_size: tuple[int, int] | None
    layer: int | None
    norm: bool
    dtype: str | None
    views: int
    holdout: int
    nodes: int
    smooth: float
    rounds: int
    seed: int
    clean_grid: tuple[int, int] | None = None
    stride: int | None = None

    def __post_init__(self) -> None:
        if self.clean_grid is not None and self.method == "raw":
            raise InputError("--clean-grid needs --method stage1: method raw gives no clean map")


def load_backbone(options: ComputeOptions) -> "Backbone":
    """Build the model and load its weights."""
    import dvt

    named = options.weights in (None, "hub", "demo", "random")
    return dvt.Backbone.create(
        options.backbone,
        weights=options.weights if named or options.weights is None else Path(options.weights),
        input_size=options.input_size,
        stride=options.stride,
        layer=options.layer,
        norm=options.norm,
        device=options.device,
        dtype=options.dtype,
        seed=options.seed,
    )


def make_decomposer(options: ComputeOptions, backbone: "Backbone") -> Decomposer:
    """Return what computes the method chosen."""
    import dvt

    size = options.batch_size or (32 if backbone.device.type == "cuda" else 4)
    if options.method == "raw":
        return dvt.RawDecomposer(backbone, batch_size=size)
    views = dvt.ViewOptions(views=options.views, holdout=options.holdout, seed=options.seed)
    solver = dvt.LstsqOptions(nodes=options.nodes, smooth=options.smooth, rounds=options.rounds)
    fine: dict[str, Any] = {"fine_grid": options.clean_grid} if options.clean_grid else {}
    return dvt.Stage1Decomposer(backbone, views, solver, batch_size=size, **fine)


def environment(backbone: "Backbone") -> dict[str, str]:
    """Return library versions and device: what, beside the recipe, may move the last bits."""
    import torch

    facts = {name: installed(name) for name in PACKAGES}
    device = torch.cuda.get_device_name(backbone.device) if backbone.device.type == "cuda" else platform.machine()
    return (
        facts
        | {"python": platform.python_version(), "device": f"{backbone.device.type}: {device}"}
        | {"weights_source": backbone.weights_source}
    )


def installed(name: str) -> str:
    """Return a package's version, or that it is not there."""
    try:
        return version(name)
    except PackageNotFoundError:
        return "not installed"


def provenance() -> dict[str, str]:
    """Return the command line and, where there is one, the git revision of the program's folder."""
    command = shlex.join([Path(sys.argv[0]).name, *sys.argv[1:]])
    facts = {"command": command}
    here = Path(__file__).parent
    try:
        revision = subprocess.run(
            ["git", "-C", str(here), "describe", "--always", "--dirty"],
            capture_output=True,
            text=True,
            timeout=5,
            check=True,
        )
    except (OSError, subprocess.SubprocessError):
        return facts
    return facts | {"git": revision.stdout.strip()}
