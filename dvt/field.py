"""Stage 1 as in the paper: a neural field for the clean features, a map for the artifact, a network for the residual.

DVT, arXiv 2401.02957, section 3.2 and appendix A. First half: S and G explain the raw features,
``mse(S + G, raw) + 1 − cos(S + G, raw)``. Second half: G is frozen, and a predictor h of the residual joins,
``mse(S + G + sg(h), raw) + 1 − cos(…) + 0.1·mse(h, sg(raw − S − G)) + 0.02·mean|h|`` (sg: gradients stop). All are means.
"""

from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from .encoding import Encoding, GridOptions, make_encoding
from .errors import SolverError
from .nodes import node_grid

__all__ = ["FieldModel", "FieldOptions", "field_losses"]


LEVELS, BASE = 8, 16


@dataclass(frozen=True)
class FieldOptions:
    """Parameters of the field and its fit, as in the paper's appendix A unless said.

    ``grid``: of the encoding; None is 8 levels up to twice as many lines as a mean crop's patches lie apart (``settled``),
    where the paper takes 16 up to 1024: finer lines than the views can tell of fit their noise, and predict crops not seen
    worse, the more the longer they are trained (tests/benchmarks). ``iterations``: steps (the paper 20,000, its code 25,000).
    ``batch``: patches a step. ``rate`` and ``last_rate``: of Adam, cosine between them after a linear rise over a share
    ``warmup`` of the steps. ``freeze``: share of steps after which G is frozen and h joins. ``betas``, ``eps``: Adam's.
    ``decay``: weight decay, added to the gradient (the code's 1e-5 is divided by its loss scale of 1024, as it never
    unscales: 1e-5/1024; none here). ``residual`` and ``sparsity``: weights of h's two terms. ``prior``: weight of a prior
    artifact Ḡ, from which G begins then (ours, as lstsq's): prior·‖G − Ḡ‖² beside the squared errors of all samples.
    """

    grid: GridOptions | None = None
    iterations: int = 1000
    batch: int = 2048
    rate: float = 0.01
    last_rate: float = 0.001
    warmup: float = 0.1
    freeze: float = 0.5
    betas: tuple[float, float] = (0.9, 0.99)
    eps: float = 1e-15
    decay: float = 0.0
    residual: float = 0.1
    sparsity: float = 0.02
    prior: float = 64.0

    def __post_init__(self) -> None:
        """Raise SolverError for values that make no sense."""
        if self.iterations < 2 or self.batch < 1:
            raise SolverError("the field needs at least two iterations and one patch a step")
        if not 0 <= self.warmup <= 1 or not 0 < self.freeze <= 1:
            raise SolverError("warmup must lie in [0, 1] and freeze in (0, 1]")
        if self.prior < 0:
            raise SolverError("the weight of a prior artifact is not negative")

    @classmethod
    def faithful(cls, iterations: int = 20_000) -> "FieldOptions":
        """Return the original's settings, its weight decay as it really acts."""
        return cls(grid=GridOptions(), iterations=iterations, decay=1e-5 / 1024)

    def settled(self, grid: tuple[int, int], area: float = 0.3) -> "FieldOptions":
        """Return these with the encoding's grid, for patches ``grid`` (H, W) of crops that cover ``area`` of the image."""
        if self.grid is not None:
            return self
        finest = max(BASE, 2 * max(node_grid(None, grid, area)))
        return replace(self, grid=GridOptions(levels=LEVELS, base=BASE, finest=finest))

    def rates(self) -> Float[Tensor, "iterations"]:
        """Return the learning rate of every step, float32."""
        rise = max(1, int(self.warmup * self.iterations))
        steps = torch.arange(self.iterations, dtype=torch.float64)
        turn = torch.pi * (steps - rise) / max(1, self.iterations - rise)
        fall = self.last_rate + (self.rate - self.last_rate) * 0.5 * (1 + torch.cos(turn))
        return torch.where(steps < rise, self.rate * steps / rise, fall).float()


