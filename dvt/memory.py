"""How much memory stage 1 takes, estimated before it is taken, and a batch that keeps within a limit.

Estimates are of what tensors take. On a CPU add the process itself, Python and PyTorch: some 0.9 GB. Measured (DINOv2-S at
518, 64×64 nodes): features and solver of 64 views 0.50 GB, estimated 0.62; of 128 views 0.61 GB, estimated 0.83.
"""

from dataclasses import dataclass

from .errors import SolverError

__all__ = ["Footprint", "Share", "divide"]


@dataclass(frozen=True)
class Footprint:
    """What decides the memory of one image [counts].

    ``samples``: patches of all its views. ``positions``: of G, all groups'. ``channels``. ``nodes``: of S, 0 for the field.
    ``patches`` and ``pixels`` of the largest input. ``model``: bytes of the weights. ``entries``: of the field's parameters.
    """

    samples: int
    positions: int
    channels: int
    nodes: int
    patches: int
    pixels: int
    model: int
    entries: int = 0

    def forward(self, batch: int) -> int:
        """Return the bytes a forward of ``batch`` views takes: a dozen activations of a block."""
        return batch * (self.patches * self.channels * 4 * 12 + self.pixels * 4 * 4)

    def features(self) -> int:
        """Return the bytes of one image's features, float32."""
        return self.samples * self.channels * 4

    def solver(self) -> int:
        """Return the bytes that solving one image takes beside its features."""
        if not self.nodes:
            return self.entries * 4 * 4 + 2048 * self.channels * 4 * 16
        right = self.nodes * (self.positions + self.channels) * 8
        return 6 * right + 3 * self.positions**2 * 8 + self.samples * 8 * 4 + self.features() // 2


@dataclass(frozen=True)
class Share:
    """``forward_batch`` views a forward, ``images`` solved together, and the bytes that this is estimated to take."""

    forward_batch: int
    images: int
    bytes: int


def divide(footprint: Footprint, limit: int | None, forward_batch: int, images: int, in_flight: int) -> Share:
    """Return the largest batches up to those asked for whose estimate keeps within ``limit`` bytes.

    ``in_flight``: groups of images whose features are held at once (2 where views of the next group run while one is solved).
    Images are given up before views. Raises SolverError where not even one of each fits.
    """
    while True:
        held = in_flight * images * footprint.features() + images * footprint.solver()
        total = footprint.model + held + footprint.forward(forward_batch)
        if limit is None or total <= limit:
            return Share(forward_batch, images, total)
        if images > 1:
            images -= 1
        elif forward_batch > 1:
            forward_batch //= 2
        else:
            raise SolverError(
                f"stage 1 needs about {total / 1e6:,.0f} MB and may take {limit / 1e6:,.0f} MB: "
                "give more memory, fewer views or fewer nodes"
            )
