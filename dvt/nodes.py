"""The clean field on a grid of nodes: how many, and what it is between them."""

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

__all__ = ["LstsqFit", "node_grid"]


@dataclass(frozen=True)
class LstsqFit:
    """A solution: ``field`` is S at the nodes (R, Q, C), row by row from the top; ``artifact`` is G (H, W, C), zero mean.

    ``smooth`` is the λ taken. ``others`` are the artifacts of further groups of views, as they add to S, mean and all.
    """

    field: Float[Tensor, "rows columns c"]
    artifact: Float[Tensor, "h w c"]
    smooth: float = math.nan
    others: tuple[Tensor, ...] = ()

    @property
    def artifacts(self) -> tuple[Tensor, ...]:
        """Return the artifact of every group of views, (H, W, C) each."""
        return (self.artifact, *self.others)

    def sample(self, places: Float[Tensor, "*place 2"]) -> Float[Tensor, "*place c"]:
        """Return S at places (x, y) in [0, 1] of the whole image, bilinear between nodes."""
        flat = places.reshape(-1, 2)
        high, wide, channels = self.field.shape
        nodes, weights = corners(flat, high, wide)
        values = self.field.reshape(-1, channels)
        found = sum(values[nodes[:, k]] * weights[:, k : k + 1].to(values.dtype) for k in range(4))
        return found.reshape(*places.shape[:-1], channels)  # type: ignore[union-attr]


def node_grid(nodes: int | tuple[int, int] | None, grid: tuple[int, int], area: float = 0.3) -> tuple[int, int]:
    """Return (rows, columns) of nodes for a grid of (H, W) patches.

    A number is that of the long side; the short side follows the grid's aspect. None puts one node to a patch of a crop of
    mean ``area`` [share of the image]: (H, W) / √area, which the samples of such crops can still tell apart.
    """
    if isinstance(nodes, tuple | list):
        return int(nodes[0]), int(nodes[1])
    scale = 1 / math.sqrt(area) if nodes is None else nodes / max(grid)
    return max(2, round(grid[0] * scale)), max(2, round(grid[1] * scale))


def corners(places: Float[Tensor, "n 2"], high: int, wide: int) -> tuple[Tensor, Float[Tensor, "n 4"]]:
    """Return the four nodes around each place, as row-major indices (n, 4), and their bilinear weights in float64."""
    span = torch.tensor([wide - 1, high - 1], dtype=torch.float64, device=places.device)
    scaled = places.double().clamp(0, 1) * span
    low = torch.minimum(scaled.floor(), span - 1)
    right, down = (scaled - low).unbind(-1)
    column, row = low.long().unbind(-1)
    first = row * wide + column
    index = torch.stack([first, first + 1, first + wide, first + wide + 1], dim=-1)
    weight = torch.stack([(1 - right) * (1 - down), right * (1 - down), (1 - right) * down, right * down], dim=-1)
    return index, weight
