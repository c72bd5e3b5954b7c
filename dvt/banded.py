"""Symmetric positive definite systems that couple a block of unknowns only with the next: solved block by block."""

import torch
from jaxtyping import Float
from torch import Tensor

__all__ = ["BlockCholesky"]


class BlockCholesky:
    """Cholesky factor of a block-tridiagonal matrix, kept as its diagonal and sub-diagonal blocks.

    Costs n·b² operations instead of n³/3 (n unknowns, blocks of b), with the same result: Golub and Van Loan, Matrix
    Computations, section 4.5.1.
    """

    def __init__(self, matrix: Float[Tensor, "n n"], block: int) -> None:
        """Factor ``matrix``; entries further than one block from the diagonal are not looked at.

        Raises torch.linalg.LinAlgError where it is not positive definite.
        """
        self.edges = [(start, min(start + block, len(matrix))) for start in range(0, len(matrix), block)]
        self.diagonal: list[Tensor] = []
        self.below: list[Tensor] = []
        previous: tuple[int, int] | None = None
        for start, stop in self.edges:
            own = matrix[start:stop, start:stop]
            if previous is not None:
                coupling = matrix[start:stop, previous[0] : previous[1]]
                lower = torch.linalg.solve_triangular(self.diagonal[-1], coupling.T, upper=False).T
                self.below.append(lower)
                own = own - lower @ lower.T
            self.diagonal.append(torch.linalg.cholesky(own))
            previous = (start, stop)

    def solve(self, right: Float[Tensor, "n k"]) -> Float[Tensor, "n k"]:
        """Solve for ``right``."""
        parts: list[Tensor] = []
        for index, (start, stop) in enumerate(self.edges):
            part = right[start:stop]
            if index:
                part = part - self.below[index - 1] @ parts[-1]
            parts.append(torch.linalg.solve_triangular(self.diagonal[index], part, upper=False))
        for index in range(len(self.edges) - 1, -1, -1):
            part = parts[index]
            if index + 1 < len(self.edges):
                part = part - self.below[index].T @ parts[index + 1]
            parts[index] = torch.linalg.solve_triangular(self.diagonal[index].T, part, upper=True)
        return torch.cat(parts)
