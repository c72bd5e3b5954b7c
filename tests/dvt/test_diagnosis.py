"""Norms and shares of every block against tokens taken one layer at a time, and against what is planted."""

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm
import torch

from dvt import (
    Backbone,
    BackboneError,
    OutlierRule,
    diagnose,
    diagnose_maps,
    frequent_places,
    log_edges,
    position_share,
    spread_blocks,
    spread_of,
)
from dvt.preprocess import normalise, squash
from dvt.raw import as_tensor
from dvt.tokens import final_norm, prefix_names, tokens_after

CPU = torch.device("cpu")
FAMILIES: dict[str, tuple[str, tuple[int, int], dict[str, Any], tuple[str, ...]]] = {
    "class token": ("vit_tiny_patch16_224", (32, 48), {}, ("class",)),
    "registers": (
        "vit_small_patch14_reg4_dinov2.lvd142m",
        (28, 42),
        {},
        ("class", *(f"register {n}" for n in (1, 2, 3, 4))),
    ),
    "no prefix tokens": ("vit_base_patch16_siglip_224", (32, 48), {"embed_dim": 96, "num_heads": 2}, ()),
    "distilled": ("deit_tiny_distilled_patch16_224", (32, 48), {}, ("class", "distillation")),
    "rotary, registers": (
        "vit_small_patch16_dinov3",
        (32, 48),
        {},
        ("class", *(f"register {n}" for n in (1, 2, 3, 4))),
    ),
    "no norm of tokens": ("beit_base_patch16_224", (32, 48), {"embed_dim": 96, "num_heads": 2}, ("class",)),
    "windows and a neck": (
        "samvit_base_patch16_224",
        (224, 224),
        {"embed_dim": 48, "num_heads": 2, "neck_chans": 32},
        (),
    ),
    "class token joins later": ("cait_xxs24_224", (224, 224), {}, ()),
}


def make(family: str) -> Backbone:
    name, size, shape, _ = FAMILIES[family]
    torch.manual_seed(0)
    model = timm.create_model(name, depth=3, num_classes=0, **shape)
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.1)
    return Backbone(name, model, "random", size, None, True, CPU, "float32")


def photographs(count: int, seed: int = 0) -> list[tuple[np.ndarray, str]]:
    generator = np.random.default_rng(seed)
    return [(generator.integers(0, 256, (40, 50, 3), dtype=np.uint8), f"{number}") for number in range(count)]


@pytest.mark.parametrize("family", FAMILIES)
def test_the_final_norm_is_the_models_own_and_prefix_tokens_have_names(family: str) -> None:
    backbone = make(family)
    images = torch.randn(2, 3, *backbone.input_size, generator=torch.Generator().manual_seed(1))
    with torch.inference_mode():
        ((patches, prefix),) = tokens_after(backbone.model, images, [2], norm=False)
        norm = final_norm(backbone.model)
        assert (norm is None) == (family in ("no norm of tokens", "windows and a neck"))
        if norm is not None:
            ((normed, before),) = tokens_after(backbone.model, images, [2], norm=True)
            torch.testing.assert_close(norm(patches), normed)
            torch.testing.assert_close(norm(prefix), before)
    assert prefix_names(backbone.model, prefix.shape[1]) == FAMILIES[family][3]


def test_the_figures_are_those_of_the_tokens_whatever_the_batches() -> None:
    backbone = make("registers")
    images = photographs(5)
    batch = torch.stack([squash(as_tensor(pixels), backbone.input_size) for pixels, _ in images])
    with torch.inference_mode():
        pixels = normalise(batch, backbone.mean, backbone.std, CPU)
        tokens = [tokens_after(backbone.model, pixels, [layer], norm=False)[0] for layer in range(3)]
    counted = []
    found = diagnose(backbone, images, look=(), crops=2, batch_size=4, advance=counted.append)
    assert (found.images, found.crops, found.grid, sum(counted)) == (5, 10, (2, 3), 15)
    assert [(layer.name, layer.block, layer.normed) for layer in found.layers] == [
        ("0", 0, False), ("1", 1, False), ("2", 2, False), ("norm", 2, True)
    ]  # fmt: skip
    for layer, (patches, prefix) in zip(found.layers, tokens, strict=False):
        np.testing.assert_allclose(layer.norms, patches.norm(dim=-1).reshape(5, 2, 3), rtol=1e-4)
        np.testing.assert_allclose(layer.prefix_norms, prefix.norm(dim=-1), rtol=1e-4)
        assert layer.share_images == pytest.approx(position_share(patches.reshape(5, 2, 3, -1)), abs=1e-4)
        assert math.isfinite(layer.share_crops)
        assert math.isnan(layer.mic)
    one = diagnose(backbone, images, look=(), crops=2, batch_size=1)
    np.testing.assert_allclose(one.layers[3].norms, found.layers[3].norms, rtol=1e-4)
    assert one.layers[1].share_crops == pytest.approx(found.layers[1].share_crops, abs=1e-5)


