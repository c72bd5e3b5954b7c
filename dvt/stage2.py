"""Method `stage2`: raw features cleaned by a trained denoiser, in one forward (DVT, arXiv 2401.02957, section 3.3)."""

import hashlib
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, UInt8
from numpy.typing import NDArray
from torch import Tensor

from .backbone import Backbone
from .decomposition import Decomposition
from .denoiser import Denoiser
from .errors import DenoiserError
from .leaving import Exit
from .precision import autocast
from .preprocess import squash
from .quality import FIGURES, figures_table
from .raw import as_map, as_tensor, raw_of

__all__ = ["Stage2Decomposer", "StoredDecomposer", "check_lineage", "cleaned", "position_mean"]

IN_FLIGHT = 4
Stored = tuple[Float[Tensor, "h w c"], Float[Tensor, "t c"] | None]


def check_lineage(denoiser: Denoiser, backbone: Mapping[str, Any]) -> None:
    """Raise DenoiserError where a denoiser says that it was trained on features other than those of this recipe.

    The input size may differ: the position embedding is resampled. A published checkpoint says nothing of it, and of imported
    features not all is known.
    """
    told = denoiser.facts.get("backbone", {})
    both = [key for key in ("id", "weights", "layer", "norm", "mean", "std") if key in told and key in backbone]
    wrong = [key for key in both if told[key] != backbone[key]]
    if wrong:
        own = ", ".join(f"{key} {str(told[key])[:40]} and not {str(backbone[key])[:40]}" for key in wrong)
        raise DenoiserError(f"the denoiser was trained on other features: {own}")


def position_mean(pairs: Iterable[tuple[Tensor, Tensor]]) -> Float[Tensor, "h w c"]:
    """Return the mean over images of raw − clean at each position, less its mean over positions, added up in float64.

    ``pairs`` are batches (N, H, W, C) of raw and clean, on any device. Raises DenoiserError where there are none.
    """
    total: Tensor | None = None
    count = 0
    for raw, clean in pairs:
        part = (raw.double() - clean.double()).sum(dim=0)
        total = part if total is None else total + part
        count += len(raw)
    if total is None:
        raise DenoiserError("there is no image to take the artifact's mean over")
    mean = total / count
    return (mean - mean.mean(dim=(0, 1))).float().cpu()


def cleaned(
    denoiser: Denoiser, pairs: Iterable[tuple[Tensor, Tensor]], device: torch.device, dtype: str = "float32"
) -> Iterator[tuple[Float[Tensor, "n h w c"], Float[Tensor, "n h w c"]]]:
    """Yield (raw, D(raw)) for batches (N, H, W, C) whose first part is raw, as float32 on the device."""
    denoiser = denoiser.to(device).eval()
    for raw, *_ in pairs:
        given = raw.to(device).float()
        with torch.inference_mode(), autocast(device, dtype):
            found = denoiser(given).float()
        yield given, found


class StoredDecomposer:
    """Cleans raw features that are stored already, with no backbone.

    clean = D(raw), where raw is what a store holds, rounded to float16: so features cleaned as they are made and features
    cleaned later are the same version. artifact is ``artifact`` (H, W, C) for every image: the mean over many images of
    raw − clean at each position, with zero mean over positions (``position_mean``). The rest is the residual.
    """

    method = "stage2"
    variants: tuple[str, ...] = ("raw", "clean", "artifact", "residual")
    forwards_per_image = 1

    def __init__(
        self,
        denoiser: Denoiser,
        artifact: Float[Tensor, "h w c"],
        backbone: Mapping[str, Any],
        prefix_tokens: int,
        device: torch.device,
        dtype: str = "float32",
        batch_size: int = 16,
        *,
        compiled: bool = False,
    ) -> None:
        """``backbone`` is that part of the recipe; ``dtype`` float32, or bfloat16 by autocast. Raises DenoiserError."""
        check_lineage(denoiser, backbone)
        if artifact.shape[-1] != denoiser.width:
            raise DenoiserError(
                f"the denoiser is for {denoiser.width} channels, the features have {artifact.shape[-1]}"
            )
        self.denoiser = denoiser.to(device).eval()
        self.run = torch.compile(self.denoiser) if compiled else self.denoiser
        self.artifact, self.device, self.dtype = artifact.float(), device, dtype
        self.batch_size, self.prefix_tokens, self.described = batch_size, prefix_tokens, dict(backbone)
        height, width, self.width = artifact.shape
        self.grid = int(height), int(width)
        self.offset = self.artifact.to(device)
        self.weights = denoiser.digest()
        self.exit = Exit(device)

    def recipe(self) -> dict[str, Any]:
        """Return everything that decides the numbers."""
        data = self.artifact.contiguous().numpy().astype("<f4").tobytes()
        method = {
            "name": "stage2",
            "denoiser": self.weights,
            "artifact": hashlib.sha256(data).hexdigest(),
            "raw": "float16",
            "dtype": self.dtype,
        }
        return {"backbone": self.described, "method": method}

    def seconds_per_image(self) -> float:
        """Return about how long an image takes [s], from one timed batch after a first one."""
        batch = torch.zeros(self.batch_size, *self.grid, self.width)
        self.clean(batch[:1].to(self.device))
        started = time.perf_counter()
        self.clean(batch.to(self.device)).cpu()
        return (time.perf_counter() - started) / self.batch_size

    def prepare(self, image: NDArray[np.uint8], key: str) -> Stored:
        """Refuse an image (h, w, 3): features are cleaned here. Raises DenoiserError."""
        raise DenoiserError("stored features are cleaned here, not images")

    def prepare_stored(self, raw: NDArray[np.float16], prefix: NDArray[np.float16] | None) -> Stored:
        """Make one stored map (H, W, C) and its prefix tokens (T, C) ready."""
        return as_map(raw), None if prefix is None else torch.from_numpy(np.array(prefix, np.float32))

    def decompose(self, prepared: Sequence[Stored]) -> list[Decomposition]:
        """Clean a batch of stored maps."""
        raw = torch.stack([one[0] for one in prepared]).to(self.device)
        return self.collect([self.start(raw, [one[1] for one in prepared])])

    def start(self, raw: Float[Tensor, "n h w c"], prefix: Sequence[Tensor | None] | Tensor) -> "Leaving":
        """Clean a batch on the device and send its maps, and prefix tokens (T, C), out; on a GPU nothing is waited for."""
        started = time.perf_counter()
        clean = self.clean(raw)
        told = figures_table(raw, clean, self.offset[None])
        whole = [one for one in prefix if one is not None]
        return Leaving(
            self.exit.send(raw.half()),
            self.exit.send(clean.half()),
            self.exit.send(torch.stack(whole)) if whole else None,
            self.exit.send(told),
            started,
        )

    def collect(self, batches: Sequence["Leaving"]) -> list[Decomposition]:
        """Wait for what was sent out, and return every image's maps with their figures."""
        self.exit.wait()
        return [result for batch in batches for result in batch.results(self.artifact)]

    @torch.inference_mode()
    def clean(self, raw: Float[Tensor, "n h w c"]) -> Float[Tensor, "n h w c"]:
        """Return D(raw) as float32; ``raw`` is on the device."""
        with autocast(self.device, self.dtype):
            cleaned: Tensor = self.run(raw.half().float())
        return cleaned.float()


