"""What a timm model is, asked before it is used: a grid of square patches, its sizes, its layers."""

from collections.abc import Mapping, Sequence
from typing import Any, no_type_check

import timm
import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from .errors import BackboneError

__all__ = [
    "check_architecture",
    "check_layer",
    "create",
    "create_blank",
    "default_size",
    "outline",
    "patch_size",
    "takes_any_size",
]

NEAR = 518


class Unfilled(TorchFunctionMode):
    """What changes a tensor of ``kind`` in place does nothing."""

    def __init__(self, kind: type[Tensor]) -> None:
        super().__init__()
        self.kind = kind

    @no_type_check  # called thousands of times a model: tests would check every call
    def __torch_function__(
        self, function: Any, types: Any, args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        """Call the function, or return the tensor it would have changed."""
        name = getattr(function, "__name__", "")
        given = kwargs or {}
        target = args[0] if args else given.get("tensor")  # torch.nn.init's functions name it
        in_place = name.endswith("_") and not name.startswith("_") and name != "requires_grad_"
        return target if in_place and isinstance(target, self.kind) else function(*args, **given)


def create(timm_name: str) -> nn.Module:
    """Create a timm model without weights and head."""
    try:
        model: nn.Module = timm.create_model(timm_name, pretrained=False, num_classes=0)
    except (RuntimeError, ValueError) as error:
        raise BackboneError(f"timm cannot make {timm_name}: {' '.join(str(error).split())}") from error
    return model


def create_blank(timm_name: str) -> nn.Module:
    """Create a model whose weights are about to be loaded: none are drawn at random first."""
    with Unfilled(nn.Parameter):
        return create(timm_name)


def outline(timm_name: str) -> nn.Module:
    """Create a model on the meta device: shapes and no values, in some hundredths of a second even with billions of them."""
    with torch.device("meta"), Unfilled(Tensor):
        return create(timm_name)


def check_architecture(timm_name: str) -> None:
    """Raise BackboneError for a model without a grid of patch tokens, before any weights are fetched for it."""
    patch_size(outline(timm_name), timm_name)


def patch_size(model: nn.Module, timm_name: str) -> int:
    """Return the patch's side [pixels]; raises BackboneError for what is no plain ViT."""
    ratio = getattr(getattr(model, "patch_embed", None), "feat_ratio", None)
    if ratio is None or not hasattr(model, "forward_intermediates") or not hasattr(model, "blocks"):
        raise BackboneError(f"{timm_name} has no grid of patch tokens: choose a vision transformer (dinov2_b, mae_b …)")
    patch = ratio(as_scalar=False)  # of a hybrid, its stem's pixels as well
    if patch[0] != patch[1]:
        raise BackboneError(f"{timm_name} has patches of {patch[0]}×{patch[1]} pixels: only square ones are supported")
    return int(patch[0])


def default_size(model: nn.Module, patch: int) -> tuple[int, int]:
    """Return 518 for patch 14 and 512 for patch 16 (DVT, arXiv 2401.02957, section 4), else a multiple near them.

    A model that takes no other size than its own keeps it.
    """
    if not hasattr(model, "set_input_size"):
        height, width = model.patch_embed.img_size  # type: ignore[union-attr, misc]
        return int(height), int(width)
    side = {14: 518, 16: 512}.get(patch, round(NEAR / patch) * patch)
    return side, side


def takes_any_size(model: nn.Module) -> bool:
    """Whether a model takes other input sizes than its own; SAM's resamples its positions as it runs, without rotary ones."""
    return hasattr(model, "set_input_size") or (hasattr(model, "neck") and getattr(model, "rope_global", None) is None)


def check_layer(layer: int | None, model: nn.Module) -> int:
    """Return the block to take, counted from 0; negative ones count from the end. Raises BackboneError where there is none."""
    depth = len(model.blocks)  # type: ignore[arg-type]
    if layer is not None and not -depth <= layer < depth:
        raise BackboneError(f"there is no layer {layer}: this backbone has layers 0 to {depth - 1} (-1 is the last)")
    return depth - 1 if layer is None else layer % depth
