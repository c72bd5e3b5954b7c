"""Patches that may overlap: which strides fit, where each patch lies, and positions carried over to its finer grid."""

import math
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from .architecture import takes_any_size
from .errors import BackboneError

__all__ = ["centres_along", "check_fit", "check_stride", "grid_of", "resize_input"]

COUNTED = ("index", "pixel")


def check_stride(stride: int | None, patch: int) -> int:
    """Return the stride [pixels], the patch where it is None; raises BackboneError for one that leaves gaps or stands."""
    if stride is not None and not 1 <= stride <= patch:
        raise BackboneError(f"there is no stride {stride} for patches of {patch} pixels: give 1 to {patch}")
    return patch if stride is None else stride


def check_fit(size: tuple[int, int], patch: int, stride: int) -> tuple[int, int]:
    """Return ``size`` (height, width) [pixels] where patches at this stride cover it to the last pixel.

    Raises BackboneError naming the nearest size that they do cover, and the nearest stride for this one.
    """
    if all(side >= patch and (side - patch) % stride == 0 for side in size):
        return size
    near = "x".join(str(patch + max(0, round((side - patch) / stride)) * stride) for side in size)
    if stride == patch:
        raise BackboneError(f"the input size {size[0]}x{size[1]} is no multiple of the patch ({patch}): {near} is")
    told = f"patches of {patch} pixels at stride {stride} do not end with the input {size[0]}x{size[1]}: {near} fits"
    common = math.gcd(size[0] - patch, size[1] - patch)
    fitting = [step for step in range(1, patch + 1) if common % step == 0]
    if min(size) >= patch:
        told += f", or stride {min(fitting, key=lambda step: (abs(step - stride), -step))}"
    raise BackboneError(told)


def grid_of(size: tuple[int, int], patch: int, stride: int) -> tuple[int, int]:
    """Return how many patches (rows, columns) an input of (height, width) [pixels] has."""
    return (size[0] - patch) // stride + 1, (size[1] - patch) // stride + 1


def centres_along(count: int, side: int, patch: int, stride: int) -> Float[Tensor, " count"]:
    """Return the centres of ``count`` patches along a side of ``side`` pixels, as shares of it in (0, 1), float64."""
    return (torch.arange(count, dtype=torch.float64) * stride + patch / 2) / side


def resize_input(model: nn.Module, size: tuple[int, int], patch: int, stride: int, timm_name: str) -> None:
    """Set a model's input size (height, width) and stride [pixels], which fit each other.

    timm resamples its positions for patches side by side; overlapping patches then take theirs from between these, at
    ``j * stride / patch``, so that a patch has the same position whatever the stride. An input that is no whole number of
    patches is to its positions as if it went on to the next whole one. Raises BackboneError for what timm cannot resize.
    """
    whole = tuple(math.ceil(side / patch) * patch for side in size)
    embed: Any = model.patch_embed
    if stride != patch:
        check_overlap(model, patch, timm_name)
    if tuple(embed.img_size or ()) != whole:
        if not takes_any_size(model):
            own = "x".join(map(str, embed.img_size))
            raise BackboneError(f"{timm_name} takes no other input size than its own {own}")
        resized: Any = model if hasattr(model, "set_input_size") else embed
        resized.set_input_size(img_size=whole)
    if stride != patch:
        overlap(model, size, patch, stride)


def check_overlap(model: nn.Module, patch: int, timm_name: str) -> None:
    """Raise BackboneError where patches cannot overlap: no plain convolution, or positions that cannot be refined."""
    embed: Any = model.patch_embed
    plain = isinstance(embed.proj, nn.Conv2d) and embed.proj.kernel_size == embed.proj.stride == (patch, patch)
    rope: Any = getattr(model, "rope", None)
    turned = (
        rope is None or hasattr(rope, "periods") or hasattr(rope, "t_x") or getattr(rope, "grid_type", "") in COUNTED
    )
    biases: list[Any] = [module for module in model.modules() if getattr(module, "window_size", None) is not None]
    tabled = all(getattr(getattr(module, "relative_position_bias_table", None), "ndim", 0) == 2 for module in biases)
    if not (plain and turned and tabled and hasattr(model, "set_input_size")):
        raise BackboneError(f"{timm_name} takes no other stride than its patch ({patch})")


def overlap(model: nn.Module, size: tuple[int, int], patch: int, stride: int) -> None:
    """Let patches overlap, in a model already set to the same input with patches side by side."""
    embed: Any = model.patch_embed
    coarse, fine = embed.grid_size, grid_of(size, patch, stride)
    embed.proj.stride = (stride, stride)
    embed.img_size, embed.grid_size, embed.num_patches = size, fine, fine[0] * fine[1]
    embed.strict_img_size, embed.dynamic_img_pad = True, False  # timm's other checks know patches side by side only
    share = stride / patch
    learned: Any = getattr(model, "pos_embed", None)
    if learned is not None:
        prefix = learned.shape[1] - coarse[0] * coarse[1]
        places = tuple(torch.arange(n) * share for n in fine)
        patches = sample(learned[0, prefix:], coarse, places)
        model.pos_embed = frozen(torch.cat([learned[:, :prefix], patches[None]], dim=1))
    for module in model.modules():
        if hasattr(module, "set_window_size"):
            refine_bias(module, fine, share)
    if getattr(model, "rope", None) is not None:
        model.rope = refine_rope(model.rope, coarse, fine, share)


