"""Checkpoints in transformers' format: features as transformers' own models gave them (see support/transformers_golden.py)."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm
import torch
from numpy.typing import NDArray
from safetensors.torch import save_file
from torch import Tensor, nn
from transformers_golden import CASES, TIMM, picture, reference, weights

from dvt import Backbone, WeightsError
from dvt.aliases import ALIASES
from dvt.architecture import outline
from dvt.checkpoint import Checkpoint, read_checkpoint
from dvt.keys import from_hugging_face
from dvt.weights import load_strictly

GOLDEN = Path(__file__).parents[1] / "data" / "transformers.npz"
CPU = torch.device("cpu")
CLOSE = 2e-5  # float32; transformers' ViT adds 1e-12 to variances, timm's 1e-6


def golden(case: str) -> tuple[dict[str, Any], dict[str, Tensor], NDArray[np.float32], NDArray[np.float32]]:
    """The configuration, the tensors, and the hidden states after the first block and at the end."""
    with np.load(GOLDEN) as file:
        told = json.loads(str(file[case]))
        return told["config"], weights(told["shapes"]), file[f"{case}/first"], file[f"{case}/last"]


def saved(folder: Path, config: dict[str, Any] | None, state: dict[str, Tensor], shards: int = 1) -> Path:
    """A checkpoint as save_pretrained leaves it."""
    folder.mkdir()
    if config is not None:
        (folder / "config.json").write_text(json.dumps(config))
    if shards == 1:
        save_file(state, folder / "model.safetensors")
        return folder
    names = [f"model-{n + 1:05d}-of-{shards:05d}.safetensors" for n in range(shards)]
    placed = {key: names[n % shards] for n, key in enumerate(sorted(state))}
    for name in names:
        save_file({key: value for key, value in state.items() if placed[key] == name}, folder / name)
    (folder / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": placed}))
    return folder


def small(case: str) -> nn.Module:
    _, _, name, options, _ = CASES[case]
    return timm.create_model(name, num_classes=0, **TIMM, **options)


def features(model: nn.Module, case: str, layer: int, norm: bool) -> NDArray[np.float32]:
    _, _, name, _, size = CASES[case]
    tokens, prefix = Backbone(name, model, "file", size, layer, norm, CPU, "float32").forward(picture(size))
    return torch.cat([prefix, tokens.flatten(1, 2)], dim=1).numpy()


@pytest.mark.parametrize("case", CASES)
def test_features_are_those_of_transformers(case: str, tmp_path: Path) -> None:
    config, state, first, last = golden(case)
    read_checkpoint(saved(tmp_path / "c", config, state)).load(model := small(case), CASES[case][2])
    np.testing.assert_allclose(features(model, case, 0, norm=False), first, atol=CLOSE, rtol=CLOSE)
    normed = case != "clip"  # which norms the class token alone
    np.testing.assert_allclose(features(model, case, -1, norm=normed), last, atol=CLOSE, rtol=CLOSE)
    assert last.std() > 0.05


@pytest.mark.parametrize("case", CASES)
def test_the_golden_file_is_what_transformers_computes(case: str) -> None:
    pytest.importorskip("transformers")
    kind, options, _, _, size = CASES[case]
    found = reference(kind, options, size)
    config, _, first, last = golden(case)
    assert found["config"] == config
    np.testing.assert_allclose(found["first"], first, atol=1e-6)
    np.testing.assert_allclose(found["last"], last, atol=1e-6)


LAYOUTS: dict[str, Callable[[dict[str, Tensor]], dict[str, Tensor]]] = {
    "with its head": lambda s: {f"dinov2.{k}": v for k, v in s.items()} | {"classifier.weight": torch.ones(2, 32)},
    "in half": lambda s: {k: v.half() for k, v in s.items()},
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_the_same_tensors_come_in_several_layouts(layout: str, tmp_path: Path) -> None:
    config, state, _, last = golden("dinov2")
    file = saved(tmp_path / "c", config, LAYOUTS[layout](state)) / "model.safetensors"
    read_checkpoint(file).load(model := small("dinov2"), CASES["dinov2"][2])
    found = features(model, "dinov2", -1, norm=True)
    np.testing.assert_allclose(found, last, atol=CLOSE if layout == "with its head" else 0.01)


def test_shards_are_one_checkpoint(tmp_path: Path) -> None:
    config, state, _, last = golden("dinov3")
    folder = saved(tmp_path / "c", config, state, shards=3)
    read_checkpoint(folder).load(model := small("dinov3"), CASES["dinov3"][2])
    np.testing.assert_allclose(features(model, "dinov3", -1, norm=True), last, atol=CLOSE, rtol=CLOSE)
    (folder / "model-00002-of-00003.safetensors").unlink()
    with pytest.raises(WeightsError, match=r"no weights file .*model-00002-of-00003.safetensors"):
        read_checkpoint(folder)


def test_layers_of_dinov3_may_lie_under_a_prefix_of_their_own(tmp_path: Path) -> None:
    """As the model names them in memory; save_pretrained takes the prefix off."""
    config, state, _, last = golden("dinov3")
    moved = {f"model.{key}" if key.startswith("layer.") else key: value for key, value in state.items()}
    read_checkpoint(saved(tmp_path / "c", config, moved)).load(model := small("dinov3"), CASES["dinov3"][2])
    np.testing.assert_allclose(features(model, "dinov3", -1, norm=True), last, atol=CLOSE, rtol=CLOSE)


def test_a_model_with_text_gives_its_vision_part(tmp_path: Path) -> None:
    config, state, _, last = golden("clip")
    both = {f"vision_model.{key}": value for key, value in state.items()}
    both |= {f"text_model.encoder.layers.{n}.mlp.fc1.bias": torch.zeros(4) for n in range(60)}
    folder = saved(
        tmp_path / "c", {"model_type": "clip", "vision_config": config}, both | {"logit_scale": torch.ones(1)}
    )
    read_checkpoint(folder).load(model := small("clip"), CASES["clip"][2])
    np.testing.assert_allclose(features(model, "clip", -1, norm=False), last, atol=CLOSE, rtol=CLOSE)


def test_biases_of_zero_fit_the_model_without_and_others_do_not() -> None:
    _, state, _, _ = golden("dinov3")
    zeroed = {k: torch.zeros_like(v) if "q_proj.bias" in k or "v_proj.bias" in k else v for k, v in state.items()}
    plain = timm.create_model("vit_small_patch16_dinov3", num_classes=0, **TIMM)
    Checkpoint("zeroed", from_hugging_face(zeroed), {}).load(plain, "vit_small_patch16_dinov3")
    Checkpoint("zeroed", from_hugging_face(zeroed), {}).load(both := small("dinov3"), CASES["dinov3"][2])
    np.testing.assert_array_equal(features(plain, "dinov3", -1, True), features(both, "dinov3", -1, True))
    with pytest.raises(WeightsError, match=r"2 are not the model's|4 are not the model's"):
        load_strictly(plain, from_hugging_face(state), "full")


def empty(alias: str, config: dict[str, Any]) -> Checkpoint:
    """The checkpoint of a real architecture whose values take no memory."""
    state = {name: torch.zeros(1).expand(value.shape) for name, value in outline(ALIASES[alias]).state_dict().items()}
    return Checkpoint("checkpoint", state, config)


@pytest.mark.parametrize(
    ("of", "config", "asked", "told"),
    [
        ("dinov2_b", {"model_type": "dinov2"}, "dinov2_s", "does not fit dinov2_s: it fits --backbone dinov2_b$"),
        ("dinov2_b", {"model_type": "dinov2"}, "dinov2_b_reg", "--backbone dinov2_b$"),
        ("dinov2_s_reg", {"model_type": "dinov2_with_registers"}, "dinov2_s", "--backbone dinov2_s_reg$"),
        ("mae_b", {"model_type": "vit_mae"}, "dinov2_b", "--backbone mae_b$"),
        ("dino_b8", {}, "dinov2_b", "--backbone dino_b8$"),
        ("dinov3_s", {"model_type": "dinov3_vit"}, "dinov3_b", "--backbone dinov3_s$"),
        (
            *("clip_b", {"model_type": "clip_vision_model", "hidden_act": "quick_gelu"}, "clip_b"),
            r"does not fit clip_b \(it computes quickgelu, not gelu\): it fits --backbone clip_b_quickgelu$",
        ),
        ("dino_s8", {"model_type": "vit", "num_attention_heads": 12}, "dino_s8", "it has 12 heads, not 6$"),
    ],
)
def test_a_checkpoint_of_another_backbone_names_it(of: str, config: dict[str, Any], asked: str, told: str) -> None:
    with pytest.raises(WeightsError, match=told) as caught:
        empty(of, config).load(outline(ALIASES[asked]), ALIASES[asked])
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("files", "words"),
    [
        ({}, "holds no weights: a folder needs model.safetensors or model.safetensors.index.json"),
        ({"model.safetensors.index.json": "{"}, "cannot be read"),
        ({"model.safetensors.index.json": "{}"}, "names no shards"),
        ({"config.json": "[]", "model.safetensors": ""}, "cannot be read|is no JSON object"),
    ],
)
def test_broken_folders_are_told_in_one_line(files: dict[str, str], words: str, tmp_path: Path) -> None:
    for name, text in files.items():
        (tmp_path / name).write_text(text)
    with pytest.raises(WeightsError, match=words) as caught:
        read_checkpoint(tmp_path)
    assert "\n" not in str(caught.value)


def test_a_name_of_the_hub_is_told_apart_from_a_file() -> None:
    with pytest.raises(
        WeightsError, match=r"there is no weights file facebook/dinov2-base.*give hub:facebook/dinov2-base"
    ):
        Backbone.create("dinov2_b", weights="facebook/dinov2-base", device="cpu")
