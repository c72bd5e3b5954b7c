"""Stage 1 by direct least squares: the clean field on a grid of nodes and the artifact map, solved at once.

With a squared loss the model raw = S(x) + G(p) is linear, and its matrix is the same for every channel:

    min over S, G   Σᵢ ωᵢ ‖rawᵢ − BᵢS − EᵢG‖²  +  λ‖LS‖²  +  ε‖S‖²  +  τ‖G − Ḡ‖²

B holds the bilinear weights of a sample's place in the image (four nodes each), E picks its position in the input, L is
the grid's Laplacian, Ḡ a prior artifact where there is one. S is eliminated first, since BᵀΩB + λLᵀL couples a node only
with nodes two rows away:

    A = BᵀΩB + λLᵀL + εI,   M = BᵀΩE,   D = EᵀΩE + τI
    (D − MᵀA⁻¹M) G = EᵀΩF + τḠ − MᵀA⁻¹BᵀΩF,   S = A⁻¹(BᵀΩF − MG)

A constant can move between S and G; the mean of G over positions is moved into S. Weights answer the sparse residual:
ω = 1 / (1 + (‖r‖ / 2·median‖r‖)²), and solve again (iteratively reweighted least squares with Cauchy's weight).
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from jaxtyping import Float
from torch import Tensor

from .banded import BlockCholesky
from .errors import SolverError
from .nodes import LstsqFit, node_grid
from .normal import Bilinear, Stencil, coupling, few_views, gather, hat, predict, roughness, stencil

__all__ = ["LstsqOptions", "solve", "solve_many"]

KEPT_OUT = 8  # one view in so many is kept out of the fit that chooses λ
UNDETERMINED = "the views do not determine the solution: give more views, fewer nodes or a larger smooth"


@dataclass(frozen=True)
class LstsqOptions:
    """Parameters of the solver, this project's own.

    ``nodes``: nodes of S along the long side of the grid, or (rows, columns); None for ``node_grid``'s rule. ``smooth``: λ, in
    units of one sample's weight; of several, each image takes the one that predicts best every eighth view, kept out while
    choosing. ``ridge``: ε, as a share of the mean diagonal of A. ``rounds``: rounds of reweighting after the first solution.
    ``prior``: τ, in units of one view's weight at a position; without a prior artifact it plays no part.
    """

    nodes: int | tuple[int, int] | None = None
    smooth: float | tuple[float, ...] = 0.1
    ridge: float = 1e-6
    rounds: int = 1
    prior: float = 8.0

    def __post_init__(self) -> None:
        """Raise SolverError for values that make no sense."""
        nodes = (self.nodes,) if isinstance(self.nodes, int) else self.nodes or (2,)
        candidates = (self.smooth,) if isinstance(self.smooth, int | float) else self.smooth
        if min(nodes) < 2 or not candidates or min(*candidates, self.ridge, self.rounds, self.prior) < 0:
            raise SolverError("lstsq needs at least 2 nodes, and smooth, ridge, rounds and prior that are not negative")


def solve(
    features: Float[Tensor, "v h w c"],
    places: Float[Tensor, "v h w 2"],
    options: LstsqOptions,
    weights: Float[Tensor, "v"] | None = None,
    prior: Float[Tensor, "h w c"] | None = None,
) -> LstsqFit:
    """Fit S and G to the raw features of views whose patch centres lie at ``places``, (x, y) in [0, 1].

    The centres of one view form a rectangular lattice. ``weights`` are of whole views (1 each without), ``prior`` is Ḡ. Float32
    features; the system is built and solved in float64. Raises SolverError where it cannot be solved.
    """
    rows, columns = places[:, :, 0, 1], places[:, 0, :, 0]
    if not (torch.equal(places[..., 1], rows[:, :, None].expand(places.shape[:3]))):
        raise SolverError("the patch centres of a view must lie on the lines of a rectangle")
    own = None if weights is None else weights[None]
    return solve_many(features[None], rows[None], columns[None], options, own, prior)[0]


def solve_many(
    features: Float[Tensor, "n v h w c"],
    rows: Float[Tensor, "n v h"],
    columns: Float[Tensor, "n v w"],
    options: LstsqOptions,
    weights: Float[Tensor, "n v"] | None = None,
    prior: Float[Tensor, "h w c"] | None = None,
) -> list[LstsqFit]:
    """Fit several images at once, each for itself; the patches of view v lie at ``columns[n, v]`` × ``rows[n, v]`` in [0, 1].

    Shapes, precision and errors are those of ``solve``.
    """
    high, wide = node_grid(options.nodes, (features.shape[2], features.shape[3]))
    bilinear = Bilinear(hat(rows, high), hat(columns, wide))
    views = features.new_ones(features.shape[:2]) if weights is None else weights.to(features.device)
    if isinstance(options.smooth, int | float):
        smooth = torch.full((len(features),), float(options.smooth), dtype=torch.float64)
    else:
        smooth = choose_smooth(features, bilinear, views, options, options.smooth, prior)
    field, artifact = reweighted(features, bilinear, views, smooth, options, prior)
    mean = artifact.mean(dim=(1, 2))
    field, artifact = field + mean[:, None, None], artifact - mean[:, None, None]
    return [LstsqFit(f, a, float(s)) for f, a, s in zip(field, artifact, smooth, strict=True)]


def reweighted(
    features: Float[Tensor, "n v h w c"],
    bilinear: Bilinear,
    views: Float[Tensor, "n v"],
    smooth: Float[Tensor, "n"],
    options: LstsqOptions,
    prior: Float[Tensor, "h w c"] | None,
) -> tuple[Float[Tensor, "n rows columns c"], Float[Tensor, "n h w c"]]:
    """Solve, and solve again with the weights that the residuals ask for, ``options.rounds`` times."""
    base = views.double()[:, :, None, None].expand(features.shape[:4])
    field, artifact = weighted_solution(features, bilinear, base, smooth, options, prior)
    for _ in range(options.rounds):
        weights = base * cauchy_weights(features, bilinear, field, artifact)
        field, artifact = weighted_solution(features, bilinear, weights, smooth, options, prior)
    number, _, height, width, channels = features.shape
    return field.reshape(number, *bilinear.nodes, channels), artifact.reshape(number, height, width, channels)


def weighted_solution(
    features: Float[Tensor, "n v h w c"],
    bilinear: Bilinear,
    weights: Float[Tensor, "n v h w"],
    smooth: Float[Tensor, "n"],
    options: LstsqOptions,
    prior: Float[Tensor, "h w c"] | None,
) -> tuple[Float[Tensor, "n nodes c"], Float[Tensor, "n p c"]]:
    """Solve once for given weights; returns S at the nodes and G, as float32, before the gauge is fixed."""
    system = regularised(stencil(bilinear, weights), bilinear.nodes, smooth, options.ridge)
    mixed = coupling(bilinear, weights)
    field_right, artifact_right = gather(features, bilinear, weights)
    seen = weights.sum(dim=1).flatten(1)  # (N, P)
    if prior is not None:
        artifact_right = artifact_right + options.prior * prior.to(artifact_right).reshape(1, *artifact_right.shape[1:])
        seen = seen + options.prior
    positions, count = seen.shape[1], mixed.shape[1]
    try:
        factor = BlockCholesky(*system.blocks())
        right = torch.cat([mixed, field_right], dim=2)
        spare = sum(block.shape[-1] for block in factor.diagonal) - count
        half = factor.forward(torch.nn.functional.pad(right, (0, 0, 0, spare)))
        inner, outer = half[..., :positions], half[..., positions:]
        schur = torch.diag_embed(seen) - inner.mT @ inner
        schur += (seen.mean(dim=1) / positions)[:, None, None]  # the constant that may move stays out of G
        artifact = torch.cholesky_solve(artifact_right - inner.mT @ outer, torch.linalg.cholesky(schur))
    except torch.linalg.LinAlgError as error:  # type: ignore[attr-defined]
        raise SolverError(UNDETERMINED) from error
    field = factor.backward(outer - inner @ artifact)[:, :count]
    if not bool(torch.isfinite(field).all() and torch.isfinite(artifact).all()):
        raise SolverError("the solution is not finite: give more views, fewer nodes or a larger smooth")
    return field.float(), artifact.float()


def regularised(data: Stencil, nodes: tuple[int, int], smooth: Float[Tensor, "n"], ridge: float) -> Stencil:
    """Return A: the data's normal matrix with smoothness and ridge added."""
    rough = roughness(*nodes).rows.to(data.rows.device)
    system = Stencil(data.rows + smooth.to(rough)[:, None, None, None, None] * rough)
    system.rows[:, :, 0].diagonal(dim1=-2, dim2=-1).add_((ridge * system.mean_diagonal())[:, None, None])
    return system


