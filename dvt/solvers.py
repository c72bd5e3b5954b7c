"""The two solvers of stage 1 behind one call: views in, one fit an image out."""

from collections.abc import Mapping, Sequence
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor

from .encoding import TINYCUDANN_HINT, encoding_backend
from .errors import SolverError
from .field import FieldOptions
from .field_fit import fit_field
from .lstsq import KEPT_OUT, LstsqOptions, solve_groups
from .views import ViewGroup, lattice

__all__ = ["Fit", "SolverOptions", "figures_of", "fit_images", "notes", "solver_name"]

SolverOptions = LstsqOptions | FieldOptions


@runtime_checkable
class Fit(Protocol):
    """A fitted image: the clean field, and the artifact map (H, W, C) with zero mean over positions.

    ``artifacts`` are those of every group of views, the first one's first.
    """

    @property
    def artifact(self) -> Float[Tensor, "h w c"]: ...  # noqa: D102

    @property
    def artifacts(self) -> tuple[Tensor, ...]: ...  # noqa: D102

    def sample(self, places: Float[Tensor, "*place 2"]) -> Float[Tensor, "*place c"]:
        """Return S at places (x, y) in [0, 1] of the whole image."""
        ...


def solver_name(options: SolverOptions) -> str:
    """Return ``lstsq`` or ``field``."""
    return "lstsq" if isinstance(options, LstsqOptions) else "field"


def fit_images(
    groups: Sequence[ViewGroup],
    options: SolverOptions,
    prior: Float[Tensor, "h w c"] | None = None,
    seed: int = 0,
    encoding: str = "auto",
) -> list[Fit]:
    """Fit every image to its views. Weights and several groups are lstsq's; ``seed`` and ``encoding`` the field's.

    Raises SolverError.
    """
    if isinstance(options, LstsqOptions):
        return list(solve_groups(groups, options, prior))
    (group,) = groups
    places = lattice(group.rows, group.columns)
    views = zip(group.features, places, strict=True)
    return [fit_field(one, where, options, seed, encoding, prior=prior) for one, where in views]


def notes(options: SolverOptions, encoding: str, device: torch.device, views: int) -> tuple[str, ...]:
    """Return what a user should know before the fit to ``views`` views.

    Raises SolverError for an encoding that this device has not, and for too few views to choose a smooth by.
    """
    if isinstance(options, LstsqOptions):
        if not isinstance(options.smooth, int | float) and views < KEPT_OUT:
            raise SolverError(f"choosing a smooth needs at least {KEPT_OUT} views: give more views or one smooth")
        return ()
    backend = encoding_backend(encoding, device)
    return (TINYCUDANN_HINT,) if device.type == "cuda" and (encoding, backend) == ("auto", "pytorch") else ()


def figures_of(fit: Fit) -> Mapping[str, float]:
    """Return what the solver chose for this image, by column name."""
    smooth = getattr(fit, "smooth", None)
    return {} if smooth is None else {"smooth": float(smooth)}
