"""The normal equations of stage 1, built from two small matrices a view instead of one large sparse one.

The patches of a view lie on the lines of a rectangle, so a view's bilinear weights are a product of one matrix for rows and
one for columns: (B S)[h, w] = Σᵢⱼ Y[h, i] X[w, j] S[i, j]. Every term of the normal equations is then a dense matrix product:
no scattered additions, hence the same bits on every run, on a GPU too. Letters: N images, V views, H×W patches, R×Q nodes,
C channels; Ω holds a weight a sample.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache

import torch
from jaxtyping import Float
from torch import Tensor

__all__ = ["Bilinear", "Stencil", "coupling", "gather", "hat", "predict", "roughness", "stencil"]

SAMPLES_AT_ONCE = 16 * 1369


@dataclass(frozen=True)
class Bilinear:
    """Bilinear weights of every view: ``rows`` (N, V, H, R) and ``columns`` (N, V, W, Q), float64."""

    rows: Float[Tensor, "n v h r"]
    columns: Float[Tensor, "n v w q"]

    @property
    def nodes(self) -> tuple[int, int]:
        """Return (R, Q)."""
        return self.rows.shape[-1], self.columns.shape[-1]


@dataclass(frozen=True)
class Stencil:
    """A symmetric matrix over nodes that couples a row of nodes with itself and the two after it.

    ``rows[:, i, d]`` (N, R, 3, Q, Q) holds the block between node rows i and i + d; zero past the last row.
    """

    rows: Float[Tensor, "n r 3 q q"]

    def mean_diagonal(self) -> Float[Tensor, "n"]:
        """Return the mean of the diagonal."""
        return self.rows[:, :, 0].diagonal(dim1=-2, dim2=-1).mean(dim=(-1, -2))

    def blocks(self) -> tuple[Float[Tensor, "n k b b"], Float[Tensor, "n k-1 b b"]]:
        """Return the diagonal blocks and those below, two rows of nodes a block; an odd last row gets an identity beside it."""
        count, width = self.rows.shape[1], self.rows.shape[-1]
        rows = self.rows
        if count % 2:
            empty = torch.zeros_like(rows[:, :1])
            empty[:, 0, 0] = torch.eye(width, dtype=rows.dtype, device=rows.device)
            rows = torch.cat([rows, empty], dim=1)
        even, odd = rows[:, 0::2], rows[:, 1::2]
        diagonal = join(even[:, :, 0], even[:, :, 1], even[:, :, 1].mT, odd[:, :, 0])
        zero = torch.zeros_like(even[:, :-1, 0])
        above = join(even[:, :-1, 2], zero, odd[:, :-1, 1], odd[:, :-1, 2])
        return diagonal, above.mT


def join(a: Tensor, b: Tensor, c: Tensor, d: Tensor) -> Tensor:
    """Return [[a, b], [c, d]] of blocks."""
    return torch.cat([torch.cat([a, b], dim=-1), torch.cat([c, d], dim=-1)], dim=-2)


def hat(places: Float[Tensor, "*line n"], nodes: int) -> Float[Tensor, "*line n nodes"]:
    """Return the linear interpolation weights of places in [0, 1] between ``nodes`` evenly spread from 0 to 1, float64."""
    scaled = places.double().clamp(0, 1) * (nodes - 1)
    return (1 - (scaled[..., None] - torch.arange(nodes, device=places.device)).abs()).clamp_(min=0)


def stencil(bilinear: Bilinear, weights: Float[Tensor, "n v h w"]) -> Stencil:
    """Return BᵀΩB."""
    rows, columns = bilinear.rows, bilinear.columns
    high, wide = bilinear.nodes
    found = rows.new_zeros(len(rows), high, 3, wide, wide)
    for down in (0, 1):
        pairs = (rows[..., : high - down] * rows[..., down:]).flatten(1, 2)
        for right in (0, 1):
            weighted = (weights @ (columns[..., : wide - right] * columns[..., right:])).flatten(1, 2)
            values = pairs.mT @ weighted  # (N, R − down, Q − right)
            into = found[:, : high - down, down]
            into.diagonal(right, dim1=-2, dim2=-1).copy_(values)
            if right:
                into.diagonal(-right, dim1=-2, dim2=-1).copy_(values)
    return Stencil(found)


def coupling(bilinear: Bilinear, weights: Float[Tensor, "n v h w"]) -> Float[Tensor, "n nodes p"]:
    """Return M = BᵀΩE: how much of each node every position of the input has seen."""
    rows, columns = bilinear.rows, bilinear.columns
    number, _, height, width = weights.shape
    high, wide = bilinear.nodes
    found = rows.new_empty(number, high, wide, height, width)
    for line in range(height):
        seen = (weights[:, :, line, :, None] * columns).flatten(2)
        found[:, :, :, line] = (rows[:, :, line].mT @ seen).reshape(number, high, width, wide).mT
    return found.reshape(number, high * wide, height * width)


def gather(
    features: Float[Tensor, "n v h w c"],
    bilinear: Bilinear,
    weights: Float[Tensor, "n v h w"],
    centre: Float[Tensor, "n c"],
) -> tuple[Float[Tensor, "n nodes c"], Float[Tensor, "n p c"]]:
    """Return BᵀΩF and EᵀΩF of features less ``centre``, summed in float32 a few views at a time, then in float64."""
    number, _, height, width, channels = features.shape
    high, wide = bilinear.nodes
    field = bilinear.rows.new_zeros(number, high, wide * channels)
    artifact = bilinear.rows.new_zeros(number, height * width, channels)
    for part in few_views(features):
        weighted = (features[:, part] - centre[:, None, None, None]) * weights[:, part, :, :, None].to(features.dtype)
        artifact += weighted.sum(dim=1).flatten(1, 2)
        across = (bilinear.columns[:, part, None].mT.to(features.dtype) @ weighted).flatten(3)  # (N, v, H, QC)
        field += bilinear.rows[:, part].flatten(1, 2).mT.to(features.dtype) @ across.flatten(1, 2)
    return field.reshape(number, high * wide, channels), artifact


def predict(field: Float[Tensor, "n nodes c"], bilinear: Bilinear, part: slice) -> Float[Tensor, "n v h w c"]:
    """Return B S for some views, in the field's dtype."""
    high, wide = bilinear.nodes
    lines = bilinear.rows[:, part].to(field.dtype) @ field.reshape(len(field), 1, high, -1)  # (N, v, H, QC)
    found: Tensor = bilinear.columns[:, part, None].to(field.dtype) @ lines.reshape(*lines.shape[:-1], wide, -1)
    return found


