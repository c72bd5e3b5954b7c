"""Linear heads on frozen features, for classes and for depth, and how they are trained."""

from collections.abc import Iterable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from .depth_losses import GRADIENT, gradient_loss, scale_invariant_loss

__all__ = ["ClassHead", "DepthHead", "HeadOptions", "train_head"]

IGNORED = -1


@dataclass(frozen=True)
class HeadOptions:
    """How a head is trained: AdamW, the rate rising linearly over ``warmup`` of the steps and then falling linearly to 0.

    Rate and decay are those of DINOv2's linear segmentation (arXiv 2304.07193, ``dinov2_*_linear`` configurations for
    mmsegmentation), whose schedule is 40,000 steps of 16 images with 1,500 of warm-up; DVT (arXiv 2401.02957) evaluates
    so. ``upsample``: the loss is taken on a grid as many times finer than the patches.
    """

    steps: int = 500
    batch: int = 16
    rate: float = 1e-3
    decay: float = 1e-4
    warmup: float = 0.0375
    upsample: int = 4


class ClassHead(nn.Module):
    """Batch normalisation and a 1 × 1 convolution: features (N, C, H, W) to logits (N, K, H, W)."""

    def __init__(self, channels: int, classes: int, generator: torch.Generator | None = None) -> None:
        super().__init__()
        self.norm = nn.BatchNorm2d(channels)
        self.classify = nn.Conv2d(channels, classes, 1)
        nn.init.normal_(self.classify.weight, std=0.01, generator=generator)
        nn.init.constant_(self.classify.get_parameter("bias"), 0.0)

    def forward(self, features: Float[Tensor, "n c h w"], size: tuple[int, int]) -> Float[Tensor, "n k oh ow"]:
        """Return logits, resized bilinearly to ``size`` (height, width)."""
        return F.interpolate(self.classify(self.norm(features)), size=size, mode="bilinear", align_corners=False)

    def loss(self, given: Float[Tensor, "n k h w"], true: Int[Tensor, "n h w"]) -> Float[Tensor, ""]:
        """Return the mean cross-entropy over pixels whose label is not −1; 0 without one."""
        total = F.cross_entropy(given, true, ignore_index=IGNORED, reduction="sum")
        return total / (true != IGNORED).sum().clamp(min=1)


class DepthHead(ClassHead):
    """The same map to 256 bins of depth, and the depth expected over them: features to (N, H, W) [m].

    DINOv2's linear depth head after AdaBins: evenly spread bins from ``least`` to ``most`` metres, their weights
    (ReLU(logit) + 0.1) divided by the sum of all. Bilinear resizing comes before the ReLU. ``gradient`` is the weight of
    the gradient loss.
    """

    def __init__(
        self,
        channels: int,
        least: float = 1e-3,
        most: float = 10.0,
        bins: int = 256,
        gradient: float = GRADIENT,
        generator: torch.Generator | None = None,
    ) -> None:
        super().__init__(channels, bins, generator)
        self.least, self.most, self.gradient = least, most, gradient
        self.register_buffer("bins", torch.linspace(least, most, bins))

    def forward(self, features: Float[Tensor, "n c h w"], size: tuple[int, int]) -> Float[Tensor, "n oh ow"]:
        """Return depths [m] at ``size`` (height, width)."""
        weights = F.relu(super().forward(features, size)) + 0.1
        depth: Tensor = torch.einsum("nkhw,k->nhw", weights, self.bins) / weights.sum(dim=1)
        return depth

    def loss(self, given: Float[Tensor, "n h w"], true: Float[Tensor, "n h w"]) -> Float[Tensor, ""]:
        """Return scale-invariant and weighted gradient loss over depths truly within (``least``, ``most``)."""
        there = (true > self.least) & (true < self.most)
        loss = scale_invariant_loss(given[there], true[there])
        return loss + self.gradient * gradient_loss(given, true, there) if self.gradient else loss


def train_head(head: ClassHead, batches: Iterable[tuple[Tensor, Tensor]], options: HeadOptions) -> float:
    """Train on ``steps`` batches of features (N, C, H, W) and labels or depths (N, h, w); returns the last loss.

    The head is left in evaluation mode. Fewer batches end it earlier.
    """
    optimizer = torch.optim.AdamW(head.parameters(), lr=options.rate, weight_decay=options.decay)
    rising = max(1, round(options.steps * options.warmup))
    head.train()
    last = 0.0
    for step, (features, true) in zip(range(options.steps), batches, strict=False):
        falling = (options.steps - step) / options.steps
        for group in optimizer.param_groups:
            group["lr"] = options.rate * min(1.0, (step + 1) / rising) * falling
        loss = head.loss(head(features, (int(true.shape[-2]), int(true.shape[-1]))), true)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        last = float(loss.detach())
    head.eval()
    return last