def refine_bias(module: Any, fine: tuple[int, int], share: float) -> None:
    """Take a table of relative positions (BEiT's) to the finer grid: the same bias at the same distance [pixels]."""
    coarse, table = module.window_size, getattr(module, "relative_position_bias_table", None)
    module.set_window_size(fine)
    if table is None or table.ndim != 2:
        return
    wide = tuple(2 * n - 1 for n in coarse)
    places = tuple(torch.arange(1 - n, n) * share + (old - 1) for n, old in zip(fine, coarse, strict=True))
    count = wide[0] * wide[1]
    distances = sample(table[:count], (wide[0], wide[1]), places)
    module.relative_position_bias_table = frozen(torch.cat([distances, table[count:]]))


def refine_rope(rope: Any, coarse: tuple[int, int], fine: tuple[int, int], share: float) -> nn.Module:
    """Return a rotary embedding for the finer grid, whose patches turn as far as their places between coarse ones say."""
    if hasattr(rope, "periods"):  # DINOv3: centres in [-1, 1]
        return FixedRope(centred_rope(rope, coarse, fine, share))
    if hasattr(rope, "freqs"):  # mixed frequencies: counted places
        rope.update_feat_shape(list(fine))
        rope.t_x, rope.t_y = rope.t_x * share, rope.t_y * share
        return rope  # type: ignore[no-any-return]
    if rope.grid_type == "index":  # EVA-02: counted places, scaled to those of pre-training
        reference = rope.ref_feat_shape or coarse
        sides = zip(reference, fine, coarse, strict=True)
        rope.ref_feat_shape = [old * n * share / whole for old, n, whole in sides]
        rope.grid_offset = rope.grid_offset / share
    rope.update_feat_shape(list(fine))  # a grid of pixels goes from the first patch to the last at any stride
    return rope  # type: ignore[no-any-return]


def centred_rope(rope: Any, coarse: tuple[int, int], fine: tuple[int, int], share: float) -> Tensor:
    """Return DINOv3's rotary embedding (patches, 2 dim) with each patch at its true centre."""
    total = {"max": (max(coarse),) * 2, "min": (min(coarse),) * 2}.get(rope.normalize_coords, coarse)
    axes = [(torch.arange(n) * share + 0.5 + rope.grid_offset) / all_ for n, all_ in zip(fine, total, strict=True)]
    places = torch.stack(torch.meshgrid(*axes, indexing="ij"), dim=-1).flatten(0, 1)
    if rope.grid_indexing == "xy":
        places = places.flip(-1)
    return torch.cat(rope._get_pos_embed_from_coords(2 * places - 1), dim=-1)


class FixedRope(nn.Module):
    """A rotary embedding (patches, 2 dim) computed once, in the place of timm's."""

    def __init__(self, embedding: Tensor) -> None:
        super().__init__()
        self.register_buffer("embedding", embedding, persistent=False)

    def get_embed(self, shape: object = None) -> Tensor:
        """Return it; ``shape``, which timm gives where the input size may vary, is that of the grid it was made for."""
        return self.embedding  # type: ignore[return-value]


def sample(
    values: Float[Tensor, "points channels"], grid: tuple[int, int], places: tuple[Tensor, ...]
) -> Float[Tensor, "finer channels"]:
    """Return values on a grid, read between its points at ``places`` (rows, columns) [grid steps]."""
    rows, columns = (cubic(place, n) for place, n in zip(places, grid, strict=True))
    found = torch.einsum("rh,cw,hwk->rck", rows, columns, values.detach().double().reshape(*grid, -1))
    return found.flatten(0, 1).to(values.dtype)


def cubic(places: Float[Tensor, " finer"], count: int) -> Float[Tensor, "finer count"]:
    """Return the weights of ``count`` points at ``places`` [steps] between them; points beyond the ends repeat the last.

    Cubic convolution with a = -1/2 (Keys 1981), which keeps straight lines straight; torch's bicubic kernel (-3/4) does not.
    """
    places = places.double()
    steps = torch.arange(-1, 3)
    near = places.floor().long()[:, None] + steps
    far = (places[:, None] - near).abs()
    inner, outer = 1.5 * far**3 - 2.5 * far**2 + 1, -0.5 * far**3 + 2.5 * far**2 - 4 * far + 2
    weights = torch.where(far <= 1, inner, outer)
    return weights.new_zeros(len(places), count).scatter_add_(1, near.clamp(0, count - 1), weights)


def frozen(values: Tensor) -> nn.Parameter:
    """Return a parameter that is not trained."""
    return nn.Parameter(values.detach().contiguous(), requires_grad=False)
