"""Method `position-mean`: the data set's mean feature at each position taken off, the simplest artifact there is.

The mean patch embedding of a data set was looked at as a map of positional artifacts by DVT (arXiv 2401.02957, section 3.1). It
holds what positions have in common for the model's sake and for the pictures' (sky is above), and takes both away.
"""

from collections.abc import Sequence

from jaxtyping import Float, UInt8
from torch import Tensor

from .whole_image import WholeImageDecomposer

__all__ = ["PositionMeanDecomposer"]


class PositionMeanDecomposer(WholeImageDecomposer):
    """clean = raw − artifact, where artifact is the mean of raw over images at each position, less its mean over positions.

    ``stage2.position_mean`` makes it, from pairs of raw and 0. Nothing is left for the residual but rounding.
    """

    method = "position-mean"

    def clean(
        self, raw: Float[Tensor, "n h w c"], prepared: Sequence[UInt8[Tensor, "3 height width"]]
    ) -> Float[Tensor, "n h w c"]:
        """Return raw − artifact."""
        return raw - self.offset
