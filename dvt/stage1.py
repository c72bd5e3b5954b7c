"""Method `stage1`: one image cleaned by what its own crops agree on (DVT, arXiv 2401.02957, section 3.2)."""

import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, UInt8
from numpy.typing import NDArray
from torch import Tensor

from .backbone import Backbone
from .decomposition import Decomposition
from .lstsq import LstsqOptions, solve
from .nodes import LstsqFit
from .preprocess import normalise
from .quality import heldout, norms, shares
from .raw import as_tensor
from .views import Crop, ViewOptions, patch_centres, render, sample_crops, whole

__all__ = ["Stage1Decomposer", "Views"]


@dataclass(frozen=True)
class Views:
    """One image made ready: its pixels, the views to fit (the whole image first), and those to judge the fit by."""

    image: UInt8[Tensor, "3 h w"]
    fit: tuple[Crop, ...]
    holdout: tuple[Crop, ...]

    @property
    def size(self) -> tuple[int, int]:
        """Return (height, width) [pixels]."""
        return int(self.image.shape[1]), int(self.image.shape[2])


class Stage1Decomposer:
    """Stage 1 with the direct least-squares solver, one image a call, ``forward_batch`` views a forward.

    Clean is the fitted field at the whole image's patch centres, artifact the fitted map of positions with zero mean, raw
    what the model gives for the whole image. Unlike the original, crops are cut from the full-resolution image and features
    placed at patch centres (it cut them from the squashed image and placed them along the crop's edges).
    """

    method = "stage1/lstsq"
    variants: tuple[str, ...] = ("raw", "clean", "artifact", "residual")
    batch_size = 1

    def __init__(
        self,
        backbone: Backbone,
        views: ViewOptions | None = None,
        solver: LstsqOptions | None = None,
        batch_size: int = 4,
    ) -> None:
        self.backbone, self.forward_batch = backbone, batch_size
        self.views, self.solver = views or ViewOptions(), solver or LstsqOptions()
        self.grid, self.width, self.prefix_tokens = backbone.grid, backbone.width, backbone.prefix_tokens
        self.forwards_per_image = 1 + self.views.views + self.views.holdout

    def recipe(self) -> dict[str, Any]:
        """Return everything that decides the numbers."""
        method = {"name": "stage1", "solver": "lstsq", "views": asdict(self.views), "lstsq": asdict(self.solver)}
        return {"backbone": self.backbone.recipe(), "method": method}

    def seconds_per_image(self) -> float:
        """Return about how long an image takes [s], from one timed forward; the solver's share is not in it."""
        return self.forwards_per_image * self.backbone.seconds_per_forward(self.forward_batch)

    def prepare(self, image: NDArray[np.uint8], key: str) -> Views:
        """Draw the views of an (h, w, 3) image; ``key`` names it, so that its crops are always the same."""
        pixels = as_tensor(image)
        size = int(pixels.shape[1]), int(pixels.shape[2])
        fit = sample_crops(self.views, size, key, "fit", self.views.views)
        holdout = sample_crops(self.views, size, key, "holdout", self.views.holdout)
        return Views(pixels, (whole(size), *fit), tuple(holdout))

    def decompose(self, prepared: Sequence[Views]) -> list[Decomposition]:
        """Compute the images one after the other. Raises SolverError where views do not determine the solution."""
        return [self.decompose_one(views) for views in prepared]

    def decompose_one(self, views: Views) -> Decomposition:
        """Run the model on every view of one image, fit, and judge the fit."""
        started = time.perf_counter()
        features, prefix = self.features((*views.fit, *views.holdout), views)
        fitted = features[: len(views.fit)]
        places = patch_centres(views.fit, views.size, self.grid).to(features.device)
        fit = solve(fitted, places, self.solver)
        parts = Decomposition(
            raw=fitted[0].cpu(), clean=fit.sample(places[0]).cpu(), artifact=fit.artifact.cpu(), prefix=prefix.cpu()
        )
        figures = norms(parts.raw) | shares(parts) | self.judge(fit, features[len(views.fit) :], views)
        figures["seconds"] = time.perf_counter() - started
        return Decomposition(parts.raw, parts.clean, parts.artifact, parts.prefix, figures)

    def features(self, crops: Sequence[Crop], views: Views) -> tuple[Float[Tensor, "v h w c"], Float[Tensor, "t c"]]:
        """Return the features of all views (V, H, W, C) on the model's device, and the first view's prefix tokens."""
        model = self.backbone
        features = torch.empty(len(crops), *self.grid, self.width, device=model.device)
        first = features.new_zeros(self.prefix_tokens, self.width)
        for start in range(0, len(crops), self.forward_batch):
            batch = crops[start : start + self.forward_batch]
            pixels = [render(views.image, crop, model.input_size, model.interpolation) for crop in batch]
            tokens, prefix = model.forward(normalise(torch.stack(pixels), model.mean, model.std, model.device))
            features[start : start + len(batch)] = tokens
            if start == 0:
                first = prefix[0].clone()
        return features, first

    def judge(self, fit: LstsqFit, features: Float[Tensor, "v h w c"], views: Views) -> dict[str, float]:
        """Return the held-out figures."""
        if not views.holdout:
            return {}
        places = patch_centres(views.holdout, views.size, self.grid).to(features.device)
        return heldout(fit.sample(places) + fit.artifact, features)
