"""Every alias, with two narrow blocks of random weights: tokens, prefix tokens, places and pixels against timm's own."""

import sys
from typing import Any

import pytest
import timm
import torch
import torch.nn.functional as F
from timm.data import resolve_model_data_config
from torch import Tensor

from dvt import Backbone
from dvt.aliases import ALIASES
from dvt.preprocess import normalise, squash

CPU = torch.device("cpu")
NARROW = {"embed_dim": 48, "num_heads": 2, "depth": 2}
OTHERS = {"samvit": {"neck_chans": 24, "global_attn_indexes": (1,), "img_size": 512}}
ROWS, COLUMNS = 3, 2


def make(alias: str, patches: tuple[int, int] = (ROWS, COLUMNS), norm: bool = True) -> Backbone:
    name = ALIASES[alias]
    torch.manual_seed(0)
    model = timm.create_model(name, num_classes=0, **NARROW, **OTHERS.get(name.split("_")[0], {}))
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    patch = model.patch_embed.patch_size[0]
    size = (patches[0] * patch, patches[1] * patch)
    return Backbone(name, model, "random", size, None, norm, CPU, "float32")


def picture(backbone: Backbone) -> Tensor:
    return torch.randn(1, 3, *backbone.input_size, generator=torch.Generator().manual_seed(1))


def as_tokens(features: Tensor) -> Tensor:
    """timm's features as (N, tokens, C); SAM's come as (N, C, rows, columns)."""
    return features.flatten(2).transpose(1, 2) if features.ndim == 4 else features


def entering(backbone: Backbone, x: Tensor) -> Tensor:
    """The patch tokens (rows * columns, C) as they enter the first block."""
    seen: list[Tensor] = []
    handle = backbone.model.blocks[0].register_forward_pre_hook(lambda _module, given: seen.append(given[0]))
    backbone.forward(x)
    handle.remove()
    return seen[0].flatten(1, -2)[0, backbone.prefix_tokens :]


@pytest.mark.parametrize("alias", ALIASES)
def test_every_alias_gives_timms_own_tokens_in_their_places(alias: str) -> None:
    backbone = make(alias)
    assert (backbone.id, backbone.grid) == (alias, (ROWS, COLUMNS))
    x = picture(backbone)
    tokens, prefix = backbone.forward(x)
    with torch.inference_mode():
        every = as_tokens(backbone.model.forward_features(x))
    count = every.shape[1] - ROWS * COLUMNS
    assert (tokens.shape, prefix.shape[1]) == ((1, ROWS, COLUMNS, every.shape[2]), count)
    assert backbone.prefix_tokens == count == getattr(backbone.model, "num_prefix_tokens", 0)
    torch.testing.assert_close(torch.cat([prefix, tokens.flatten(1, 2)], 1), every, atol=1e-4, rtol=1e-4)

    row, column = 1, 0
    marked, patch = x.clone(), backbone.patch
    marked[..., row * patch : (row + 1) * patch, column * patch : (column + 1) * patch] += 1.0
    changed = (entering(backbone, marked) - entering(backbone, x)).abs().sum(-1).reshape(ROWS, COLUMNS) > 1e-4
    assert changed.nonzero().tolist() == [[row, column]]


@pytest.mark.parametrize("alias", ALIASES)
def test_pixels_are_prepared_as_the_model_was_trained(alias: str) -> None:
    """timm's own answer to what a model's input is; and the arithmetic, on grey levels."""
    model = timm.create_model(ALIASES[alias], num_classes=0, **NARROW, **OTHERS.get(ALIASES[alias].split("_")[0], {}))
    told: dict[str, Any] = resolve_model_data_config(model)
    size = None if alias.startswith("sam") else (model.patch_embed.patch_size[0],) * 2
    recipe = Backbone(ALIASES[alias], model, "random", size, None, True, CPU, "float32").recipe()
    assert (recipe["mean"], recipe["std"]) == (list(told["mean"]), list(told["std"]))
    assert recipe["interpolation"] == told["interpolation"]
    grey = torch.tensor([0, 128, 255], dtype=torch.uint8).reshape(3, 1, 1).expand(3, 4, 4)
    found = normalise(squash(grey, (2, 2), recipe["interpolation"])[None], recipe["mean"], recipe["std"], CPU)
    expected = [(level / 255 - m) / s for level, m, s in zip((0, 128, 255), told["mean"], told["std"], strict=True)]
    torch.testing.assert_close(found[0, :, 0, 0], torch.tensor(expected))


@pytest.mark.parametrize(
    "alias", ["dinov3_b", "eva02_b", "pe_spatial_b", "beitv2_b", "siglip_b", "ijepa_h", "dinov2_b_reg"]
)
def test_another_input_size_is_timms_model_made_for_it(alias: str) -> None:
    """Positions, rotary grids and tables of distance: timm's model created at that size, its way of taking weights over."""
    name = ALIASES[alias]
    torch.manual_seed(0)
    native = timm.create_model(name, num_classes=0, **NARROW)
    for parameter in native.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    size = (5 * native.patch_embed.patch_size[0], 3 * native.patch_embed.patch_size[1])
    made = timm.create_model(name, num_classes=0, img_size=size, **NARROW).eval()
    take_over = vars(sys.modules[type(made).__module__])["checkpoint_filter_fn"]
    made.load_state_dict(take_over({key: value.clone() for key, value in native.state_dict().items()}, made))
    backbone = Backbone(name, native, "random", size, None, True, CPU, "float32")
    x = picture(backbone)
    with torch.inference_mode():
        expected = made.forward_features(x)
    tokens, prefix = backbone.forward(x)
    torch.testing.assert_close(torch.cat([prefix, tokens.flatten(1, 2)], 1), expected, atol=1e-4, rtol=1e-4)


def test_sam_at_another_size_is_timms_model_made_for_it() -> None:
    """A table of places is resampled, in the global blocks those of distance as well; windows stay as they are."""
    shape, size = NARROW | {"neck_chans": 24, "global_attn_indexes": (1,)}, (17 * 16, 5 * 16)
    torch.manual_seed(0)
    native = timm.create_model("samvit_base_patch16", num_classes=0, **shape)
    for parameter in native.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    made = timm.create_model("samvit_base_patch16", num_classes=0, img_size=size, **shape).eval()
    state = {key: value.clone() for key, value in native.state_dict().items()}
    for key, own in made.state_dict().items():
        if key == "pos_embed":
            table = F.interpolate(state[key].permute(0, 3, 1, 2), (17, 5), mode="bicubic", antialias=True)
            state[key] = table.permute(0, 2, 3, 1)
        elif state[key].shape != own.shape:
            assert key.startswith("blocks.1.attn.rel_pos_")
            state[key] = F.interpolate(state[key].T[None], len(own), mode="linear")[0].T
    made.load_state_dict(state)
    backbone = Backbone("samvit_base_patch16", native, "random", size, None, True, CPU, "float32")
    x = picture(backbone)
    with torch.inference_mode():
        expected = made.forward_features(x)
    torch.testing.assert_close(backbone.forward(x)[0], expected.permute(0, 2, 3, 1))
    assert (backbone.grid, backbone.width) == ((17, 5), 24)
