"""A timm model's tokens after one block: patch tokens and prefix tokens apart, whatever its class returns."""

import inspect
from typing import Any

from jaxtyping import Float
from torch import Tensor, nn

__all__ = ["fused_attention", "tokens_after"]


def tokens_after(
    model: nn.Module, images: Float[Tensor, "n 3 height width"], layer: int, norm: bool
) -> tuple[Float[Tensor, "n patches channels"], Float[Tensor, "n prefix channels"]]:
    """Return patch tokens (N, H * W, C), row by row from the top left, and prefix tokens (N, T, C) after block ``layer``.

    ``norm`` applies the model's ``norm`` whatever the layer: nothing where timm norms what has been pooled (BEiT), and for
    SAM the neck, which changes C. Models whose class token joins later (CaiT) have no prefix tokens here.
    """
    known = inspect.signature(model.forward_intermediates).parameters  # type: ignore[arg-type]
    prefixed = (
        "return_prefix_tokens" in known and getattr(model, "num_prefix_tokens", 0) > 0
    )  # timm fails for 0 in places
    options: dict[str, Any] = {"return_prefix_tokens": True} if prefixed else {}
    options["output_fmt"] = "NCHW" if hasattr(model, "neck") else "NLC"  # SAM knows no other
    (found,) = model.forward_intermediates(  # type: ignore[operator]
        images, indices=[layer], norm=norm, intermediates_only=True, stop_early=True, **options
    )
    patches, prefix = found if prefixed else (found, None)
    if options["output_fmt"] == "NCHW":
        patches = patches.flatten(2).transpose(1, 2)
    if prefix is None:
        prefix = patches.new_zeros(len(patches), 0, patches.shape[-1])
    return patches, prefix


def fused_attention(model: nn.Module) -> bool:
    """Whether every block's attention is one fused kernel (timm's default; the environment's TIMM_FUSED_ATTN=0 ends it)."""
    blocks: Any = model.blocks
    return all(getattr(getattr(block, "attn", None), "fused_attn", False) for block in blocks)