@dataclass(frozen=True)
class Leaving:
    """A batch on its way to the CPU: raw and clean (N, H, W, C) float16, prefix tokens (N, T, C), figures (N, figures)."""

    raw: Tensor
    clean: Tensor
    prefix: Tensor | None
    told: Tensor
    started: float

    def results(self, artifact: Float[Tensor, "h w c"]) -> list[Decomposition]:
        """Return every image's maps, once they are there."""
        seconds = (time.perf_counter() - self.started) / len(self.raw)
        rows = [dict(zip(FIGURES, row, strict=True)) | {"seconds": seconds} for row in self.told.tolist()]
        prefix = [None] * len(rows) if self.prefix is None else list(self.prefix)
        maps = zip(self.raw, self.clean, prefix, rows, strict=True)
        return [Decomposition(raw, clean, artifact, extra, row) for raw, clean, extra, row in maps]


class Stage2Decomposer(StoredDecomposer):
    """Backbone and denoiser in one pass: images in, what ``StoredDecomposer`` says out."""

    def __init__(
        self,
        backbone: Backbone,
        denoiser: Denoiser,
        artifact: Float[Tensor, "h w c"],
        batch_size: int = 4,
        *,
        compiled: bool = False,
    ) -> None:
        """``artifact`` is on the backbone's grid. Raises DenoiserError where the two do not belong together."""
        if denoiser.width != backbone.width or tuple(artifact.shape) != (*backbone.grid, backbone.width):
            raise DenoiserError(
                f"the denoiser of {denoiser.width} channels and its artifact {tuple(artifact.shape)} do not fit "
                f"features of {(*backbone.grid, backbone.width)}"
            )
        super().__init__(
            denoiser,
            artifact,
            backbone.recipe(),
            backbone.prefix_tokens,
            backbone.device,
            backbone.dtype,
            batch_size,
            compiled=compiled,
        )
        self.backbone, self.forward_batch = backbone, batch_size
        if backbone.device.type == "cuda":
            self.batch_size = IN_FLIGHT * batch_size  # maps of one forward leave the card while the next one runs

    def seconds_per_image(self) -> float:
        """Return about how long an image takes [s], from one timed forward of each."""
        return self.backbone.seconds_per_forward(self.forward_batch) + super().seconds_per_image()

    def prepare(self, image: NDArray[np.uint8], key: str) -> UInt8[Tensor, "3 height width"]:  # type: ignore[override]
        """Resize an (h, w, 3) image to the model's input; ``key`` plays no part."""
        return squash(self.backbone.frame(as_tensor(image)), self.backbone.input_size, self.backbone.interpolation)

    def decompose(self, prepared: Sequence[UInt8[Tensor, "3 height width"]]) -> list[Decomposition]:  # type: ignore[override]
        """Run both on prepared images."""
        size = self.forward_batch
        groups = [prepared[start : start + size] for start in range(0, len(prepared), size)]
        return self.collect([self.start(*raw_of(self.backbone, group)) for group in groups])
