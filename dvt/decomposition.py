"""What is known of one image: raw = clean + artifact + residual (DVT, arXiv 2401.02957, eq. 2)."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from jaxtyping import Float
from torch import Tensor

__all__ = ["Decomposition"]


@dataclass(frozen=True)
class Decomposition:
    """One image's maps (H, W, C) and prefix tokens (T, C), float32 (stage 2: float16), on the CPU; None where there are none.

    ``artifact`` has zero mean over positions. ``clean_fine`` (H', W', C) is clean at the centres of another grid's cells.
    ``stats`` holds the figures of ``quality``.
    """

    raw: Float[Tensor, "h w c"]
    clean: Float[Tensor, "h w c"] | None = None
    artifact: Float[Tensor, "h w c"] | None = None
    prefix: Float[Tensor, "t c"] | None = None
    stats: Mapping[str, float] = field(default_factory=dict)
    clean_fine: Float[Tensor, "high wide c"] | None = None

    @property
    def residual(self) -> Float[Tensor, "h w c"] | None:
        """Return what clean and artifact leave over of raw."""
        if self.clean is None or self.artifact is None:
            return None
        return self.raw.float() - self.clean.float() - self.artifact.float()