def test_a_planted_outlier_is_found_where_it_is_and_hidden_by_the_norm() -> None:
    torch.manual_seed(0)
    model = timm.create_model("test_vit", num_classes=0)
    backbone = Backbone("test_vit", model, "random", (64, 64), None, True, CPU, "float32")
    with torch.no_grad():
        backbone.model.pos_embed[0, 1 + 2 * 4 + 3, ::2] += 90.0  # behind the class token: row 2, column 3
    found = diagnose(backbone, photographs(4), look=())
    rule = OutlierRule()
    for layer in found.layers[:-1]:
        assert [(place.row, place.column, place.share) for place in layer.places(rule)] == [(2, 3, 1.0)]
        assert layer.spread(rule).maximum > 10 * layer.spread(rule).median
        assert layer.share_images > 0.9
    assert found.layers[-1].normed
    assert not found.layers[-1].places(rule)


def test_the_mic_is_taken_of_the_blocks_looked_at() -> None:
    found = diagnose(make("class token"), photographs(2), look=(1,))
    assert [math.isnan(layer.mic) for layer in found.layers] == [True, False, True, False]
    assert 0 < found.mic_chance < 1
    with pytest.raises(BackboneError, match="no block 3: this backbone has blocks 0 to 2"):
        diagnose(make("class token"), photographs(1), look=(3,))
    with pytest.raises(BackboneError, match="no image"):
        diagnose(make("class token"), [])
    assert spread_blocks(12) == (2, 5, 8, 11)
    assert spread_blocks(3) == (0, 1, 2)
    assert spread_blocks(40)[-1] == 39


def test_stored_maps_tell_what_is_planted_in_them() -> None:
    """An artifact the same in all images, clean features of each image's own, and their sum."""
    generator = torch.Generator().manual_seed(0)
    artifact = torch.randn(6, 7, 64, generator=generator)
    artifact -= artifact.mean(dim=(0, 1))
    clean = [torch.randn(6, 7, 64, generator=generator) for _ in range(30)]
    found = diagnose_maps({"raw": one + artifact, "clean": one, "artifact": artifact} for one in clean)
    assert [layer.name for layer in found.layers] == ["raw", "clean", "artifact"]
    assert [layer.share_images for layer in found.layers] == pytest.approx([0.5, 0, 1], abs=0.03)
    assert found.layers[1].mic == pytest.approx(found.mic_chance, abs=0.04)
    assert (found.images, found.crops, found.prefix) == (30, 0, ())
    with pytest.raises(BackboneError, match="no image"):
        diagnose_maps([])


def test_an_outlier_is_what_the_rule_says() -> None:
    norms = np.ones((2, 3, 3), np.float32)
    norms[0, 0, 2], norms[1, 2, 1], norms[1, 0, 2] = 2.5, 40, 200
    by_median, absolute = OutlierRule(), OutlierRule(above=150.0)
    assert by_median.find(norms).sum(axis=(1, 2)).tolist() == [1, 2]
    assert absolute.find(norms).sum(axis=(1, 2)).tolist() == [0, 1]
    assert OutlierRule(times=3.0).find(norms * 1000).sum() == 2
    spread = spread_of(norms, by_median)
    assert (spread.minimum, spread.median, spread.maximum, spread.outliers, spread.images) == (1, 1, 200, 1.5, 1.0)
    assert spread_of(norms, absolute).images == 0.5
    places = [(place.row, place.column, place.share) for place in frequent_places(norms, by_median)]
    assert places == [(0, 2, 1.0), (2, 1, 0.5)]
    assert "150" in absolute.text
    assert "2 × the median" in by_median.text
    for wrong in ({"times": 1.0}, {"above": 0.0}):
        with pytest.raises(BackboneError, match="give"):
            OutlierRule(**wrong)


@pytest.mark.parametrize("norms", [[1.0, 5, 700], [0.0, 0.5, 700], [3.0, 3, 3], [0.0, 0, 0]])
def test_every_token_is_in_the_histogram(norms: list[float]) -> None:
    values = np.array(norms)
    edges = log_edges([values], 10)
    assert len(edges) == 11
    assert (np.diff(edges) > 0).all()
    assert np.histogram(values, edges)[0].sum() == 3


def test_the_corners_of_a_trained_vit_are_outliers_hidden_by_its_norm(shared: Path) -> None:
    """ViT-Ti/16: `shared/data/SOURCES.md` tells of them, median and largest norm 20 and 537 before the final norm."""
    from featstore.images import decode

    weights = shared / "data" / "weights" / "vit_tiny_patch16_224-tinyimagenet.safetensors"
    files = sorted((shared / "data" / "coco-voc" / "VOCdevkit" / "VOC2012" / "JPEGImages").glob("*.jpg"))[:12]
    backbone = Backbone.create("vit_tiny_patch16_224", weights=weights, input_size=(224, 224), device="cpu")
    found = diagnose(backbone, ((decode(file.read_bytes()), file.name) for file in files), look=())
    rule = OutlierRule()
    last, normed = found.layers[11], found.layers[12]
    corners = {(place.row, place.column) for place in last.places(rule) if place.share > 0.8}
    assert corners == {(0, 0), (0, 13), (13, 0), (13, 13)}
    assert last.spread(rule).median == pytest.approx(20, abs=1.5)
    assert last.spread(rule).maximum == pytest.approx(537, abs=30)
    assert last.share_images > 0.7
    assert not found.layers[3].places(rule)
    assert not normed.places(rule)
    assert normed.share_images < 0.1
