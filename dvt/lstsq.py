"""Stage 1 by direct least squares: the clean field on a grid of nodes and the artifact map, solved at once.

With a squared loss the model raw = S(x) + G(p) is linear, and its matrix is the same for every channel:

    min over S, G   Σᵢ ωᵢ ‖rawᵢ − BᵢS − EᵢG‖²  +  λ‖LS‖²  +  ε‖S‖²  +  τ‖G − Ḡ‖²

B holds the bilinear weights of a sample's place in the image (four nodes each), E picks its position in the input, L is
the grid's Laplacian, Ḡ a prior artifact where there is one. S is eliminated first, since BᵀΩB + λLᵀL couples a node only
with nodes two rows away:

    A = BᵀΩB + λLᵀL + εI,   M = BᵀΩE,   D = EᵀΩE + τI
    (D − MᵀA⁻¹M) G = EᵀΩF + τḠ − MᵀA⁻¹BᵀΩF,   S = A⁻¹(BᵀΩF − MG)

Views of several input sizes share S, and each size has a G of its own: the sums over samples are sums over groups of views
then, and G is all of them one below the other. A constant can move between S and G; the mean of the first group's G over
positions is moved into S. Weights answer the sparse residual:
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
from .views import ViewGroup

__all__ = ["LstsqOptions", "solve", "solve_groups"]

KEPT_OUT = 8  # one view in so many is kept out of the fit that chooses λ
UNDETERMINED = "the views do not determine the solution: give more views, fewer nodes or a larger smooth"


@dataclass(frozen=True)
class LstsqOptions:
    """Parameters of the solver, this project's own.

    ``nodes``: nodes of S along the long side of the grid, or (rows, columns); None for ``node_grid``'s rule. ``smooth``: λ, in
    units of one sample's weight; of several, each image takes the one that predicts best every eighth view, kept out while
    choosing. ``ridge``: ε, as a share of the mean diagonal of A. ``rounds``: rounds of reweighting after the first solution.
    ``prior``: τ, in units of one view's weight at a position; without a prior artifact it plays no part. ``artifact``: without
    it S is fitted alone and G is zero: what many views do by themselves, an ablation.
    """

    nodes: int | tuple[int, int] | None = None
    smooth: float | tuple[float, ...] = 0.1
    ridge: float = 1e-6
    rounds: int = 1
    prior: float = 64.0
    artifact: bool = True

    def __post_init__(self) -> None:
        """Raise SolverError for values that make no sense."""
        nodes = (self.nodes,) if isinstance(self.nodes, int) else self.nodes or (2,)
        candidates = (self.smooth,) if isinstance(self.smooth, int | float) else self.smooth
        if min(nodes) < 2 or not candidates or min(*candidates, self.ridge, self.rounds, self.prior) < 0:
            raise SolverError("lstsq needs at least 2 nodes, and smooth, ridge, rounds and prior that are not negative")


@dataclass(frozen=True)
class Sight:
    """One group of views made ready: features (N, V, H, W, C), where they lie, and each view's weight (N, V).

    ``centre`` (N, C) is taken off every feature: what all have in common would cost float32 its last digits, and ridge would
    pull it towards zero.
    """

    features: Float[Tensor, "n v h w c"]
    bilinear: Bilinear
    views: Float[Tensor, "n v"]
    centre: Float[Tensor, "n c"]

    def base(self) -> Float[Tensor, "n v h w"]:
        """Return every sample's weight before any residual is known."""
        return self.views.double()[:, :, None, None].expand(self.features.shape[:4])


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
    return solve_groups([ViewGroup(features[None], rows[None], columns[None], own)], options, prior)[0]


def solve_groups(
    groups: Sequence[ViewGroup], options: LstsqOptions, prior: Float[Tensor, "h w c"] | None = None
) -> list[LstsqFit]:
    """Fit several images at once, each for itself, to groups of views that share S and have a G each.

    ``nodes`` and ``prior`` go by the first group's grid. Precision and errors are those of ``solve``.
    """
    high, wide = node_grid(options.nodes, groups[0].grid)
    centre = groups[0].features.mean(dim=(1, 2, 3))
    sights = [
        Sight(group.features, Bilinear(hat(group.rows, high), hat(group.columns, wide)), group.view_weights(), centre)
        for group in groups
    ]
    number = len(centre)
    if isinstance(options.smooth, int | float):
        smooth = torch.full((number,), float(options.smooth), dtype=torch.float64)
    else:
        smooth = choose_smooth(sights, options, options.smooth, prior)
    field, artifacts = reweighted(sights, smooth, options, prior)
    mean = artifacts[0].mean(dim=1)
    field = (field + (mean + centre)[:, None]).reshape(number, high, wide, -1)
    maps = [
        (own - mean[:, None]).reshape(number, *group.grid, -1) for own, group in zip(artifacts, groups, strict=True)
    ]
    return [
        LstsqFit(field[index], maps[0][index], float(smooth[index]), tuple(other[index] for other in maps[1:]))
        for index in range(number)
    ]


def reweighted(
    sights: Sequence[Sight], smooth: Float[Tensor, "n"], options: LstsqOptions, prior: Float[Tensor, "h w c"] | None
) -> tuple[Float[Tensor, "n nodes c"], list[Tensor]]:
    """Solve, and solve again with the weights that the residuals ask for, ``options.rounds`` times."""
    field, artifacts = weighted_solution(sights, [sight.base() for sight in sights], smooth, options, prior)
    for _ in range(options.rounds):
        weights = [
            sight.base() * cauchy_weights(residual_norms(sight, field, own))
            for sight, own in zip(sights, artifacts, strict=True)
        ]
        field, artifacts = weighted_solution(sights, weights, smooth, options, prior)
    return field, artifacts


