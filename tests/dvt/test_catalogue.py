"""The facts of backbones: against timm's own models, made the ordinary way, and against backbones that compute."""

import re
from pathlib import Path
from typing import Any

import huggingface_hub.constants
import pytest
import timm
import torch

from dvt import BackboneError, describe_backbone, find_backbones
from dvt.aliases import ALIASES
from dvt.architecture import outline
from dvt.backbone import Backbone
from dvt.catalogue import weights_at_hand

TABLE = Path(__file__).parents[2] / "docs" / "backbones.md"
PAPER = ("mae_b", "dino_b", "dinov2_b", "dinov2_b_reg", "deit3_b", "eva02_b", "clip_b_384", "augreg_b_384")


def test_every_alias_has_weights_in_timm_and_facts_that_are_its() -> None:
    facts = {found.alias: found for found in find_backbones()}
    assert list(facts) == list(ALIASES)
    pretrained = set(timm.list_pretrained())
    for alias, found in facts.items():
        assert found.timm_name == ALIASES[alias] in pretrained
        config = timm.get_pretrained_cfg(found.timm_name)
        assert (found.licence, found.native) == (config.license, tuple(config.input_size[1:]))
        assert (found.mean, found.std, found.interpolation) == (config.mean, config.std, config.interpolation)
        assert f"patch{found.patch}" in found.timm_name
        assert found.default == (found.native if alias.startswith("sam") else side_of(found.patch))
        assert found.grid == tuple(side // found.patch for side in found.default)


def side_of(patch: int) -> tuple[int, int]:
    """The paper's input sizes, and the nearest multiple of 8 beyond them."""
    side = {14: 518, 16: 512, 8: 520}[patch]
    return side, side


# as their authors' papers and model cards have them: width, depth, prefix tokens, parameters in millions
PUBLISHED = {
    "dinov2_s": (384, 12, 1, 22),
    "dinov2_g_reg": (1536, 40, 5, 1136),
    "dinov3_s": (384, 12, 5, 22),
    "dinov3_h_plus": (1280, 32, 5, 841),
    "dinov3_7b": (4096, 40, 5, 6716),
    "dino_b8": (768, 12, 1, 86),
    "mae_h": (1280, 32, 1, 631),
    "clip_l": (1024, 24, 1, 303),
    "siglip_so400m": (1152, 27, 0, 428),
    "ijepa_h": (1280, 32, 0, 631),
    "sam_h": (256, 32, 0, 637),
    "beitv2_l": (1024, 24, 1, 303),
}


@pytest.mark.parametrize("alias", PUBLISHED)
def test_facts_are_those_published(alias: str) -> None:
    found = describe_backbone(ALIASES[alias])
    millions = round(found.parameters / 1e6)
    assert (found.width, found.depth, found.prefix_tokens, millions) == PUBLISHED[alias]


@pytest.mark.parametrize("name", ["vit_dpwee_patch16_reg1_gap_256.sbb_in1k", "eva02_tiny_patch14_224.mim_in22k"])
def test_facts_are_those_of_a_backbone_that_computes(name: str) -> None:
    found = describe_backbone(name)
    backbone = Backbone.create(name, weights="random", device="cpu", input_size=(2 * found.patch, 2 * found.patch))
    assert (found.patch, found.width, found.depth) == (backbone.patch, backbone.width, backbone.depth)
    assert (found.prefix_tokens, found.any_size) == (backbone.prefix_tokens, True)
    assert (found.mean, found.std, found.interpolation) == (backbone.mean, backbone.std, backbone.interpolation)
    assert found.parameters == sum(p.numel() for p in timm.create_model(name, num_classes=0).parameters())


@pytest.mark.parametrize("name", ["vit_small_patch16_dinov3", "samvit_base_patch16", "beit_base_patch16_224"])
def test_an_outline_has_the_shapes_of_the_model(name: str) -> None:
    expected = timm.create_model(name, num_classes=0).state_dict()
    found = outline(name).state_dict()
    assert {key: value.shape for key, value in found.items()} == {key: value.shape for key, value in expected.items()}
    assert all(value.is_meta for value in found.values())


def test_weights_of_the_hub_are_found_in_its_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path / "torch"))
    dino, ijepa = ALIASES["dino_b"], ALIASES["ijepa_h"]
    assert (weights_at_hand(dino), weights_at_hand(ijepa)) == (None, None)
    repository = tmp_path / f"models--timm--{dino}"
    for file, text in (("refs/main", "0" * 40), (f"snapshots/{'0' * 40}/model.safetensors", "")):
        (repository / file).parent.mkdir(parents=True)
        (repository / file).write_text(text)
    (tmp_path / "torch" / "checkpoints").mkdir(parents=True)
    (tmp_path / "torch" / "checkpoints" / "IN1K-vit.h.14-300e.pth.tar").touch()  # which is not on the hub
    assert (weights_at_hand(dino), weights_at_hand(ijepa)) == ("hub cache", "hub cache")


@pytest.mark.parametrize(
    ("pattern", "options", "expected"),
    [
        ("dinov2_s", {}, ["dinov2_s", "dinov2_s_reg"]),
        ("patch8", {}, ["dino_s8", "dino_b8"]),
        ("sam_*", {}, ["sam_b", "sam_l", "sam_h"]),
        ("eva02_tiny*", {"every": True}, ["eva02_t", None]),
    ],
)
def test_a_pattern_chooses(pattern: str, options: dict[str, Any], expected: list[str | None]) -> None:
    assert [found.alias for found in find_backbones(pattern, **options)] == expected


def test_what_nothing_is_called_like_is_told() -> None:
    with pytest.raises(BackboneError, match="no backbone is called like 'nonsense'; --all looks through all of timm"):
        find_backbones("nonsense")
    with pytest.raises(BackboneError, match=r"no backbone is called like 'efficientvit_m'$"):
        find_backbones("efficientvit_m", every=True)  # which has no grid of patches


def test_all_that_the_paper_shows_has_an_alias() -> None:
    assert set(PAPER) <= set(ALIASES)


def test_the_pages_table_names_aliases_that_are_there() -> None:
    lines = [line for line in TABLE.read_text(encoding="utf-8").splitlines() if line.startswith("|") and "`_" in line]
    assert len(lines) > 8
    for line in lines:
        stem = ""
        for word in re.findall(r"`(\w+)`", line.split("|")[2]):
            stem = stem if word.startswith("_") else word
            ends = [f"{stem[:cut]}{word}" for cut in range(len(stem), 2, -1)] if word.startswith("_") else [word]
            assert any(end in ALIASES for end in ends), (line, word)
