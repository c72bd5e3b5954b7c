"""Overlapping patches: what they see, where they lie, and that their positions fit."""

from typing import Any

import pytest
import timm
import torch
import torch.nn.functional as F
from torch import Tensor

from dvt import Backbone, BackboneError

CPU = torch.device("cpu")
FAMILIES: dict[str, tuple[str, dict[str, Any]]] = {
    "class token": ("vit_tiny_patch16_224", {}),
    "registers": ("vit_small_patch14_reg4_dinov2.lvd142m", {}),
    "no prefix tokens": ("vit_base_patch16_siglip_224", {"embed_dim": 96, "num_heads": 2}),
    "class token without position": ("deit3_small_patch16_224", {}),
    "norm before the blocks": ("vit_base_patch16_clip_224", {"embed_dim": 96, "num_heads": 2}),
    "any size": ("test_vit", {}),
    "I-JEPA": ("vit_huge_patch14_gap_224", {"embed_dim": 96, "num_heads": 2}),
    "rotary": ("eva02_tiny_patch14_224", {}),
    "rotary, from one": ("vit_pe_core_tiny_patch16_384", {}),
    "rotary, centred": ("vit_small_patch16_dinov3", {}),
    "rotary, gated": ("vit_huge_plus_patch16_dinov3", {"embed_dim": 96, "num_heads": 2}),
    "rotary, for dense features": ("vit_pe_spatial_base_patch16_512", {"embed_dim": 96, "num_heads": 2}),
    "rotary, mixed": ("vit_small_patch16_rope_mixed_ape_224", {}),
    "bias of distance": ("beit_base_patch16_224", {"embed_dim": 96, "num_heads": 2}),
}


