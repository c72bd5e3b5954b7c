"""Method `shift-mean`: the mean over shifted and mirrored views of the whole image (PH-Reg's teacher, arXiv 2505.21501).

"Vision Transformers with Self-Distilled Registers" denoises its teacher without any fit: the features of some ten randomly
shifted and mirrored views are put back where they belong in the image and averaged. As there, shifts are of whole patches,
up to 15 % of either side, and what was shifted in counts for nothing. Unlike there, the gap is filled by the image's own
reflection instead of a constant, shifts are spread by a Sobol sequence, and the image as it is takes part, so that every
place is seen.
"""

import hashlib
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, UInt8
from numpy.typing import NDArray
from torch import Tensor

from .backbone import Backbone
from .decomposition import Decomposition
from .errors import SolverError
from .quality import figures
from .raw import RawDecomposer, raw_of

__all__ = ["Move", "ShiftMeanDecomposer", "ShiftOptions", "put_back", "sample_moves", "shifted"]


@dataclass(frozen=True)
class ShiftOptions:
    """``views``: all told, the image as it is among them (the paper: 10). ``reach``: of the shifts, a share of each side (the
    paper's code: 0.15). ``flip``: probability of a mirrored view. ``seed``: of the shifts, with the image's key.
    """

    views: int = 10
    reach: float = 0.15
    flip: float = 0.5
    seed: int = 0

    def __post_init__(self) -> None:
        """Raise SolverError for options that no view can satisfy."""
        if self.views < 2 or not 0 < self.reach <= 0.5:
            raise SolverError("shift-mean needs at least two views, and shifts of up to half the image")


@dataclass(frozen=True)
class Move:
    """How many patches down and right of its position a view shows at each position, mirrored left to right where
    ``flip``.
    """

    down: int
    right: int
    flip: bool


@dataclass(frozen=True)
class Shifts:
    """One image made ready: the model's input, and the views to make of it, the first as it is."""

    image: UInt8[Tensor, "3 height width"]
    moves: tuple[Move, ...]


def sample_moves(options: ShiftOptions, grid: tuple[int, int], key: str) -> tuple[Move, ...]:
    """Draw the views of the image that ``key`` names, on a grid of (H, W) patches; more views begin with the same ones."""
    digest = hashlib.sha256(f"{options.seed}/{key}/shift".encode()).digest()
    engine = torch.quasirandom.SobolEngine(  # type: ignore[no-untyped-call]
        3, scramble=True, seed=int.from_bytes(digest[:8], "little") % 2**31
    )
    reach = [max(1, round(options.reach * side)) for side in grid]
    draws = engine.draw(options.views - 1, dtype=torch.float64).tolist()
    moves = []
    for u, v, w in draws:
        down, right = (int(drawn * (2 * far + 1)) - far for drawn, far in zip((u, v), reach, strict=True))
        moves.append(Move(down, right, w < options.flip))
    return (Move(0, 0, False), *moves)


def shifted(image: UInt8[Tensor, "3 height width"], move: Move, stride: int) -> UInt8[Tensor, "3 height width"]:
    """Return a view of an image: shifted by whole patches, filled by reflection at the edge, mirrored where asked."""
    rows, columns = (
        reflected(torch.arange(side) + patches * stride, side)
        for side, patches in zip(image.shape[1:], (move.down, move.right), strict=True)
    )
    view = image[:, rows][:, :, columns]
    return view.flip(-1) if move.flip else view


def reflected(places: Tensor, side: int) -> Tensor:
    """Return places beyond an edge reflected in the pixel there, which is not doubled."""
    inner = places.abs()
    return torch.where(inner >= side, 2 * (side - 1) - inner, inner)


