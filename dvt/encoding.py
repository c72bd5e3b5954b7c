"""The multi-resolution grid of the neural field: tiny-cuda-nn's where it is installed, else the same function in PyTorch.

Encoding: Müller et al., Instant Neural Graphics Primitives, SIGGRAPH 2022, arXiv 2201.05989, in the details of tiny-cuda-nn's
`HashGrid` (two dimensions, linear interpolation): level l has scale sₗ = base · bˡ − 1 and ⌈sₗ⌉ + 1 lines, a place x lies at
sₗ·x + ½ between them, and a level whose lines do not fit in the table is hashed. Parameters lie in the same order, so that
one vector serves both backends.
"""

import math
from dataclasses import dataclass
from importlib.util import find_spec

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from .errors import SolverError

__all__ = [
    "TINYCUDANN_HINT",
    "Encoding",
    "GridOptions",
    "PyTorchGrid",
    "TinyCudaGrid",
    "encoding_backend",
    "make_encoding",
]

PRIME = 2654435761
TINYCUDANN_HINT = (
    "tinycudann is not installed: the field runs on the PyTorch grid, the same function but slower; to speed it up: "
    "pip install git+https://github.com/NVlabs/tiny-cuda-nn/#subdirectory=bindings/torch"
)


@dataclass(frozen=True)
class GridOptions:
    """Size of the grid; defaults are the paper's (arXiv 2401.02957, appendix A).

    ``levels`` of ``features`` each, from ``base`` to ``finest`` lines, and at most 2^``log2_entries`` entries a
    level.
    """

    levels: int = 16
    features: int = 8
    base: int = 16
    finest: int = 1024
    log2_entries: int = 20

    def __post_init__(self) -> None:
        """Raise SolverError for a grid that cannot be."""
        if min(self.levels, self.features) < 1 or self.base < 2 or self.finest < self.base:
            raise SolverError("the field's grid needs levels and features, at least 2 lines, and finest not below base")
        if not 3 <= self.log2_entries <= 24:
            raise SolverError("the field's grid takes between 2^3 and 2^24 entries a level")

    @property
    def growth(self) -> float:
        """Return b, the ratio of one level's lines to those of the level before."""
        return math.exp(math.log(self.finest / self.base) / (self.levels - 1)) if self.levels > 1 else 1.0

    def scales(self) -> list[float]:
        """Return sₗ of every level, in the float32 arithmetic of tiny-cuda-nn."""
        steps = np.arange(self.levels, dtype=np.float32) * np.log2(np.float32(self.growth))
        return [float(scale) for scale in np.exp2(steps) * np.float32(self.base) - np.float32(1)]

    def entries(self) -> list[int]:
        """Return the number of entries of every level: its lines squared, rounded up to 8, at most the table."""
        lines = [math.ceil(scale) + 1 for scale in self.scales()]
        return [min(-(-(count**2) // 8) * 8, 2**self.log2_entries) for count in lines]


class Encoding(nn.Module):
    """Places (n, 2) in [0, 1] to features (n, levels·features), float32; ``table`` is every parameter in one vector."""

    width: int
    table: nn.Parameter


class PyTorchGrid(Encoding):
    """The grid in plain PyTorch, on any device."""

    def __init__(self, options: GridOptions, generator: torch.Generator | None = None) -> None:
        """Draw parameters uniformly from ±10⁻⁴, as tiny-cuda-nn does, with a CPU generator."""
        super().__init__()
        self.options, self.width = options, options.levels * options.features
        count = sum(options.entries())
        values = torch.rand(count * options.features, generator=generator) * 2e-4 - 1e-4
        self.table = nn.Parameter(values)

    def forward(self, places: Float[Tensor, "n 2"]) -> Float[Tensor, "n features"]:
        """Interpolate all levels."""
        entries = self.table.view(-1, self.options.features)
        nodes, weights = self.corners(places)
        found: Tensor = Lookup.apply(entries, nodes)  # (n, levels, 4, features)
        return (found * weights[..., None]).sum(dim=2).flatten(1)

    @torch.no_grad()
    def corners(self, places: Float[Tensor, "n 2"]) -> tuple[Int[Tensor, "n levels 4"], Float[Tensor, "n levels 4"]]:
        """Return the entries around each place on every level, and their weights."""
        scales = torch.tensor(self.options.scales(), device=places.device)
        sizes = torch.tensor(self.options.entries(), device=places.device)
        first = torch.cumsum(sizes, 0) - sizes
        lines = scales.ceil().long() + 1
        position = places[:, None, :] * scales[:, None] + 0.5  # (n, levels, 2)
        low = position.floor()
        part = position - low
        x, y = low.long().unbind(-1)
        weights, nodes = [], []
        for down in (0, 1):
            for right in (0, 1):
                column, row = x + right, y + down
                dense = column + row * lines
                hashed = column ^ ((row * PRIME) & 0xFFFFFFFF)
                nodes.append(first + torch.where(lines**2 > sizes, hashed, dense) % sizes)
                across = part[..., 0] if right else 1 - part[..., 0]
                weights.append(across * (part[..., 1] if down else 1 - part[..., 1]))
        return torch.stack(nodes, dim=-1), torch.stack(weights, dim=-1)


class Lookup(torch.autograd.Function):
    """Rows of a table by index, whose gradient adds up in the same order on every run, on the CPU and on CUDA."""

    @staticmethod
    def forward(ctx: "torch.autograd.function.FunctionCtx", table: Tensor, index: Tensor) -> Tensor:
        """Return ``table[index]``."""
        ctx.save_for_backward(index)
        ctx.rows = len(table)  # type: ignore[attr-defined]
        return table[index]

    @staticmethod
    def backward(ctx: "torch.autograd.function.FunctionCtx", *gradients: Tensor) -> tuple[Tensor, None]:
        """Add the rows' gradients; CUDA's accumulating index_put sorts first, the CPU's embedding gradient goes by row."""
        (index,) = ctx.saved_tensors  # type: ignore[attr-defined]
        rows: int = ctx.rows  # type: ignore[attr-defined]
        flat = gradients[0].reshape(-1, gradients[0].shape[-1])
        if flat.device.type != "cuda":
            summed: Tensor = torch.ops.aten.embedding_dense_backward(flat, index.reshape(-1), rows, -1, False)
            return summed, None
        total = flat.new_zeros(rows, flat.shape[1])
        return total.index_put_((index.reshape(-1),), flat, accumulate=True), None


class TinyCudaGrid(Encoding):
    """tiny-cuda-nn's grid; needs CUDA and the package."""

    def __init__(self, options: GridOptions, generator: torch.Generator | None = None) -> None:
        """Start from the parameters that ``PyTorchGrid`` draws; raises SolverError where tinycudann does not load."""
        super().__init__()
        try:
            import tinycudann
        except (ImportError, OSError) as error:
            raise SolverError(f"tinycudann does not load ({' '.join(str(error).split())[:120]})") from error
        config = {
            "otype": "HashGrid",
            "n_levels": options.levels,
            "n_features_per_level": options.features,
            "log2_hashmap_size": options.log2_entries,
            "base_resolution": options.base,
            "per_level_scale": options.growth,
            "interpolation": "Linear",
        }
        self.grid = tinycudann.Encoding(n_input_dims=2, encoding_config=config, dtype=torch.float32)
        self.width = int(self.grid.n_output_dims)
        self.table = self.grid.params
        with torch.no_grad():
            self.table.copy_(PyTorchGrid(options, generator).table)

    def forward(self, places: Float[Tensor, "n 2"]) -> Float[Tensor, "n features"]:
        """Interpolate all levels."""
        found: Tensor = self.grid(places)
        return found


def encoding_backend(wanted: str, device: torch.device) -> str:
    """Return ``"tinycudann"`` or ``"pytorch"``; ``"auto"`` takes tinycudann where there is a GPU and the package."""
    if wanted == "auto":
        return "tinycudann" if device.type == "cuda" and find_spec("tinycudann") else "pytorch"
    if wanted not in ("pytorch", "tinycudann"):
        raise SolverError(f"unknown encoding {wanted!r}: choose auto, pytorch or tinycudann")
    if wanted == "tinycudann" and device.type != "cuda":
        raise SolverError("tinycudann needs a CUDA device: choose auto or pytorch")
    return wanted


def make_encoding(options: GridOptions, backend: str, generator: torch.Generator | None = None) -> Encoding:
    """Return the grid on a backend that ``encoding_backend`` named."""
    return TinyCudaGrid(options, generator) if backend == "tinycudann" else PyTorchGrid(options, generator)
