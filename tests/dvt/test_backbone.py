import time
from typing import Any

import pytest
import timm
import torch

from dvt import Backbone, BackboneError, HubError, backbone_id, resolve
from dvt.aliases import ALIASES

CPU = torch.device("cpu")
FAMILIES = {
    "class token": "vit_tiny_patch16_224",
    "four registers": "vit_small_patch14_reg4_dinov2.lvd142m",
    "layer scale, no class position": "deit3_small_patch16_224.fb_in1k",
    "rotary": "eva02_tiny_patch14_224.mim_in22k",
    "no prefix tokens": "vit_base_patch16_siglip_224",
}


def make(name: str, size: tuple[int, int], **options: Any) -> Backbone:
    torch.manual_seed(0)
    model = timm.create_model(name, depth=2, num_classes=0)
    return Backbone(name, model, "random", size, options.get("layer"), options.get("norm", True), CPU, "float32")


@pytest.mark.parametrize("name", FAMILIES.values(), ids=FAMILIES)
@pytest.mark.parametrize("patches", [(3, 3), (2, 5)])
def test_tokens_are_those_of_timms_own_forward(name: str, patches: tuple[int, int]) -> None:
    patch = 14 if "14" in name else 16
    backbone = make(name, (patches[0] * patch, patches[1] * patch))
    x = torch.randn(2, 3, *backbone.input_size, generator=torch.Generator().manual_seed(1))
    tokens, prefix = backbone.forward(x)
    with torch.inference_mode():
        every = backbone.model.forward_features(x)
    assert tokens.shape == (2, *patches, backbone.width)
    count = backbone.model.num_prefix_tokens
    assert backbone.prefix_tokens == prefix.shape[1] == count
    torch.testing.assert_close(tokens.flatten(1, 2), every[:, count:], atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(prefix, every[:, :count], atol=1e-5, rtol=1e-5)


def test_tokens_stand_row_by_row_from_the_top_left() -> None:
    """One patch is changed; before attention mixes tokens, only its own token differs."""
    backbone = make("vit_tiny_patch16_224", (48, 64), norm=False)
    plain = torch.zeros(1, 3, 48, 64)
    marked = plain.clone()
    marked[:, :, 16:32, 48:64] = 1.0
    embed = backbone.model.patch_embed
    changed = (embed(plain) - embed(marked)).abs().sum(-1).reshape(3, 4) > 0
    assert changed.nonzero().tolist() == [[1, 3]]
    difference = (backbone.forward(plain)[0] - backbone.forward(marked)[0]).norm(dim=-1)[0]
    assert divmod(int(difference.argmax()), 4) == (1, 3)


def test_layer_and_norm_choose_what_is_taken() -> None:
    size = (32, 32)
    x = torch.randn(1, 3, *size, generator=torch.Generator().manual_seed(1))
    plain, normed = make("vit_tiny_patch16_224", size, norm=False), make("vit_tiny_patch16_224", size)
    first = make("vit_tiny_patch16_224", size, layer=0, norm=False)
    with torch.inference_mode():
        expected = plain.model.norm(plain.forward(x)[0])
    torch.testing.assert_close(normed.forward(x)[0], expected)
    assert not torch.allclose(first.forward(x)[0], plain.forward(x)[0], atol=1e-2)
    assert (first.recipe()["layer"], plain.recipe()["layer"]) == (0, 1)


def test_recipe_tells_apart_what_decides_the_numbers() -> None:
    recipes = [make("vit_tiny_patch16_224", (32, 32), **options).recipe() for options in ({}, {}, {"norm": False})]
    assert recipes[0] == recipes[1] != recipes[2]
    assert recipes[0]["weights"] == recipes[2]["weights"]


def test_random_weights_follow_their_seed_and_leave_the_callers_state() -> None:
    torch.manual_seed(5)
    expected = torch.rand(1)
    torch.manual_seed(5)
    digests = [
        Backbone.create("vit_tiny_patch16_224", weights="random", seed=seed, input_size=(32, 32)).weights_digest
        for seed in (0, 0, 1)
    ]
    assert digests[0] == digests[1] != digests[2]
    assert torch.equal(torch.rand(1), expected)


def test_aliases_are_timm_models_and_name_their_folders() -> None:
    for alias, name in ALIASES.items():
        assert resolve(alias) == name
        assert name in timm.list_pretrained() or timm.get_pretrained_cfg(name) is not None
        assert backbone_id(name) == alias
    assert len(set(ALIASES.values())) == len(ALIASES)


@pytest.mark.parametrize(
    ("name", "options", "words"),
    [
        ("dinov2_x", {}, "did you mean dinov2"),
        ("resnet18", {}, "no grid of patch tokens"),
        ("vit_tiny_patch16_224", {"input_size": (30, 32)}, "32x32 is"),
        ("vit_tiny_patch16_224", {"layer": 12}, "layers 0 to 11"),
        ("vit_tiny_patch16_224", {"layer": -13}, "layers 0 to 11"),
        ("vit_tiny_patch16_224", {"device": "cuda:99"}, "no device 'cuda:99'"),
        ("vit_tiny_patch16_224", {"device": "abacus"}, "no device 'abacus'"),
        ("vit_tiny_patch16_224", {"dtype": "float8"}, "unknown dtype"),
    ],
)
def test_wrong_choices_say_what_would_be_right(name: str, options: dict[str, Any], words: str) -> None:
    with pytest.raises(BackboneError, match=words) as caught:
        Backbone.create(name, weights="random", **options)
    assert "\n" not in str(caught.value)


def test_without_hub_and_file_one_line_says_what_to_do_and_soon() -> None:
    started = time.monotonic()
    with pytest.raises(HubError, match=r"not cached and the hub cannot be reached.*--weights FILE"):
        Backbone.create("dinov2_b")
    assert time.monotonic() - started < 20


def test_another_input_size_resamples_the_weights_as_they_were_given() -> None:
    large = Backbone.create("test_vit", weights="random", input_size=(96, 96), device="cpu")
    small = Backbone.create("test_vit", weights="random", input_size=(64, 48), device="cpu")
    again = large.resized((64, 48))
    assert again.weights_digest == small.weights_digest
    image = torch.randn(1, 3, 64, 48, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(again.forward(image)[0], small.forward(image)[0], atol=0, rtol=0)
