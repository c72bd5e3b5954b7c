"""What methods have in common that clean the whole image's own features, with one artifact for all images."""

import hashlib
import time
from abc import abstractmethod
from collections.abc import Sequence
from typing import Any

from jaxtyping import Float, UInt8
from torch import Tensor

from .backbone import Backbone
from .decomposition import Decomposition
from .errors import SolverError
from .quality import figures
from .raw import RawDecomposer, raw_of

__all__ = ["WholeImageDecomposer", "digest_of"]


def digest_of(values: Tensor) -> str:
    """Return the SHA-256 of a tensor's values, float32 little-endian: what a recipe tells of a calibration."""
    return hashlib.sha256(values.float().contiguous().cpu().numpy().astype("<f4").tobytes()).hexdigest()


class WholeImageDecomposer(RawDecomposer):
    """raw as method `raw` gives it, rounded to float16 as a store keeps it; clean made of it by a subclass.

    ``artifact`` (H, W, C), zero mean over positions, is the same for every image; the residual is what is left.
    """

    variants: tuple[str, ...] = ("raw", "clean", "artifact", "residual")

    def __init__(self, backbone: Backbone, artifact: Float[Tensor, "h w c"], batch_size: int = 4) -> None:
        """Raise SolverError for an artifact of another shape than the backbone's features."""
        super().__init__(backbone, batch_size)
        if tuple(artifact.shape) != (*self.grid, self.width):
            raise SolverError(f"the artifact has shape {tuple(artifact.shape)}, not {(*self.grid, self.width)}")
        self.artifact = artifact.float().cpu()
        self.offset = self.artifact.to(backbone.device)

    def recipe(self) -> dict[str, Any]:
        """Return everything that decides the numbers."""
        method = {"name": self.method, "raw": "float16", "artifact": digest_of(self.artifact)}
        return {"backbone": self.backbone.recipe(), "method": method | self.parameters()}

    def parameters(self) -> dict[str, Any]:
        """Return what of a recipe's ``method`` is this method's own."""
        return {}

    @abstractmethod
    def clean(
        self, raw: Float[Tensor, "n h w c"], prepared: Sequence[UInt8[Tensor, "3 height width"]]
    ) -> Float[Tensor, "n h w c"]:
        """Return clean maps of raw ones, float32 on the device; ``prepared`` are the images that raw was computed of."""

    def pair(
        self, prepared: Sequence[UInt8[Tensor, "3 height width"]]
    ) -> tuple[Float[Tensor, "n h w c"], Float[Tensor, "n h w c"]]:
        """Return raw and clean of prepared images, on the device: what the artifact is taken of."""
        raw = raw_of(self.backbone, prepared)[0].half().float()
        return raw, self.clean(raw, prepared)

    def seconds_per_image(self) -> float:
        """Return about how long an image takes [s], from one timed forward."""
        return self.forwards_per_image * super().seconds_per_image()

    def decompose(self, prepared: Sequence[UInt8[Tensor, "3 height width"]]) -> list[Decomposition]:
        """Run the model on prepared images and clean what it gives."""
        started = time.perf_counter()
        tokens, prefix = raw_of(self.backbone, prepared)
        raw = tokens.half().float()
        clean = self.clean(raw, prepared)
        told = figures(raw, clean, self.offset[None])
        maps = zip(raw.cpu(), clean.cpu(), prefix.cpu(), told, strict=True)
        seconds = (time.perf_counter() - started) / len(prepared)
        return [
            Decomposition(one, cleaned, self.artifact, extra, {**own, "seconds": seconds})
            for one, cleaned, extra, own in maps
        ]