class FieldModel(nn.Module):
    """The three unknowns: ``encoding`` and ``decoder`` make S, ``artifact`` (H, W, C) is G, ``residual`` is h."""

    def __init__(
        self, grid: tuple[int, int], channels: int, options: FieldOptions, backend: str, generator: torch.Generator
    ) -> None:
        super().__init__()
        self.encoding: Encoding = make_encoding(options.settled(grid).grid or GridOptions(), backend, generator)
        half, quarter = max(1, channels // 2), max(1, channels // 4)
        self.decoder = nn.Sequential(nn.Linear(self.encoding.width, half), nn.ReLU(), nn.Linear(half, channels))
        self.residual = nn.Sequential(
            nn.Linear(channels, quarter),
            nn.ReLU(),
            nn.Linear(quarter, quarter),
            nn.ReLU(),
            nn.Linear(quarter, channels),
        )
        for layer in (*self.decoder, *self.residual):
            if isinstance(layer, nn.Linear):
                draw_linear(layer, generator)
        self.artifact = nn.Parameter(0.02 * torch.randn(*grid, channels, generator=generator))
        self.prior: Tensor | None = None
        self.pull = 0.0

    @torch.no_grad()
    def begin_from(self, prior: Float[Tensor, "h w c"], pull: float) -> None:
        """Have G begin from a prior artifact and stay near it: ``pull`` times the mean square of G − Ḡ joins the loss."""
        self.artifact.copy_(prior)
        self.prior, self.pull = prior.to(self.artifact), pull

    def forward(self, places: Float[Tensor, "n 2"]) -> Float[Tensor, "n c"]:
        """Return S at places (x, y) in [0, 1]; coordinates stay float32, since bfloat16 errs by cells of the finest level."""
        found: Tensor = self.decoder(self.encoding(places))
        return found

    def loss(
        self,
        places: Float[Tensor, "n 2"],
        raw: Float[Tensor, "n c"],
        positions: Tensor,
        options: FieldOptions,
        second_half: bool,
    ) -> Float[Tensor, ""]:
        """Return the loss of samples (places in the image, features, indices of their positions)."""
        own = F.embedding(positions, self.artifact.flatten(0, 1))
        if not second_half:
            fitted = field_losses(self(places), own, raw)["loss"]
            return fitted if self.prior is None else fitted + self.pull * F.mse_loss(self.artifact, self.prior)
        terms = field_losses(self(places), own.detach(), raw, self.residual(raw), options.residual, options.sparsity)
        return terms["loss"]


@torch.no_grad()
def draw_linear(layer: nn.Linear, generator: torch.Generator) -> None:
    """Draw a layer as PyTorch does by default, uniform in ±1/√inputs, from a generator."""
    bound = layer.in_features**-0.5
    layer.weight.copy_((torch.rand(layer.weight.shape, generator=generator) * 2 - 1) * bound)
    layer.bias.copy_((torch.rand(layer.bias.shape, generator=generator) * 2 - 1) * bound)


def field_losses(
    clean: Float[Tensor, "n c"],
    artifact: Float[Tensor, "n c"],
    raw: Float[Tensor, "n c"],
    residual: Float[Tensor, "n c"] | None = None,
    residual_weight: float = 0.1,
    sparsity_weight: float = 0.02,
) -> dict[str, Float[Tensor, ""]]:
    """Return the terms of the stage-1 loss and their sum ``loss`` (arXiv 2401.02957, eq. 8 and 9).

    ``clean`` is S at the samples, ``artifact`` G at their positions, ``residual`` h of their features in the second half.
    """
    together = clean + artifact
    predicted = together if residual is None else together + residual.detach()
    patch = F.mse_loss(predicted, raw)
    cosine = 1 - F.cosine_similarity(predicted, raw, dim=-1).mean()
    terms = {"patch_l2_loss": patch, "cosine_similarity_loss": cosine}
    if residual is not None:
        terms["residual_loss"] = residual_weight * F.mse_loss(residual, (raw - together).detach())
        terms["residual_sparsity_loss"] = sparsity_weight * residual.abs().mean()
    return terms | {"loss": torch.stack(list(terms.values())).sum()}