def weighted_solution(
    sights: Sequence[Sight],
    weights: Sequence[Tensor],
    smooth: Float[Tensor, "n"],
    options: LstsqOptions,
    prior: Float[Tensor, "h w c"] | None,
) -> tuple[Float[Tensor, "n nodes c"], list[Tensor]]:
    """Solve once for given weights; returns S at the nodes and every group's G (N, P, C), as float32, gauge not fixed."""
    pairs = list(zip(sights, weights, strict=True))
    data = Stencil(torch.stack([stencil(sight.bilinear, own).rows for sight, own in pairs]).sum(dim=0))
    system = regularised(data, sights[0].bilinear.nodes, smooth, options.ridge)
    mixed = torch.cat([coupling(sight.bilinear, own) for sight, own in pairs], dim=2)
    rights = [gather(sight.features, sight.bilinear, own, sight.centre) for sight, own in pairs]
    field_right = torch.stack([field for field, _ in rights]).sum(dim=0)
    artifact_right = torch.cat([artifact for _, artifact in rights], dim=1)
    seen = torch.cat([own.sum(dim=1).flatten(1) for own in weights], dim=1)  # (N, P)
    if prior is not None:
        known = prior.to(artifact_right).flatten(0, 1)
        artifact_right[:, : len(known)] += options.prior * known
        seen[:, : len(known)] += options.prior
    if not options.artifact:
        mixed, artifact_right = torch.zeros_like(mixed), torch.zeros_like(artifact_right)
    field, artifact = eliminated(system, mixed, field_right, artifact_right, seen)
    if not bool(torch.isfinite(field).all() and torch.isfinite(artifact).all()):
        raise SolverError("the solution is not finite: give more views, fewer nodes or a larger smooth")
    counts = [own.shape[2] * own.shape[3] for own in weights]
    return field.float(), list(torch.split(artifact.float(), counts, dim=1))


def eliminated(
    system: Stencil,
    mixed: Float[Tensor, "n nodes p"],
    field_right: Float[Tensor, "n nodes c"],
    artifact_right: Float[Tensor, "n p c"],
    seen: Float[Tensor, "n p"],
) -> tuple[Float[Tensor, "n nodes c"], Float[Tensor, "n p c"]]:
    """Solve [[A, M], [Mᵀ, D]] [S, G] = right by eliminating S; raises SolverError where it is singular."""
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
    return factor.backward(outer - inner @ artifact)[:, :count], artifact


def regularised(data: Stencil, nodes: tuple[int, int], smooth: Float[Tensor, "n"], ridge: float) -> Stencil:
    """Return A: the data's normal matrix with smoothness and ridge added."""
    rough = roughness(*nodes).rows.to(data.rows.device)
    system = Stencil(data.rows + smooth.to(rough)[:, None, None, None, None] * rough)
    system.rows[:, :, 0].diagonal(dim1=-2, dim2=-1).add_((ridge * system.mean_diagonal())[:, None, None])
    return system


def cauchy_weights(norms: Float[Tensor, "n v h w"]) -> Float[Tensor, "n v h w"]:
    """Return Cauchy weights of residuals' norms about twice their median, image by image."""
    scale = 2 * norms.flatten(1).median(dim=1).values[:, None, None, None]
    return torch.where(scale > 0, 1 / (1 + (norms / scale.clamp(min=1e-30)) ** 2), 1.0)


def residual_norms(
    sight: Sight, field: Float[Tensor, "n nodes c"], artifact: Float[Tensor, "n p c"]
) -> Float[Tensor, "n v h w"]:
    """Return ‖raw − BS − EG‖ of every sample, in float64."""
    features = sight.features
    norms = sight.bilinear.rows.new_empty(features.shape[:4])
    own = artifact.reshape(len(features), 1, *features.shape[2:]) + sight.centre[:, None, None, None]
    for part in few_views(features):
        left = predict(field, sight.bilinear, part).add_(own).sub_(features[:, part])
        norms[:, part] = torch.linalg.vector_norm(left, dim=-1).double()
    return norms


def choose_smooth(
    sights: Sequence[Sight],
    options: LstsqOptions,
    candidates: Sequence[float],
    prior: Float[Tensor, "h w c"] | None,
) -> Float[Tensor, "n"]:
    """Return for every image the λ whose fit to seven in eight of the last group's views predicts the others best."""
    judged = sights[-1]
    kept = torch.arange(judged.views.shape[1], device=judged.views.device) % KEPT_OUT == KEPT_OUT - 1
    if not bool(kept.any()):
        raise SolverError(f"choosing a smooth needs at least {KEPT_OUT} views: give more views or one smooth")
    fitted = [*sights[:-1], replace(judged, views=torch.where(kept, 0.0, judged.views))]
    errors = []
    for candidate in candidates:
        smooth = torch.full((len(judged.views),), candidate, dtype=torch.float64)
        field, artifacts = reweighted(fitted, smooth, replace(options, rounds=0), prior)
        norms = residual_norms(judged, field, artifacts[-1])
        errors.append(norms[:, kept].square().mean(dim=(1, 2, 3)))
    best = torch.stack(errors).argmin(dim=0).cpu()
    return torch.tensor([float(candidate) for candidate in candidates], dtype=torch.float64)[best]
