"""Views of one image: where random crops lie, what they look like, and where their patches are in the whole image."""

import hashlib
import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from .errors import SolverError
from .preprocess import squash

__all__ = [
    "Crop",
    "ViewGroup",
    "ViewOptions",
    "cell_centres",
    "crop_size",
    "lattice",
    "patch_centres",
    "patch_lines",
    "render",
    "sample_crops",
    "whole",
]


NEAR_CROP = 224


@dataclass(frozen=True)
class ViewOptions:
    """How views are drawn. Defaults are the paper's (arXiv 2401.02957, appendix A) unless said.

    ``views``: crops to fit, beside the whole image, which always takes part (the paper: 768). ``holdout``: crops kept out
    of the fit to judge it by (ours). ``area``: share of the image a crop covers. ``aspect``: of a crop's width to its
    height, both as shares of the image's. ``flip``: probability of a mirrored crop. ``spread``: whether the crops to fit are
    spread evenly instead of drawn independently (ours; the paper draws independently). ``cut``: ``"full"`` cuts crops from
    the full-resolution image (ours), ``"squashed"`` from the image resized to the model's input, as the paper's code does, so
    that crops carry no extra detail. ``place``: ``"centres"`` puts a feature at its patch's centre (ours), ``"edges"`` spreads
    the features from edge to edge of the crop, as the paper's code does: up to half a patch off. ``crop_input``: (height,
    width) [pixels] that crops are resized to, None for ``crop_size``'s rule (the paper: the whole image's input); where it
    is not that, ``wide`` crops of ``wide_area`` are run at that, too, so that its artifact can be told from its content
    (ours). ``seed``: of the crops, with the image's key.
    """

    views: int = 64
    holdout: int = 8
    area: tuple[float, float] = (0.1, 0.5)
    aspect: tuple[float, float] = (3 / 4, 4 / 3)
    flip: float = 0.5
    spread: bool = True
    cut: str = "full"
    place: str = "centres"
    crop_input: tuple[int, int] | None = None
    wide: int = 8
    wide_area: tuple[float, float] = (0.1, 1.0)
    seed: int = 0

    def __post_init__(self) -> None:
        """Raise SolverError for options that no view can satisfy."""
        if self.views < 1 or self.holdout < 0 or self.wide < 1:
            raise SolverError("stage 1 needs at least one view to fit, one wide, and no negative number to hold out")
        if any(not 0 < low <= high <= 1 for low, high in (self.area, self.wide_area)):
            raise SolverError("area must lie in (0, 1], smallest first")
        if not 0 < self.aspect[0] <= self.aspect[1]:
            raise SolverError("aspect must lie above 0, smallest first")
        if self.cut not in ("full", "squashed") or self.place not in ("centres", "edges"):
            raise SolverError("cut is full or squashed, place is centres or edges")

    @classmethod
    def faithful(
        cls, size: tuple[int, int] | None = None, views: int = 768, holdout: int = 8, seed: int = 0
    ) -> "ViewOptions":
        """Return the original code's views at an input ``size``, misplaced features and crops without detail included."""
        return cls(
            views=views, holdout=holdout, spread=False, cut="squashed", place="edges", crop_input=size, seed=seed
        )


@dataclass(frozen=True)
class Crop:
    """A box of whole pixels in the full-resolution image, mirrored left to right where ``flip``."""

    left: int
    top: int
    width: int
    height: int
    flip: bool


@dataclass(frozen=True)
class ViewGroup:
    """Views of N images that went through the model at one input size.

    ``features`` (N, V, H, W, C); the patches of view v lie at ``columns[n, v]`` × ``rows[n, v]`` in [0, 1] of the whole image;
    ``weights`` (N, V) of the views, 1 each without.
    """

    features: Float[Tensor, "n v h w c"]
    rows: Float[Tensor, "n v h"]
    columns: Float[Tensor, "n v w"]
    weights: Float[Tensor, "n v"] | None = None

    @property
    def grid(self) -> tuple[int, int]:
        """Return (H, W)."""
        return int(self.features.shape[2]), int(self.features.shape[3])

    def view_weights(self) -> Float[Tensor, "n v"]:
        """Return every view's weight, on the features' device."""
        if self.weights is None:
            return self.features.new_ones(self.features.shape[:2])
        return self.weights.to(self.features.device)


def crop_size(size: tuple[int, int], patch: int) -> tuple[int, int]:
    """Return what crops are resized to for an input of ``size`` (height, width) [pixels] where nobody says.

    About 224 on the long side, so that a patch of a crop shows about as much of the image as one of the whole image at 518;
    what is not much larger than that stays as it is.
    """
    if max(size) <= NEAR_CROP * 1.3:
        return size
    height, width = (max(1, round(side * NEAR_CROP / max(size) / patch)) * patch for side in size)
    return height, width