def few_views(features: Float[Tensor, "n v h w c"]) -> Iterator[slice]:
    """Yield slices of views small enough that what is made of them stays small beside the features."""
    number, views, height, width, _ = features.shape
    step = max(1, SAMPLES_AT_ONCE // (number * height * width))
    for start in range(0, views, step):
        yield slice(start, min(start + step, views))


@lru_cache(maxsize=8)
def roughness(high: int, wide: int) -> Stencil:
    """Return LᵀL of the five-point Laplacian on a grid of nodes with free edges, in float64 on the CPU."""
    down, right = second_difference(high), second_difference(wide)
    identity = torch.eye(wide, dtype=torch.float64)
    rows = torch.zeros(1, high, 3, wide, wide, dtype=torch.float64)
    squared = down @ down
    for step in range(min(3, high)):
        own = squared.diagonal(step)[:, None, None] * identity + 2 * down.diagonal(step)[:, None, None] * right
        rows[0, : high - step, step] = own + (right @ right if step == 0 else 0)
    return Stencil(rows)


def second_difference(nodes: int) -> Float[Tensor, "n n"]:
    """Return the second difference along a line with free ends."""
    ones = torch.ones(nodes - 1, dtype=torch.float64)
    second = torch.diag(torch.full((nodes,), 2.0, dtype=torch.float64)) - torch.diag(ones, 1) - torch.diag(ones, -1)
    second[0, 0] = second[-1, -1] = 1.0
    return second
