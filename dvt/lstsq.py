"""Stage 1 by direct least squares: the clean field on a grid of nodes and the artifact map, solved at once.

With a squared loss the model raw = S(x) + G(p) is linear, and its matrix is the same for every channel:

    min over S, G   Σᵢ ωᵢ ‖rawᵢ − BᵢS − EᵢG‖²  +  λ‖LS‖²  +  ε‖S‖²

B holds the bilinear weights of a sample's place in the image (four nodes each), E picks its position in the input, L is
the grid's Laplacian. S is eliminated first, since BᵀΩB + λLᵀL couples a node only with nodes two rows away:

    A = BᵀΩB + λLᵀL + εI,   M = BᵀΩE,   D = EᵀΩE
    (D − MᵀA⁻¹M) G = EᵀΩF − MᵀA⁻¹BᵀΩF,   S = A⁻¹(BᵀΩF − MG)

A constant can move between S and G; the mean of G over positions is moved into S. Weights answer the sparse residual:
ω = 1 / (1 + (‖r‖ / 2·median‖r‖)²), and solve again (iteratively reweighted least squares with Cauchy's weight).
"""

from dataclasses import dataclass
from functools import lru_cache

import torch
from jaxtyping import Float, Int
from torch import Tensor

from .banded import BlockCholesky
from .errors import SolverError

__all__ = ["LstsqFit", "LstsqOptions", "solve"]


@dataclass(frozen=True)
class LstsqOptions:
    """Parameters of the solver, this project's own.

    ``nodes``: nodes of S along each side of the image. ``smooth``: λ, in units of one sample's weight. ``ridge``: ε, as a
    share of the mean diagonal of A. ``rounds``: rounds of reweighting after the first solution.
    """

    nodes: int = 64
    smooth: float = 0.1
    ridge: float = 1e-6
    rounds: int = 1

    def __post_init__(self) -> None:
        """Raise SolverError for values that make no sense."""
        if self.nodes < 2 or self.smooth < 0 or self.ridge < 0 or self.rounds < 0:
            raise SolverError("lstsq needs at least 2 nodes, and smooth, ridge and rounds that are not negative")


@dataclass(frozen=True)
class LstsqFit:
    """A solution: ``field`` is S at the nodes (R, R, C), row by row from the top; ``artifact`` is G (H, W, C), zero mean."""

    field: Float[Tensor, "rows columns c"]
    artifact: Float[Tensor, "h w c"]

    def sample(self, coordinates: Float[Tensor, "*place 2"]) -> Float[Tensor, "*place c"]:
        """Return S at places (x, y) in [0, 1] of the whole image, bilinear between nodes."""
        nodes, weights = corners(coordinates.reshape(-1, 2), self.field.shape[0])
        flat = self.field.reshape(-1, self.field.shape[-1])
        values = sum(flat[nodes[:, k]] * weights[:, k : k + 1].to(flat.dtype) for k in range(4))
        return values.reshape(*coordinates.shape[:-1], -1)  # type: ignore[union-attr]


def solve(features: Float[Tensor, "v h w c"], coordinates: Float[Tensor, "v h w 2"], options: LstsqOptions) -> LstsqFit:
    """Fit S and G to the raw features of views whose patch centres lie at ``coordinates``, (x, y) in [0, 1].

    Float32 features; the system is built and solved in float64. Raises SolverError where it cannot be solved.
    """
    views, height, width, channels = features.shape
    samples = features.reshape(views, height * width, channels)
    nodes, bilinear = corners(coordinates.reshape(-1, 2), options.nodes)
    weights = torch.ones(views, height * width, dtype=torch.float64, device=features.device)
    field, artifact = solve_weighted(samples, nodes, bilinear, weights, options)
    for _ in range(options.rounds):
        weights = reweight(samples, nodes, bilinear, field, artifact)
        field, artifact = solve_weighted(samples, nodes, bilinear, weights, options)
    mean = artifact.mean(dim=0)
    shape = (options.nodes, options.nodes, channels)
    return LstsqFit((field + mean).reshape(shape), (artifact - mean).reshape(height, width, channels))


def corners(places: Float[Tensor, "n 2"], nodes: int) -> tuple[Int[Tensor, "n 4"], Float[Tensor, "n 4"]]:
    """Return the four nodes around each place, as row-major indices, and their bilinear weights in float64."""
    scaled = places.double().clamp(0, 1) * (nodes - 1)
    low = scaled.floor().clamp(max=nodes - 2)
    right, down = (scaled - low).unbind(-1)
    column, row = low.long().unbind(-1)
    first = row * nodes + column
    index = torch.stack([first, first + 1, first + nodes, first + nodes + 1], dim=-1)
    weight = torch.stack([(1 - right) * (1 - down), right * (1 - down), (1 - right) * down, right * down], dim=-1)
    return index, weight


