"""A timm model's tokens after some of its blocks: patch tokens and prefix tokens apart, whatever its class returns."""

import inspect
from collections.abc import Sequence
from typing import Any

from jaxtyping import Float
from torch import Tensor, nn

__all__ = ["final_norm", "fused_attention", "prefix_names", "tokens_after"]


def tokens_after(
    model: nn.Module, images: Float[Tensor, "n 3 height width"], layers: Sequence[int], norm: bool
) -> list[tuple[Float[Tensor, "n patches channels"], Float[Tensor, "n prefix channels"]]]:
    """Return patch tokens (N, H * W, C), row by row from the top left, and prefix tokens (N, T, C) after each of ``layers``.

    One forward; what a layer gives does not depend on the others asked for.

    ``norm`` applies the model's ``norm`` whatever the layer: nothing where timm norms what has been pooled (BEiT), and for
    SAM the neck, which changes C. Models whose class token joins later (CaiT) have no prefix tokens here.
    """
    known = inspect.signature(model.forward_intermediates).parameters  # type: ignore[arg-type]
    prefixed = (
        "return_prefix_tokens" in known and getattr(model, "num_prefix_tokens", 0) > 0
    )  # timm fails for 0 in places
    options: dict[str, Any] = {"return_prefix_tokens": True} if prefixed else {}
    options["output_fmt"] = "NCHW" if hasattr(model, "neck") else "NLC"  # SAM knows no other
    asked = sorted(set(layers))
    found = model.forward_intermediates(  # type: ignore[operator]
        images, indices=asked, norm=norm, intermediates_only=True, stop_early=True, **options
    )
    tokens = {}
    for layer, one in zip(asked, found, strict=True):
        patches, prefix = one if prefixed else (one, None)
        if options["output_fmt"] == "NCHW":
            patches = patches.flatten(2).transpose(1, 2)
        if prefix is None:
            prefix = patches.new_zeros(len(patches), 0, patches.shape[-1])
        tokens[layer] = patches, prefix
    return [tokens[layer] for layer in layers]


def fused_attention(model: nn.Module) -> bool:
    """Whether every block's attention is one fused kernel (timm's default; the environment's TIMM_FUSED_ATTN=0 ends it)."""
    blocks: Any = model.blocks
    return all(getattr(getattr(block, "attn", None), "fused_attn", False) for block in blocks)


def final_norm(model: nn.Module) -> nn.Module | None:
    """Return the norm that a model puts on its last block's tokens, None where there is none.

    BEiT norms what has been pooled, SAM has a neck of other channels instead.
    """
    norm = getattr(model, "norm", None)
    return None if norm is None or isinstance(norm, nn.Identity) else norm


def prefix_names(model: nn.Module, count: int) -> tuple[str, ...]:
    """Return what the ``count`` prefix tokens are: class, distillation, register 1 …"""
    token: Any = getattr(model, "reg_token", None)
    registers = 0 if token is None else min(int(token.shape[1]), count)
    first = ("class", "distillation")[: count - registers]
    left = range(1, count - len(first) + 1)
    return first + tuple(f"register {number}" for number in left)