def whole(image_size: tuple[int, int]) -> Crop:
    """Return the view that is the whole image of (height, width) [pixels]."""
    return Crop(0, 0, image_size[1], image_size[0], False)


def sample_crops(options: ViewOptions, image_size: tuple[int, int], key: str, stream: str, count: int) -> list[Crop]:
    """Draw ``count`` crops of an image of (height, width) [pixels].

    ``"fit"`` and ``"wide"`` draw from a scrambled Sobol sequence (Owen 1998), which spreads a few crops evenly over area,
    aspect, place and flip; ``"holdout"`` draws independently, as the paper does. The same
    seed, key and stream give the same crops; more of
    one stream leaves its first crops, and the other stream, as they were.
    """
    digest = hashlib.sha256(f"{options.seed}/{key}/{stream}".encode()).digest()
    seed = int.from_bytes(digest[:8], "little") >> 1
    if stream != "holdout" and options.spread:
        engine = torch.quasirandom.SobolEngine(5, scramble=True, seed=seed % 2**31)  # type: ignore[no-untyped-call]
        draws = engine.draw(count, dtype=torch.float64)
    else:
        draws = torch.rand(count, 5, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    area = options.wide_area if stream == "wide" else options.area
    return [place(options, area, image_size, draw) for draw in draws.tolist()]


def place(options: ViewOptions, span: tuple[float, float], image_size: tuple[int, int], draw: Sequence[float]) -> Crop:
    """Turn five uniform numbers into a crop: area, aspect (log-uniform), left, top, flip."""
    height, width = image_size
    area = span[0] + draw[0] * (span[1] - span[0])
    low, high = (math.log(value) for value in options.aspect)
    ratio = math.exp(low + draw[1] * (high - low))
    crop_width = min(max(round(width * math.sqrt(area * ratio)), 1), width)
    crop_height = min(max(round(height * math.sqrt(area / ratio)), 1), height)
    left = min(int(draw[2] * (width - crop_width + 1)), width - crop_width)
    top = min(int(draw[3] * (height - crop_height + 1)), height - crop_height)
    return Crop(left, top, crop_width, crop_height, draw[4] < options.flip)


def patch_lines(
    crops: Sequence[Crop],
    image_size: tuple[int, int],
    centres: tuple[Float[Tensor, "rows"], Float[Tensor, "columns"]],
) -> tuple[Float[Tensor, "views rows"], Float[Tensor, "views columns"]]:
    """Return where the rows and the columns of every view's patches lie in the whole image, in [0, 1], float32.

    ``centres`` are those of the model's input, (j + ½)/W where patches lie side by side. A patch at share c of a crop from
    ``left`` over ``width`` pixels lies at (left + c·width) / image width; in a mirrored view column j shows what W−1−j would.
    """
    down, across = (line.double() for line in centres)
    boxes = torch.tensor([[c.left, c.top, c.width, c.height] for c in crops], dtype=torch.float64)
    flips = torch.tensor([c.flip for c in crops])
    steps = torch.where(flips[:, None], across.flip(0), across)
    columns = (boxes[:, 0:1] + steps * boxes[:, 2:3]) / image_size[1]
    rows = (boxes[:, 1:2] + down * boxes[:, 3:4]) / image_size[0]
    return rows.float(), columns.float()


def lattice(rows: Float[Tensor, "*v h"], columns: Float[Tensor, "*v w"]) -> Float[Tensor, "*v h w 2"]:
    """Return the places (x, y) where rows and columns cross."""
    shape = (*rows.shape, columns.shape[-1])
    return torch.stack([columns[..., None, :].expand(shape), rows[..., :, None].expand(shape)], dim=-1)


def cell_centres(grid: tuple[int, int]) -> tuple[Float[Tensor, "rows"], Float[Tensor, "columns"]]:
    """Return the centres of H×W equal cells, (j + ½)/W, as rows and columns in (0, 1), float64."""
    rows, columns = ((torch.arange(count, dtype=torch.float64) + 0.5) / count for count in grid)
    return rows, columns


def patch_centres(
    crops: Sequence[Crop], image_size: tuple[int, int], grid: tuple[int, int]
) -> Float[Tensor, "views rows columns 2"]:
    """Return where the centre of every patch of every view lies in the whole image: (x, y) in [0, 1], float32.

    Patches lie side by side; ``patch_lines`` says where.
    """
    return lattice(*patch_lines(crops, image_size, cell_centres(grid)))


def render(
    image: UInt8[Tensor, "3 h w"], crop: Crop, size: tuple[int, int], interpolation: str
) -> UInt8[Tensor, "3 height width"]:
    """Cut a view out of the full-resolution image and resize it to the model's input (height, width) [pixels]."""
    box = image[:, crop.top : crop.top + crop.height, crop.left : crop.left + crop.width]
    view = squash(box, size, interpolation)
    return view.flip(-1) if crop.flip else view