def solve_weighted(
    samples: Float[Tensor, "v p c"],
    nodes: Int[Tensor, "n 4"],
    bilinear: Float[Tensor, "n 4"],
    weights: Float[Tensor, "v p"],
    options: LstsqOptions,
) -> tuple[Float[Tensor, "nodes c"], Float[Tensor, "p c"]]:
    """Solve once for given weights; returns S at the nodes and G, as float32, before the gauge is fixed."""
    _, positions, channels = samples.shape
    count = options.nodes**2
    weighted = bilinear * weights.reshape(-1, 1)
    system, coupling = normal_matrices(nodes, bilinear, weighted, positions, count)
    system += options.smooth * roughness(options.nodes).to(system.device)
    system.diagonal().add_(options.ridge * system.diagonal().mean())
    flat = samples.reshape(-1, channels)
    field_right = scatter_rows(nodes, weighted, flat, count).double()
    artifact_right = torch.einsum("vp,vpc->pc", weights.float(), samples).double()
    per_position = weights.sum(dim=0)
    try:
        factor = BlockCholesky(system, 2 * options.nodes)
        solved = factor.solve(torch.cat([coupling, field_right], dim=1))
        inner, outer = solved[:, :positions], solved[:, positions:]
        schur = torch.diag(per_position) - coupling.T @ inner
        schur += per_position.mean() / positions  # the constant that may move between S and G stays out of G
        artifact = torch.cholesky_solve(artifact_right - coupling.T @ outer, torch.linalg.cholesky(schur))
    except torch.linalg.LinAlgError as error:  # type: ignore[attr-defined]
        raise SolverError(
            "the views do not determine the solution: give more views, fewer nodes or a larger smooth"
        ) from error
    field = outer - inner @ artifact
    if not bool(torch.isfinite(field).all() and torch.isfinite(artifact).all()):
        raise SolverError("the solution is not finite: give more views, fewer nodes or a larger smooth")
    return field.float(), artifact.float()


def normal_matrices(
    nodes: Int[Tensor, "n 4"],
    bilinear: Float[Tensor, "n 4"],
    weighted: Float[Tensor, "n 4"],
    positions: int,
    count: int,
) -> tuple[Float[Tensor, "nodes nodes"], Float[Tensor, "nodes p"]]:
    """Return BᵀΩB and BᵀΩE."""
    pairs = (nodes[:, :, None] * count + nodes[:, None, :]).reshape(-1)
    products = (weighted[:, :, None] * bilinear[:, None, :]).reshape(-1)
    system = torch.bincount(pairs, products, minlength=count * count).reshape(count, count)
    position = torch.arange(len(nodes), device=nodes.device) % positions
    picks = (nodes * positions + position[:, None]).reshape(-1)
    coupling = torch.bincount(picks, weighted.reshape(-1), minlength=count * positions).reshape(count, positions)
    return system, coupling


def scatter_rows(
    nodes: Int[Tensor, "n 4"], weighted: Float[Tensor, "n 4"], flat: Float[Tensor, "n c"], count: int
) -> Float[Tensor, "nodes c"]:
    """Return BᵀΩF as one sparse product."""
    places = torch.arange(len(nodes), device=nodes.device).repeat_interleave(4)
    index = torch.stack([nodes.reshape(-1), places])
    values, shape = weighted.reshape(-1).to(flat.dtype), (count, len(nodes))
    matrix = torch.sparse_coo_tensor(index, values, shape, check_invariants=False)
    product: Tensor = torch.sparse.mm(matrix, flat)
    return product


@lru_cache(maxsize=4)
def roughness(nodes: int) -> Float[Tensor, "n n"]:
    """Return LᵀL of the five-point Laplacian on a square grid with free edges, in float64."""
    second = torch.diag(torch.full((nodes,), 2.0, dtype=torch.float64))
    second -= torch.diag(torch.ones(nodes - 1, dtype=torch.float64), 1)
    second -= torch.diag(torch.ones(nodes - 1, dtype=torch.float64), -1)
    second[0, 0] = second[-1, -1] = 1.0
    identity = torch.eye(nodes, dtype=torch.float64)
    squared = second @ second
    return torch.kron(squared, identity) + 2 * torch.kron(second, second) + torch.kron(identity, squared)


def reweight(
    samples: Float[Tensor, "v p c"],
    nodes: Int[Tensor, "n 4"],
    bilinear: Float[Tensor, "n 4"],
    field: Float[Tensor, "nodes c"],
    artifact: Float[Tensor, "p c"],
) -> Float[Tensor, "v p"]:
    """Return Cauchy weights of the residuals' norms about twice their median."""
    views, positions, _ = samples.shape
    norms = torch.empty(views, positions, dtype=torch.float64, device=samples.device)
    index, weight = nodes.reshape(views, positions, 4), bilinear.reshape(views, positions, 4).to(field.dtype)
    for view in range(views):  # view by view, so that no second copy of all samples is held
        left = samples[view] - artifact
        for corner in range(4):
            left -= field[index[view, :, corner]] * weight[view, :, corner : corner + 1]
        norms[view] = left.norm(dim=-1).double()
    scale = 2 * norms.median()
    return 1 / (1 + (norms / scale) ** 2) if scale > 0 else torch.ones_like(norms)
