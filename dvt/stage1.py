"""Method `stage1`: one image cleaned by what its own crops agree on (DVT, arXiv 2401.02957, section 3.2)."""

import hashlib
import math
import time
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict, replace
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Tensor

from .backbone import Backbone
from .decomposition import Decomposition
from .errors import SolverError
from .estimate import seconds_per_image
from .lstsq import LstsqOptions
from .memory import Footprint, divide
from .nodes import node_grid
from .preprocess import squash, upsampled
from .quality import figures, heldout
from .raw import as_tensor
from .solvers import Fit, SolverOptions, figures_of, fit_images, notes, solver_name
from .view_features import Batch, Views, extract, settled
from .views import (
    Crop,
    ViewGroup,
    ViewOptions,
    cell_centres,
    lattice,
    patch_lines,
    sample_crops,
    whole,
)

__all__ = ["Stage1Decomposer"]

IMAGES_TOGETHER = 4  # solved in one batch on a GPU, so that small blocks fill it


class Stage1Decomposer:
    """Stage 1, with the direct solver (``LstsqOptions``) or the paper's field (``FieldOptions``).

    Clean is S at the whole image's patch centres, plus a share ``blend`` of what S and G leave of the whole image's own
    features; artifact is G, with zero mean; raw is what the model gives for the whole image; ``fine_grid`` (H', W') asks for
    clean on another grid too. ``context`` weighs views by their area (lstsq's), ``prior`` is an artifact (H, W, C) known
    beforehand. Unlike the original code, crops are cut from the full-resolution image, features placed at patch centres, and
    with lstsq crops go through the model at an input of their own (``ViewOptions.crop_input``), whose artifact is fitted
    beside that of the whole image; ``ViewOptions.faithful`` and ``FieldOptions.faithful`` do as it did. On a GPU ``memory``
    bytes bound how many images are in flight: views of the next run while those before are solved together. Raises SolverError
    for settings that do not go together.
    """

    variants: tuple[str, ...] = ("raw", "clean", "artifact", "residual")
    timed = "one batch of views at each input, and one solve"

    def __init__(
        self,
        backbone: Backbone,
        views: ViewOptions | None = None,
        solver: SolverOptions | None = None,
        batch_size: int = 4,
        *,
        blend: float = 0.0,
        context: float = 0.0,
        prior: Float[Tensor, "h w c"] | None = None,
        fine_grid: tuple[int, int] | None = None,
        memory: int | None = None,
        encoding: str = "auto",
    ) -> None:
        self.backbone, self.prior, self.encoding = backbone, prior, encoding
        self.grid, self.width, self.prefix_tokens = backbone.grid, backbone.width, backbone.prefix_tokens
        self.blend, self.context, self.fine_grid = blend, context, fine_grid
        direct = solver is None or isinstance(solver, LstsqOptions)
        self.views = settled(views or ViewOptions(), backbone, direct)
        self.backbones = [backbone]
        if self.views.crop_input and self.views.crop_input != backbone.input_size:
            self.backbones.append(backbone.resized(self.views.crop_input))
        if not direct and (context or len(self.backbones) > 1):
            raise SolverError("weights by context and a crop input of its own are the solver lstsq's")
        self.solver = solver or LstsqOptions()
        if isinstance(self.solver, LstsqOptions):
            self.solver = replace(self.solver, nodes=self.nodes(self.solver))
        else:
            self.solver = self.solver.settled(self.grid, sum(self.views.area) / 2)
        if prior is not None and tuple(prior.shape) != (*self.grid, self.width):
            raise SolverError(f"the prior artifact has shape {tuple(prior.shape)}, not {(*self.grid, self.width)}")
        self.notes = notes(self.solver, encoding, backbone.device, self.views.views)
        self.method = f"stage1/{solver_name(self.solver)}"
        if fine_grid:
            self.variants = (*self.variants, "clean_fine")
        on_gpu = backbone.device.type == "cuda"
        share = divide(self.footprint(), memory, batch_size, IMAGES_TOGETHER if on_gpu else 1, 2 if on_gpu else 1)
        self.forward_batch, self.together, self.estimated_bytes = share.forward_batch, share.images, share.bytes
        self.batch_size = 4 * self.together if on_gpu else 1
        self.forwards_per_image = sum(self.view_counts())

    def nodes(self, solver: LstsqOptions) -> tuple[int, int]:
        """Return the grid of nodes: by the finest of the groups of views where nobody says."""
        whole_area = sum(self.views.area if len(self.backbones) == 1 else self.views.wide_area) / 2
        own = node_grid(solver.nodes, self.grid, whole_area)
        if solver.nodes is not None or len(self.backbones) == 1:
            return own
        crops = node_grid(None, self.backbones[1].grid, sum(self.views.area) / 2)
        return max(own[0], crops[0]), max(own[1], crops[1])

    def view_counts(self) -> list[int]:
        """Return how many views of an image each backbone is run on."""
        crops = self.views.views + self.views.holdout
        return [1 + crops] if len(self.backbones) == 1 else [1 + self.views.wide, crops]

    def footprint(self) -> Footprint:
        """Return what decides the memory that one image takes."""
        patches = [model.grid[0] * model.grid[1] for model in self.backbones]
        height, width = self.backbone.input_size
        nodes, entries = (0, 0)
        if isinstance(self.solver, LstsqOptions):
            nodes = math.prod(node_grid(self.solver.nodes, self.grid))
        elif self.solver.grid is not None:
            entries = sum(self.solver.grid.entries()) * self.solver.grid.features
        samples = sum(count * each for count, each in zip(self.view_counts(), patches, strict=True))
        weights = [value for model in self.backbones for value in model.model.parameters()]
        model = sum(value.numel() * value.element_size() for value in weights)
        return Footprint(samples, sum(patches), self.width, nodes, patches[0], 3 * height * width, model, entries)

    def recipe(self) -> dict[str, Any]:
        """Return everything that decides the numbers."""
        name = solver_name(self.solver)
        method: dict[str, Any] = {"name": "stage1", "solver": name, "views": asdict(self.views)}
        method |= {name: asdict(self.solver), "blend": self.blend, "context": self.context}
        if self.prior is not None:
            data = self.prior.float().contiguous().cpu().numpy().astype("<f4").tobytes()
            method["prior"] = hashlib.sha256(data).hexdigest()
        elif name == "field":
            method[name].pop("prior")  # it decides nothing then
        if self.fine_grid:
            method["clean_grid"] = list(self.fine_grid)
        return {"backbone": self.backbone.recipe(), "method": method}

    def seconds_per_image(self) -> float:
        """Return about how long an image takes [s], from one timed batch of forwards at each input and one solve."""
        return seconds_per_image(self)

    def prepare(self, image: NDArray[np.uint8], key: str) -> Views:
        """Draw the views of an (h, w, 3) image; ``key`` names it, so that its crops are always the same."""
        pixels = self.backbone.frame(as_tensor(image))
        if self.views.cut == "squashed":
            pixels = squash(pixels, self.backbone.input_size, "bilinear")
        size = int(pixels.shape[1]), int(pixels.shape[2])
        fit = sample_crops(self.views, size, key, "fit", self.views.views)
        holdout = sample_crops(self.views, size, key, "holdout", self.views.holdout)
        if len(self.backbones) == 1:
            return Views(pixels, ((whole(size), *fit),), tuple(holdout))
        wide = sample_crops(self.views, size, key, "wide", self.views.wide)
        return Views(pixels, ((whole(size), *wide), tuple(fit)), tuple(holdout))

    def decompose(self, prepared: Sequence[Views]) -> list[Decomposition]:
        """Compute the images in groups of ``together``. Raises SolverError where views do not determine the solution.

        On a GPU a thread with a stream of its own solves one group while the next group's views run.
        """
        groups = [prepared[start : start + self.together] for start in range(0, len(prepared), self.together)]
        if self.backbone.device.type != "cuda":
            return [result for group in groups for result in self.finish(self.extract(group))]
        results: list[Decomposition] = []
        with ThreadPoolExecutor(1) as solving:
            pending: Future[list[Decomposition]] | None = None
            for group in groups:
                batch = self.extract(group)
                ready = torch.cuda.current_stream().record_event()
                if pending is not None:
                    results += pending.result()
                pending = solving.submit(self.finish_aside, batch, ready)
            results += pending.result() if pending else []
        return results[: len(prepared)]  # the last group may have been filled up

    def finish_aside(self, batch: Batch, ready: torch.cuda.Event) -> list[Decomposition]:
        """Solve a group on a stream of its own once its features are there."""
        stream = torch.cuda.Stream(self.backbone.device)  # type: ignore[no-untyped-call]
        with torch.cuda.device(self.backbone.device), torch.cuda.stream(stream):
            stream.wait_event(ready)
            for features in (*batch.groups, batch.holdout):
                features.record_stream(stream)
            return self.finish(batch)

    def extract(self, images: Sequence[Views]) -> Batch:
        """Run the model on every view of a group, filled up by its first image so that every group is computed alike."""
        on_gpu = self.backbone.device.type == "cuda"
        missing = self.together - len(images) if on_gpu else 0
        return extract(self.backbones, [*images, *([images[0]] * missing)], self.forward_batch)

    def finish(self, batch: Batch) -> list[Decomposition]:
        """Fit a group, take the maps apart and judge them."""
        started = time.perf_counter()
        fits = self.fit(batch.images, batch.groups)
        parts = [
            self.take_apart(fit, views, batch.groups[0][number, 0], batch.prefix[number], batch.holdout[number])
            for number, (fit, views) in enumerate(zip(fits, batch.images, strict=True))
        ]
        seconds = batch.seconds + (time.perf_counter() - started) / len(fits)
        return [replace(part, stats={**part.stats, "seconds": seconds}) for part in parts]

    def fit(self, images: Sequence[Views], features: Sequence[Tensor]) -> list[Fit]:
        """Fit S and G to the features of every image's views, group by group: for each group (images, views, H, W, C)."""
        groups = []
        for index, (backbone, found) in enumerate(zip(self.backbones, features, strict=True)):
            lines = [self.lines(backbone, views, views.groups[index]) for views in images]
            rows, columns = (torch.stack(line).to(found.device) for line in zip(*lines, strict=True))
            weights = torch.stack([views.weights(index, self.context) for views in images])
            groups.append(ViewGroup(found, rows, columns, weights))
        return fit_images(groups, self.solver, self.prior, self.views.seed, self.encoding)

    def lines(self, backbone: Backbone, views: Views, crops: Sequence[Crop]) -> tuple[Tensor, Tensor]:
        """Return where the rows (crops, H) and columns (crops, W) of the crops' patches lie in the image, in [0, 1]."""
        centres = backbone.centres()
        if self.views.place == "edges":
            centres = (torch.linspace(0, 1, backbone.grid[0]), torch.linspace(0, 1, backbone.grid[1]))
        return patch_lines(crops, views.size, centres)

    def take_apart(
        self,
        fit: Fit,
        views: Views,
        raw: Float[Tensor, "h w c"],
        prefix: Float[Tensor, "t c"],
        unseen: Float[Tensor, "v h2 w2 c"] | None = None,
    ) -> Decomposition:
        """Return an image's maps on the CPU with their figures, judged by the features ``unseen`` of what is held out."""
        places = lattice(*self.lines(self.backbone, views, views.groups[0][:1]))[0].to(raw.device)
        clean = fit.sample(places)
        left = self.blend * (raw - clean - fit.artifact)
        fine = None
        if self.fine_grid:
            cells = lattice(*cell_centres(self.fine_grid)).float().to(raw.device)
            fine = (fit.sample(cells) + upsampled(left, self.fine_grid)).cpu()
        clean = clean + left
        stats = figures(raw[None], clean[None], fit.artifact[None])[0] | dict(figures_of(fit))
        if unseen is not None and len(unseen):
            stats |= heldout(self.predict(fit, views, views.holdout), unseen)
        return Decomposition(raw.cpu(), clean.cpu(), fit.artifact.cpu(), prefix.cpu(), stats, clean_fine=fine)

    def predict(self, fit: Fit, views: Views, crops: Sequence[Crop]) -> Float[Tensor, "v h w c"]:
        """Return what the fit says that the features of crops are that go through the model as the last group does."""
        artifact = fit.artifacts[-1]
        places = lattice(*self.lines(self.backbones[-1], views, crops)).to(artifact.device)
        return fit.sample(places) + artifact
