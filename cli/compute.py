"""Where featstore meets dvt: options in, a decomposer out. torch is imported here, when it is needed."""

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from featstore.compute import Decomposer
from featstore.errors import InputError
from featstore.places import path_of
from featstore.working_copy import local_copy

from .neighbours import NEIGHBOURS, make_neighbour, regridded

if TYPE_CHECKING:
    from dvt import Backbone, FieldOptions, LstsqOptions, ViewOptions

__all__ = [
    "ComputeOptions",
    "Known",
    "Several",
    "at_layers",
    "load_backbone",
    "local_weights",
    "make_decomposer",
    "run_comparison",
]

VIEWS = 64


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
    solver: str | None
    views: int | None
    holdout: int
    area: tuple[float, float] | None
    nodes: int | None
    smooth: float | tuple[float, ...]
    rounds: int
    crop_input: tuple[int, int] | None
    wide: int
    context: float
    blend: float
    artifact_prior: str | None
    iterations: int | None
    encoding: str
    faithful: bool
    memory: int | None
    seed: int
    clean_grid: tuple[int, int] | None = None
    stride: int | None = None
    denoiser: str | None = None
    compiled: bool = False
    resize: str = "squash"
    rasa_rounds: int = 9
    register_neurons: int = 10
    register_layer: int | None = None
    neurons: tuple[tuple[int, int], ...] = ()

    def __post_init__(self) -> None:
        if self.clean_grid is not None and self.method != "stage1":
            raise InputError(
                f"--clean-grid needs --method stage1: method {self.method} gives no clean map of another grid"
            )
        if self.denoiser and self.method != "stage2":
            raise InputError("--denoiser is of --method stage2")
        if self.artifact_prior not in (None, "none") and (self.method != "stage1" or self.faithful):
            raise InputError(
                "--artifact-prior needs --method stage1, and not --faithful, which knows nothing beforehand"
            )
        if self.faithful and self.solver == "lstsq":
            raise InputError(
                "--faithful is the original's settings, whose solver is the field: leave out --solver lstsq"
            )


def load_backbone(options: ComputeOptions) -> "Backbone":
    """Build the model and load its weights."""
    import dvt

    return dvt.Backbone.create(
        options.backbone,
        weights=local_weights(options.weights),
        input_size=options.input_size,
        stride=options.stride,
        layer=options.layer,
        norm=options.norm,
        device=options.device,
        dtype=options.dtype,
        seed=options.seed,
        resize=options.resize,
    )


@dataclass(frozen=True)
class Several:
    """Options and what is known beforehand, for each of several layers that are computed in one pass."""

    parts: tuple[tuple[ComputeOptions, NDArray[np.float32] | None], ...]


Known = NDArray[np.float32] | Several | None
"""What a method is told beforehand."""


def at_layers(backbone: "Backbone", layers: Sequence[int]) -> list["Backbone"]:
    """Return the backbone at each layer, sharing forwards; as it is where none are given."""
    import dvt

    return dvt.at_layers(backbone, layers) if layers else [backbone]


def local_weights(weights: str | None) -> Path | str | None:
    """Return ``--weights`` as ``Backbone.create`` takes it: a name as it is, a file or URL as a local file."""
    if weights is None or weights in ("hub", "demo", "random") or weights.startswith("hub:"):
        return weights
    return local_copy(path_of(weights))


def make_decomposer(options: ComputeOptions, backbone: "Backbone", known: Known = None) -> Decomposer:
    """Return what computes the method chosen; ``known`` (H, W, C) is stage 1's prior artifact, or the artifact of stage 2.

    What it is for the methods of ``NEIGHBOURS`` is told there.
    """
    import dvt

    if isinstance(known, Several):
        backbones = at_layers(backbone, [int(own.layer or 0) for own, _ in known.parts])
        made = [make_decomposer(own, one, what) for one, (own, what) in zip(backbones, known.parts, strict=True)]
        layers: Decomposer = dvt.Layers(made)
        return layers
    base = at_one_size(options, backbone, known)
    if backbone.resize != "keep":
        return base

    def at(other: "Backbone") -> Decomposer:
        return at_one_size(options, other, regridded(options.method, known, backbone.grid, other.grid))

    buckets: Decomposer = dvt.Buckets(base, at)
    return buckets


def at_one_size(options: ComputeOptions, backbone: "Backbone", known: NDArray[np.float32] | None) -> Decomposer:
    """Return what computes the method at the backbone's own input size."""
    import dvt

    size = options.batch_size or (32 if backbone.device.type == "cuda" else 4)
    if options.method == "raw":
        return dvt.RawDecomposer(backbone, batch_size=size)
    if options.method in NEIGHBOURS:
        return make_neighbour(options, backbone, known, size)
    if options.method == "stage2":
        if options.denoiser is None or known is None:
            raise InputError("method stage2 needs a denoiser and its artifact")
        denoiser = dvt.Denoiser.from_checkpoint(options.denoiser, backbone.timm_name, backbone.width)
        return dvt.Stage2Decomposer(backbone, denoiser, dvt.as_map(known), size, compiled=options.compiled)
    return dvt.Stage1Decomposer(
        backbone,
        view_options(options, backbone),
        solver_options(options),
        batch_size=size,
        blend=options.blend,
        context=options.context,
        prior=None if known is None else dvt.as_map(known),
        fine_grid=options.clean_grid,
        memory=options.memory,
        encoding=options.encoding,
    )


def view_options(options: ComputeOptions, backbone: "Backbone", own_input: bool = True) -> "ViewOptions":
    """Return how views are drawn; without ``own_input`` crops are as large as the whole image unless options say."""
    import dvt

    if options.faithful:
        size = backbone.input_size
        drawn = dvt.ViewOptions.faithful(size, options.views or 768, options.holdout, options.seed)
    else:
        drawn = dvt.ViewOptions(views=options.views or VIEWS, holdout=options.holdout, seed=options.seed)
        drawn = replace(drawn, wide=options.wide, crop_input=options.crop_input)
        if options.crop_input is None and not own_input:
            drawn = replace(drawn, crop_input=backbone.input_size)
    return replace(drawn, area=options.area) if options.area else drawn


def solver_options(options: ComputeOptions) -> "LstsqOptions | FieldOptions":
    """Return the solver with its parameters."""
    import dvt

    if options.solver == "field" or options.faithful:
        field = dvt.FieldOptions.faithful() if options.faithful else dvt.FieldOptions()
        return replace(field, iterations=options.iterations or field.iterations)
    return dvt.LstsqOptions(nodes=options.nodes, smooth=options.smooth, rounds=options.rounds)


def run_comparison(
    options: ComputeOptions,
    backbone: "Backbone",
    solvers: Sequence[str],
    views: Sequence[int],
    photographs: Sequence[tuple[NDArray[np.uint8], str]],
) -> Iterator[dict[str, Any]]:
    """Yield what every solver (lstsq, field, faithful) gives with every number of views, as ``dvt.Measured`` tells it."""
    import dvt

    settings = []
    for name in solvers:
        own = replace(options, faithful=name == "faithful", solver="lstsq" if name == "lstsq" else "field")
        solver = solver_options(own)
        settings += [
            dvt.Setting(name, solver, view_options(replace(own, views=count), backbone, own_input=False))
            for count in views
        ]
    size = options.batch_size or (32 if backbone.device.type == "cuda" else 4)
    for measured in dvt.compare(backbone, photographs, settings, size, options.encoding):
        yield asdict(measured)
