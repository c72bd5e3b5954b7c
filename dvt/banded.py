"""Symmetric positive definite systems that couple a block of unknowns only with the next: factored block by block."""

import torch
from jaxtyping import Float
from torch import Tensor

__all__ = ["BlockCholesky"]


class BlockCholesky:
    """Cholesky factor A = LLᵀ of a batch of block-tridiagonal matrices, kept as its diagonal and sub-diagonal blocks.

    Costs n·b² operations instead of n³/3 (n unknowns, blocks of b), with the same result: Golub and Van Loan, Matrix
    Computations, section 4.5.1. Every step works on the whole batch, so that a GPU is not kept waiting by small blocks.
    """

    def __init__(self, diagonal: Float[Tensor, "n k b b"], below: Float[Tensor, "n k-1 b b"]) -> None:
        """Factor n matrices of k diagonal blocks; ``below[:, i]`` couples block i + 1 (rows) with block i (columns).

        Raises torch.linalg.LinAlgError where one is not positive definite.
        """
        self.diagonal: list[Tensor] = []
        self.below: list[Tensor] = []
        for index in range(diagonal.shape[1]):
            own = diagonal[:, index]
            if index:
                lower = torch.linalg.solve_triangular(self.diagonal[-1], below[:, index - 1].mT, upper=False).mT
                self.below.append(lower)
                own = own - lower @ lower.mT
            self.diagonal.append(torch.linalg.cholesky(own))

    def forward(self, right: Float[Tensor, "n rows m"]) -> Float[Tensor, "n rows m"]:
        """Return L⁻¹ ``right``."""
        parts: list[Tensor] = []
        for index, part in enumerate(right.chunk(len(self.diagonal), dim=1)):
            if index:
                part = part - self.below[index - 1] @ parts[-1]
            parts.append(torch.linalg.solve_triangular(self.diagonal[index], part, upper=False))
        return torch.cat(parts, dim=1)

    def backward(self, right: Float[Tensor, "n rows m"]) -> Float[Tensor, "n rows m"]:
        """Return L⁻ᵀ ``right``."""
        parts = list(right.chunk(len(self.diagonal), dim=1))
        for index in range(len(parts) - 1, -1, -1):
            part = parts[index]
            if index + 1 < len(parts):
                part = part - self.below[index].mT @ parts[index + 1]
            parts[index] = torch.linalg.solve_triangular(self.diagonal[index].mT, part, upper=True)
        return torch.cat(parts, dim=1)

    def solve(self, right: Float[Tensor, "n rows m"]) -> Float[Tensor, "n rows m"]:
        """Return A⁻¹ ``right``."""
        return self.backward(self.forward(right))