def cauchy_weights(
    features: Float[Tensor, "n v h w c"],
    bilinear: Bilinear,
    field: Float[Tensor, "n nodes c"],
    artifact: Float[Tensor, "n p c"],
) -> Float[Tensor, "n v h w"]:
    """Return Cauchy weights of the residuals' norms about twice their median, image by image."""
    norms = residual_norms(features, bilinear, field, artifact)
    scale = 2 * norms.flatten(1).median(dim=1).values[:, None, None, None]
    return torch.where(scale > 0, 1 / (1 + (norms / scale.clamp(min=1e-30)) ** 2), 1.0)


def residual_norms(
    features: Float[Tensor, "n v h w c"],
    bilinear: Bilinear,
    field: Float[Tensor, "n nodes c"],
    artifact: Float[Tensor, "n p c"],
) -> Float[Tensor, "n v h w"]:
    """Return ‖raw − BS − EG‖ of every sample, in float64."""
    norms = bilinear.rows.new_empty(features.shape[:4])
    own = artifact.reshape(len(features), 1, *features.shape[2:])
    for part in few_views(features):
        left = predict(field, bilinear, part).add_(own).sub_(features[:, part])
        norms[:, part] = torch.linalg.vector_norm(left, dim=-1).double()
    return norms


def choose_smooth(
    features: Float[Tensor, "n v h w c"],
    bilinear: Bilinear,
    views: Float[Tensor, "n v"],
    options: LstsqOptions,
    candidates: Sequence[float],
    prior: Float[Tensor, "h w c"] | None,
) -> Float[Tensor, "n"]:
    """Return for every image the λ whose fit to seven views in eight predicts the eighth best; needs nine views."""
    count = features.shape[1]
    kept = torch.arange(count, device=features.device) % KEPT_OUT == KEPT_OUT - 1
    if not bool(kept.any()):
        raise SolverError(f"choosing a smooth needs at least {KEPT_OUT} views: give more views or one smooth")
    plain = replace(options, rounds=0)
    fitted = torch.where(kept, 0.0, views)
    errors = []
    for candidate in candidates:
        smooth = torch.full((len(features),), candidate, dtype=torch.float64)
        field, artifact = reweighted(features, bilinear, fitted, smooth, plain, prior)
        norms = residual_norms(features, bilinear, field.flatten(1, 2), artifact.flatten(1, 2))
        errors.append(norms[:, kept].square().mean(dim=(1, 2, 3)))
    best = torch.stack(errors).argmin(dim=0).cpu()
    return torch.tensor([float(candidate) for candidate in candidates], dtype=torch.float64)[best]