def overlap(move: Move, grid: tuple[int, int]) -> tuple[tuple[slice, slice], tuple[slice, slice]]:
    """Return the part of a view, mirrored back, that shows the image, and where in the image that lies."""
    pairs = []
    for side, patches in zip(grid, (move.down, move.right), strict=True):
        pairs.append(
            (slice(max(0, -patches), min(side, side - patches)), slice(max(0, patches), min(side, side + patches)))
        )
    return (pairs[0][0], pairs[1][0]), (pairs[0][1], pairs[1][1])


def put_back(
    features: Float[Tensor, "v h w c"], moves: Sequence[Move]
) -> tuple[Float[Tensor, "h w c"], Float[Tensor, "h w c"]]:
    """Return clean and artifact of one image from the features of its views.

    clean is the mean over views of what they show at a place of the image. artifact is the mean over views of what a
    position of the input has beyond clean at the place it shows, less its mean over positions. Both leave out what was
    filled in.
    """
    grid = (int(features.shape[1]), int(features.shape[2]))
    upright = [view.flip(1) if move.flip else view for view, move in zip(features, moves, strict=True)]
    parts = [overlap(move, grid) for move in moves]
    clean, counts = torch.zeros_like(features[0]), features.new_zeros(*grid, 1)
    for view, (here, there) in zip(upright, parts, strict=True):
        clean[there] += view[here]
        counts[there] += 1
    clean /= counts
    artifact, counts = torch.zeros_like(clean), torch.zeros_like(counts)
    for view, move, (here, there) in zip(upright, moves, parts, strict=True):
        left, seen = torch.zeros_like(clean), torch.zeros_like(counts)
        left[here], seen[here] = view[here] - clean[there], 1
        artifact += left.flip(1) if move.flip else left
        counts += seen.flip(1) if move.flip else seen
    artifact /= counts
    return clean, artifact - artifact.mean(dim=(0, 1))


class ShiftMeanDecomposer(RawDecomposer):
    """raw is that of the image as it is; clean and artifact are those of ``put_back``, an image each; the rest is the
    residual.

    What of the artifact changes little over the reach of the shifts stays in clean: a mean over neighbours cannot tell it
    apart.
    """

    method = "shift-mean"
    variants: tuple[str, ...] = ("raw", "clean", "artifact", "residual")

    def __init__(self, backbone: Backbone, options: ShiftOptions | None = None, batch_size: int = 4) -> None:
        super().__init__(backbone, batch_size)
        self.options, self.forward_batch = options or ShiftOptions(), batch_size
        self.forwards_per_image = self.options.views

    def recipe(self) -> dict[str, Any]:
        """Return everything that decides the numbers."""
        return {"backbone": self.backbone.recipe(), "method": {"name": self.method, "shift": asdict(self.options)}}

    def seconds_per_image(self) -> float:
        """Return about how long an image takes [s], from one timed forward."""
        return self.options.views * super().seconds_per_image()

    def prepare(self, image: NDArray[np.uint8], key: str) -> Shifts:  # type: ignore[override]
        """Make an (h, w, 3) image ready and draw its views; ``key`` names it, so that they are always the same."""
        return Shifts(super().prepare(image, key), sample_moves(self.options, self.grid, key))

    def decompose(self, prepared: Sequence[Shifts]) -> list[Decomposition]:  # type: ignore[override]
        """Run the model on every view and put the features back."""
        return [self.one(image) for image in prepared]

    def one(self, image: Shifts) -> Decomposition:
        """Take one image apart."""
        started = time.perf_counter()
        views = [shifted(image.image, move, self.backbone.stride) for move in image.moves]
        size = self.forward_batch
        batches = [raw_of(self.backbone, views[start : start + size]) for start in range(0, len(views), size)]
        features = torch.cat([tokens for tokens, _ in batches])
        clean, artifact = put_back(features, image.moves)
        told = figures(features[:1], clean[None], artifact[None])[0]
        parts = Decomposition(features[0].cpu(), clean.cpu(), artifact.cpu(), batches[0][1][0].cpu(), told)
        return replace(parts, stats={**told, "seconds": time.perf_counter() - started})
