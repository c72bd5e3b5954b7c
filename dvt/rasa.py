"""Method `rasa`: directions of the features that tell row and column, projected out (Franca, arXiv 2507.14137).

RASA, Removal of Absolute Spatial Attributes, is that paper's post-training: a linear map is trained to predict each patch's
row and column from its feature, the plane of its two weight vectors is projected out, and the next map is trained on what
is left, several times over. Here each linear map is the least-squares solution instead of some epochs of AdamW through a
sigmoid, on centred features, and the mean feature stays. INSID3 (arXiv 2603.28480) projects out the principal directions of
a constant image instead.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from .backbone import Backbone
from .errors import SolverError
from .whole_image import WholeImageDecomposer, digest_of

__all__ = ["RasaDecomposer", "RasaOptions", "fit_rasa"]


@dataclass(frozen=True)
class RasaOptions:
    """``rounds``: planes to project out at most (the authors: 9). ``ridge``: of each regression, a share of the features'
    mean variance (ours). ``enough``: stop where row and column are predicted with an R² below this, beyond what C channels
    predict of as many patches by chance (ours).
    """

    rounds: int = 9
    ridge: float = 1e-3
    enough: float = 0.01

    def __post_init__(self) -> None:
        """Raise SolverError for options that mean nothing."""
        if self.rounds < 1 or self.ridge <= 0 or self.enough < 0:
            raise SolverError("rasa needs at least one round and a ridge above 0")


def fit_rasa(
    batches: Iterable[Float[Tensor, "n h w c"]], options: RasaOptions | None = None
) -> tuple[Float[Tensor, "k c"], Float[Tensor, "h w c"]]:
    """Return orthonormal directions (K, C) that tell row and column, and the mean feature at each position (H, W, C).

    ``batches`` are raw maps of sample images on any device, added up in float64. With centred features x and positions t the
    regression is (Σ + ridge · tr Σ / C) w = cov(x, t), Σ = cov(x); after each round x loses the plane of its two w. Raises
    SolverError without an image.
    """
    options = options or RasaOptions()
    total: Tensor | None = None
    second: Tensor | None = None
    images = 0
    for batch in batches:
        maps = batch.double()
        flat = maps.flatten(0, 2)
        part, moment = maps.sum(dim=0), flat.T @ flat
        total = part if total is None else total + part
        second = moment if second is None else second + moment
        images += len(maps)
    if total is None or second is None:
        raise SolverError("there is no image to fit directions of rows and columns to")
    mean = total.cpu() / images
    centre = mean.mean(dim=(0, 1))
    covariance = second.cpu() / (images * mean.shape[0] * mean.shape[1]) - torch.outer(centre, centre)
    chance = len(covariance) / (images * mean.shape[0] * mean.shape[1])
    return directions(covariance, mean - centre, options, options.enough + chance).float(), mean.float()


def directions(
    covariance: Float[Tensor, "c c"], mean: Float[Tensor, "h w c"], options: RasaOptions, enough: float
) -> Float[Tensor, "k c"]:
    """Return the directions of ``fit_rasa`` for features of this covariance and centred mean at each position, float64.

    It ends before a regression whose R² is below ``enough``.
    """
    places = targets(mean.shape[0], mean.shape[1])
    shared = mean.flatten(0, 1).T @ places / len(places)
    found = covariance.new_zeros(0, len(covariance))
    ridge = options.ridge * covariance.diagonal().mean() * torch.eye(len(covariance), dtype=covariance.dtype)
    for _ in range(options.rounds):
        keep = torch.eye(len(covariance), dtype=covariance.dtype) - found.T @ found
        left, told = keep @ covariance @ keep, keep @ shared
        weights = keep @ torch.linalg.solve(left + ridge, told)
        if explained(weights, left, told, places) < enough:
            break
        plane, size = torch.linalg.qr(weights)
        real = size.diagonal().abs() > 1e-9 * size.abs().max()
        found = torch.cat([found, plane[:, real].T])
    return found


def targets(rows: int, columns: int) -> Float[Tensor, "p t"]:
    """Return each patch's row and column, from −½ to ½; only those of more than one."""
    down, across = (torch.linspace(-0.5, 0.5, count, dtype=torch.float64) for count in (rows, columns))
    grids = torch.meshgrid(down, across, indexing="ij")
    return torch.stack([grid.flatten() for grid, count in zip(grids, (rows, columns), strict=True) if count > 1], dim=1)


def explained(
    weights: Float[Tensor, "c t"], covariance: Float[Tensor, "c c"], shared: Float[Tensor, "c t"], places: Tensor
) -> float:
    """Return the share of the positions' variance that features predict by ``weights``, R²."""
    gained = 2 * (weights * shared).sum() - (weights * (covariance @ weights)).sum()
    return float(gained / places.square().mean(dim=0).sum())


class RasaDecomposer(WholeImageDecomposer):
    """clean = raw − QᵀQ (raw − μ): Q are the directions (K, C), μ the mean feature of the sample, which stays.

    artifact is the mean over the sample's images of raw − clean at each position, which has zero mean over positions: QᵀQ
    (M − μ) with M the mean feature at each position. The residual is the rest of QᵀQ (raw − μ): content that lies along Q.
    """

    method = "rasa"

    def __init__(
        self,
        backbone: Backbone,
        along: Float[Tensor, "k c"],
        mean: Float[Tensor, "h w c"],
        batch_size: int = 4,
    ) -> None:
        """``along`` and ``mean`` are those of ``fit_rasa`` on the backbone's features. Raises SolverError for other
        shapes.
        """
        self.centre = mean.mean(dim=(0, 1)).to(backbone.device)
        self.along = along.float().to(backbone.device)
        self.fit = digest_of(torch.cat([along.cpu(), mean.flatten(0, 1).cpu()]))
        super().__init__(backbone, self.seen(mean.to(backbone.device)), batch_size)
        nothing = "row and column cannot be told from these features, or not from so few images: clean is raw"
        self.notes = [] if len(along) else [nothing]

    def seen(self, maps: Float[Tensor, "*n h w c"]) -> Float[Tensor, "*n h w c"]:
        """Return what of the maps lies along the directions, the mean feature aside."""
        return (maps - self.centre) @ self.along.T @ self.along

    def parameters(self) -> dict[str, Any]:
        """Return the number of directions, and the digest of directions and means."""
        return {"directions": len(self.along), "fit": self.fit}

    def clean(
        self, raw: Float[Tensor, "n h w c"], prepared: Sequence[UInt8[Tensor, "3 height width"]]
    ) -> Float[Tensor, "n h w c"]:
        """Return raw without what lies along the directions."""
        return raw - self.seen(raw)