def make(family: str, patches: tuple[int, int], parts: int = 1, **options: Any) -> Backbone:
    """A backbone of two random blocks over whole patches, its stride the patch divided by ``parts``."""
    name, shape = FAMILIES[family]
    patch = 14 if "14" in name else 16
    size = (patches[0] * patch, patches[1] * patch)
    return build(name, options.get("size", size), options.get("stride", patch // parts), **shape)


def build(name: str, size: tuple[int, int], stride: int | None, **shape: Any) -> Backbone:
    torch.manual_seed(0)
    model = timm.create_model(name, depth=2, num_classes=0, **shape)
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.1)
    return Backbone(name, model, "random", size, None, True, CPU, "float32", stride)


def picture(backbone: Backbone) -> Tensor:
    return torch.randn(1, 3, *backbone.input_size, generator=torch.Generator().manual_seed(1))


def entering(backbone: Backbone, x: Tensor) -> tuple[Tensor, Tensor]:
    """Patch tokens (H, W, C) and prefix tokens as they enter the first block."""
    seen: list[Tensor] = []
    handle = backbone.model.blocks[0].register_forward_pre_hook(lambda _module, given: seen.append(given[0]))
    backbone.forward(x)
    handle.remove()
    return seen[0][0, backbone.prefix_tokens :].reshape(*backbone.grid, -1), seen[0][0, : backbone.prefix_tokens]


@pytest.mark.parametrize("family", FAMILIES)
def test_a_patch_enters_with_the_same_pixels_and_position_at_any_stride(family: str) -> None:
    """Every second token at half the stride is a token at the full stride, in number and in place."""
    coarse, fine = make(family, (3, 4)), make(family, (3, 4), parts=2)
    assert (coarse.grid, fine.grid, fine.stride) == ((3, 4), (5, 7), coarse.patch // 2)
    x = picture(coarse)
    (few, prefix), (many, same) = entering(coarse, x), entering(fine, x)
    torch.testing.assert_close(many[::2, ::2], few, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(same, prefix)
    tokens, _ = fine.forward(x)
    assert tokens.shape == (1, 5, 7, fine.width)
    assert tokens.isfinite().all()
    assert coarse.weights_digest == fine.weights_digest


def test_tokens_are_the_pictures_own_windows_times_the_weights() -> None:
    for size, stride in (((48, 64), 8), ((54, 68), 2), ((37, 58), 7), ((48, 49), 1)):
        backbone = make("class token", (1, 1), size=size, stride=stride)
        conv = backbone.model.patch_embed.proj
        x = picture(backbone)
        windows = F.unfold(x, 16, stride=stride)
        expected = (conv.weight.flatten(1) @ windows[0] + conv.bias[:, None]).T
        found = backbone.model.patch_embed(x)[0]
        assert len(found) == backbone.grid[0] * backbone.grid[1] == windows.shape[-1]
        torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-4)


def test_shifted_pictures_interleave_to_the_finer_grid() -> None:
    coarse, fine = make("class token", (3, 3)), make("class token", (4, 4), parts=4)
    x = picture(fine)
    grid = fine.model.patch_embed(x).reshape(*fine.grid, -1)
    for top, left in ((0, 0), (4, 8), (12, 4)):
        shifted = coarse.model.patch_embed(x[..., top : top + 48, left : left + 48]).reshape(3, 3, -1)
        torch.testing.assert_close(grid[top // 4 :: 4, left // 4 :: 4][:3, :3], shifted, atol=1e-4, rtol=1e-4)


def rotation(backbone: Backbone) -> Tensor:
    model: Any = backbone.model
    whole = model.rope.get_embed(shape=backbone.grid) if model.dynamic_img_size else model.rope.get_embed()
    return whole.detach().unflatten(-2, backbone.grid)


@pytest.mark.parametrize("family", [name for name in FAMILIES if name.startswith("rotary")])
@pytest.mark.parametrize("parts", [2, 7])
def test_patches_turn_by_their_place(family: str, parts: int) -> None:
    stride = {2: None, 7: 2}[parts]
    patch = 14 if "14" in FAMILIES[family][0] else 16
    step = stride or patch // 2
    coarse, fine = make(family, (3, 5)), make(family, (3, 5), stride=step)
    few, many = rotation(coarse), rotation(fine)
    every = patch // step
    torch.testing.assert_close(many[..., ::every, ::every, :], few, atol=1e-5, rtol=1e-5)
    assert not torch.allclose(many[..., 1, 0, :], few[..., 1, 0, :], atol=1e-3)


def test_a_bias_of_distance_is_the_same_at_the_same_distance() -> None:
    coarse, fine = make("bias of distance", (3, 5)), make("bias of distance", (3, 5), parts=2)
    few, many = (b.model.blocks[0].attn._get_rel_pos_bias()[0].detach() for b in (coarse, fine))
    tokens = torch.arange(5 * 9).reshape(5, 9)[::2, ::2].flatten()
    kept = torch.cat([torch.zeros(1, dtype=torch.long), 1 + tokens])
    torch.testing.assert_close(many[:, kept][:, :, kept], few, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(("size", "stride"), [((112, 160), 4), ((104, 128), 8), ((110, 152), 2), ((112, 112), 16)])
def test_positions_stand_where_centres_says(size: tuple[int, int], stride: int) -> None:
    """The positions learned are planted as their own places: each patch then names its own."""
    torch.manual_seed(0)
    model = timm.create_model("vit_tiny_patch16_224", depth=1, num_classes=0)
    whole = [-(-side // 16) for side in size]
    model.set_input_size(img_size=(whole[0] * 16, whole[1] * 16))
    rows, columns = torch.meshgrid(*(torch.arange(n) * 16 + 8.0 for n in whole), indexing="ij")
    with torch.no_grad():
        model.pos_embed[0, 1:, 0], model.pos_embed[0, 1:, 1] = rows.flatten(), columns.flatten()
    backbone = Backbone("vit_tiny_patch16_224", model, "random", size, None, True, CPU, "float32", stride)
    named = backbone.model.pos_embed[0, 1:, :2].reshape(*backbone.grid, 2).double()
    expected = torch.meshgrid(*(c * s for c, s in zip(backbone.centres(), size, strict=True)), indexing="ij")
    inner = -(-16 // stride)  # at the border the bicubic kernel repeats the last value: no straight line there
    difference = (named - torch.stack(expected, -1))[inner:-inner, inner:-inner]
    assert difference.abs().max() < 1e-3  # [pixels]; taken for evenly spread, they would be some 4 off


def test_centres_are_middles_of_the_pixels_a_patch_sees() -> None:
    plain = make("registers", (3, 5))
    for centre, n in zip(plain.centres(), plain.grid, strict=True):
        assert centre.dtype == torch.float64
        assert torch.equal(centre, (torch.arange(n, dtype=torch.float64) + 0.5) / n)
    rows, columns = make("registers", (1, 1), size=(44, 59), stride=3).centres()
    pixels = torch.arange(59, dtype=torch.float64) + 0.5
    expected = pixels.unfold(0, 14, 3).mean(1) / 59
    torch.testing.assert_close(columns, expected)
    assert len(rows) == 11
    assert rows[0] == 7 / 44
    assert rows[-1] == 1 - 7 / 44


def test_the_recipe_holds_the_stride_and_is_as_before_without_overlap() -> None:
    plain, given, finer = (
        build("test_vit", (32, 48), None),
        build("test_vit", (32, 48), 16),
        build("test_vit", (32, 48), 8),
    )
    assert plain.recipe() == given.recipe()
    assert plain.recipe()["stride"] == 16
    assert finer.recipe() == plain.recipe() | {"stride": 8}


@pytest.mark.parametrize(
    ("name", "size", "stride", "words"),
    [
        ("test_vit", (32, 48), 17, "no stride 17 for patches of 16 pixels: give 1 to 16"),
        ("test_vit", (32, 48), 0, "no stride 0"),
        ("test_vit", (32, 48), 7, "at stride 7 do not end with the input 32x48: 30x51 fits, or stride 8$"),
        ("test_vit", (33, 64), 8, "32x64 fits, or stride 1$"),
        ("test_vit", (8, 64), 8, "16x64 fits$"),
        ("test_vit", (33, 64), None, "no multiple of the patch .16.: 32x64 is"),
        ("samvit_base_patch16_224", (224, 224), 8, "samvit_base_patch16_224 takes no other stride than its patch"),
        ("cait_xxs24_224", (112, 224), None, "no other input size than its own 224x224"),
    ],
)
def test_what_does_not_fit_is_told_with_what_would(name: str, size: Any, stride: int | None, words: str) -> None:
    with pytest.raises(BackboneError, match=words) as caught:
        build(name, size, stride)
    assert "\n" not in str(caught.value)
