"""Every layer, with and without the norm, against blocks run by hand."""

from typing import Any

import pytest
import timm
import torch
import torch.nn.functional as F
from torch import Tensor

from dvt import Backbone

CPU = torch.device("cpu")
DEPTH = 3
FAMILIES: dict[str, tuple[str, tuple[int, int], dict[str, Any]]] = {
    "class token": ("vit_tiny_patch16_224", (32, 48), {}),
    "registers": ("vit_small_patch14_reg4_dinov2.lvd142m", (28, 42), {}),
    "no prefix tokens": ("vit_base_patch16_siglip_224", (32, 48), {"embed_dim": 96, "num_heads": 2}),
    "distilled": ("deit_tiny_distilled_patch16_224", (32, 48), {}),
    "class token without position": ("deit3_small_patch16_224", (32, 48), {}),
    "norm before the blocks": ("vit_base_patch16_clip_224", (32, 48), {"embed_dim": 96, "num_heads": 2}),
    "rotary": ("eva02_tiny_patch14_224", (28, 42), {}),
    "rotary, centred, registers": ("vit_small_patch16_dinov3", (32, 48), {}),
    "rotary, gated": ("vit_huge_plus_patch16_dinov3_qkvb", (48, 32), {"embed_dim": 48, "num_heads": 2}),
    "rotary, for dense features": ("vit_pe_spatial_base_patch16_512", (32, 48), {"embed_dim": 48, "num_heads": 2}),
    "rotary, mixed": ("vit_small_patch16_rope_mixed_224", (32, 48), {}),
    "bias of distance": ("beit_base_patch16_224", (32, 48), {"embed_dim": 96, "num_heads": 2}),
    "I-JEPA": ("vit_huge_patch14_gap_224", (28, 42), {"embed_dim": 48, "num_heads": 2}),
    "windows, sizes that are none of theirs": (
        *("samvit_base_patch16", (256, 80)),
        {"embed_dim": 48, "num_heads": 2, "neck_chans": 32, "global_attn_indexes": (1,)},
    ),
    "bias of distance, no prefix tokens": ("test_vit_relpos", (32, 48), {}),
    "windows and a neck": ("samvit_base_patch16_224", (224, 224), {"embed_dim": 48, "num_heads": 2, "neck_chans": 32}),
    "class token joins later": ("cait_xxs24_224", (224, 224), {}),
}


def make(family: str, layer: int | None, norm: bool) -> Backbone:
    name, size, shape = FAMILIES[family]
    torch.manual_seed(0)
    model = timm.create_model(name, depth=DEPTH, num_classes=0, **shape)
    for parameter in model.parameters():  # timm starts biases and layer scales at 0 or 1: nothing would tell them apart
        torch.nn.init.normal_(parameter, std=0.1)
    return Backbone(name, model, "random", size, layer, norm, CPU, "float32")


def by_hand(model: Any, x: Tensor, layer: int, norm: bool) -> Tensor:
    """The tokens after ``layer``: embedding, positions, blocks and norm, written out for each class of timm's."""
    kind, last = type(model).__name__, model.norm if hasattr(model, "norm") else None
    x, options = model.patch_embed(x), [{} for _ in model.blocks]
    if kind == "Beit":
        x = torch.cat([model.cls_token.expand(len(x), -1, -1), x], dim=1)
        x = x if model.pos_embed is None else x + model.pos_embed
    elif kind == "VisionTransformerSAM":
        if model.pos_embed is not None:  # a table of the pretraining's grid
            table = model.pos_embed.permute(0, 3, 1, 2)
            x = x + F.interpolate(table, x.shape[1:3], mode="bicubic", antialias=True).permute(0, 2, 3, 1)
        x, last = model.norm_pre(x), lambda tokens: model.neck(tokens.permute(0, 3, 1, 2)).permute(0, 2, 3, 1)
    elif kind == "Cait":
        x = x + model.pos_embed
    elif kind == "Eva":
        x, rope = model._pos_embed(x)
        x = model.norm_pre(x)
        options = [{"rope": rope[i] if model.rope_mixed else rope} for i in range(DEPTH)]
    elif kind != "VisionTransformerRelPos":
        x = model.norm_pre(model._pos_embed(x))
    for block, given in list(zip(model.blocks, options, strict=True))[: layer + 1]:
        x = block(x, **given)
    x = last(x) if norm else x
    return x.flatten(1, -2)


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("norm", [True, False], ids=["norm", "no norm"])
def test_every_layer_equals_blocks_run_by_hand(family: str, norm: bool) -> None:
    backbone = make(family, 0, norm)
    x = torch.randn(2, 3, *backbone.input_size, generator=torch.Generator().manual_seed(1))
    for layer in range(DEPTH):
        backbone.layer = layer
        tokens, prefix = backbone.forward(x)
        with torch.inference_mode():
            expected = by_hand(backbone.model, x, layer, norm)
        assert expected.std() > 1e-3
        torch.testing.assert_close(torch.cat([prefix, tokens.flatten(1, 2)], 1), expected, atol=1e-4, rtol=1e-4)


def test_negative_layers_count_from_the_end_and_are_named_by_their_place() -> None:
    recipes = [make("class token", layer, True).recipe() for layer in (-1, None, DEPTH - 1, -DEPTH, 0)]
    assert recipes[0] == recipes[1] == recipes[2]
    assert recipes[3] == recipes[4]
    assert recipes[0]["layer"] == DEPTH - 1


@pytest.mark.parametrize("family", ["class token", "rotary", "bias of distance"])
def test_attention_is_fused_unless_timm_is_told_otherwise(family: str) -> None:
    backbone = make(family, None, True)
    assert backbone.fused_attention
    x = torch.randn(1, 3, *backbone.input_size, generator=torch.Generator().manual_seed(1))
    fused = backbone.forward(x)[0]
    for block in backbone.model.blocks:
        block.attn.fused_attn = False
    torch.testing.assert_close(backbone.forward(x)[0], fused, atol=1e-4, rtol=1e-4)
