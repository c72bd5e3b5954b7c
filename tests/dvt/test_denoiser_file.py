"""Files of denoisers: ours there and back, the original's in all its wrappings, and what is said of files that do not fit."""

import json
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from denoisers import planted, published, reference
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

from dvt import Denoiser, DenoiserError, WeightsError, read_state, read_weights

State = dict[str, Tensor]
Write = Callable[[State, Path], None]
RAW = torch.randn(2, 5, 5, 64, generator=torch.Generator().manual_seed(1))


@pytest.fixture
def state() -> State:
    return published(64, (5, 5))


WRAPPINGS: dict[str, Write] = {
    "plain.pth": lambda state, path: torch.save({"denoiser": state}, path),
    "bare.pt": lambda state, path: torch.save(state, path),
    "parallel.pth": lambda state, path: torch.save({"denoiser": {f"module.{k}": v for k, v in state.items()}}, path),
    "with its backbone.bin": lambda state, path: torch.save(
        {"denoiser": state | {"vit.cls_token": torch.ones(1, 1, 64), "vit.norm.weight": torch.ones(64)}}, path
    ),
    "with its training.ckpt": lambda state, path: torch.save(
        {"denoiser": state, "optimizer": {"state": {0: torch.ones(3)}, "param_groups": [{"lr": 1e-4}]}, "step": 7}, path
    ),
    "both.pth": lambda state, path: torch.save({"model": {"model.cls_token": torch.ones(1)}, "denoiser": state}, path),
    "doubles.pth": lambda state, path: torch.save({"denoiser": {k: v.double() for k, v in state.items()}}, path),
    "plain.safetensors": save_file,
}


@pytest.mark.parametrize("name", WRAPPINGS)
def test_a_denoiser_comes_out_of_every_wrapping(name: str, state: State, tmp_path: Path) -> None:
    WRAPPINGS[name](state, tmp_path / name)
    denoiser = Denoiser.from_checkpoint(str(tmp_path / name), backbone="dinov2_s", width=64)
    assert not denoiser.training
    assert denoiser.artifact is None
    assert denoiser.facts == {}
    assert denoiser.source == str(tmp_path / name)
    with torch.inference_mode():
        torch.testing.assert_close(denoiser(RAW), reference(state, RAW, (5, 5)).float(), atol=2e-5, rtol=1e-5)


def named(**changes: Tensor | None) -> Write:
    """Write a published file with tensors changed, or, where None, taken out."""

    def write(state: State, path: Path) -> None:
        changed = state | {key.replace("__", "."): value for key, value in changes.items()}
        torch.save({"denoiser": {key: value for key, value in changed.items() if value is not None}}, path)

    return write


def raw_bytes(data: bytes) -> Write:
    return lambda _, path: (path.write_bytes(data), None)[1]


def cut(share: float) -> Write:
    def write(_: State, path: Path) -> None:
        data = planted(64, (5, 5)).to_bytes({})
        path.write_bytes(data[: int(len(data) * share)])

    return write


def of_width(width: int) -> Write:
    return lambda _, path: torch.save({"denoiser": published(width, (5, 5))}, path)


ONE = torch.ones(1)
WRONG: dict[str, tuple[str, Write, type[Exception], str]] = {
    "of another width": ("d.pth", of_width(128), DenoiserError, "features of 128 channels, the backbone gives 64"),
    "no multiple of a head": ("d.pth", of_width(96), DenoiserError, "features of 96 channels, the backbone gives 64"),
    "of another model, by its name": (
        "vit_base_patch14_dinov2.lvd142m.pth",
        named(),
        DenoiserError,
        r"denoiser of vit_base_patch14_dinov2.lvd142m, by its name, not of vit_small_patch14_dinov2.lvd142m",
    ),
    "a backbone": ("d.pth", lambda _, p: torch.save({"cls_token": ONE}, p), DenoiserError, "no denoiser.*cls_token"),
    "a backbone as safetensors": (
        "d.safetensors",
        lambda _, path: save_file({"cls_token": ONE}, path),
        DenoiserError,
        "no denoiser.*cls_token",
    ),
    "a training's state": (
        "d.pth",
        lambda _, path: torch.save({"epoch": 3, "state_dict": {"a": ONE}}, path),
        DenoiserError,
        "no denoiser.*epoch, state_dict",
    ),
    "a list": ("d.pth", lambda _, path: torch.save([ONE], path), DenoiserError, "no denoiser, but a list"),
    "a denoiser that is a tensor": (
        "d.pth",
        lambda _, path: torch.save({"denoiser": ONE, "step": 3}, path),
        DenoiserError,
        "no denoiser: its parts are denoiser, step",
    ),
    "a distilled backbone": (
        "d.pth",
        lambda _, path: torch.save({"model": {"model.cls_token": ONE}}, path),
        DenoiserError,
        "distilled backbone.*--weights",
    ),
    "a tensor missing": (
        "d.pth",
        named(denoiser__mlp__fc1__bias=None),
        DenoiserError,
        "no whole denoiser of 64 channels: denoiser.mlp.fc1.bias is missing",
    ),
    "a tensor too many": ("d.pth", named(surprise=ONE), DenoiserError, "surprise is not a denoiser's"),
    "a tensor of another shape": (
        "d.pth",
        named(denoiser__attn__proj__weight=torch.ones(64, 32)),
        DenoiserError,
        r"denoiser.attn.proj.weight is \(64, 32\), not \(64, 64\)",
    ),
    "positions of another width": (
        "d.pth",
        named(pos_embed=torch.ones(1, 25, 32)),
        DenoiserError,
        r"pos_embed is \(1, 25, 32\), not \(1, 25, 64\)",
    ),
    "positions that are no map": ("d.pth", named(pos_embed=torch.ones(64)), DenoiserError, r"pos_embed is \(64,\)"),
    "a norm that is a number": (
        "d.pth",
        named(denoiser__norm1__weight=torch.tensor(1.0)),
        DenoiserError,
        "features of 1 channels, the backbone gives 64",
    ),
    "positions of no known grid": (
        "d.pth",
        named(pos_embed=torch.ones(1, 72, 64)),
        DenoiserError,
        "72 positions, which are no square",
    ),
    "nothing there": ("d.pth", lambda _, path: None, WeightsError, "there is no denoiser file .*d.pth"),
    "unknown suffix": ("d.npy", raw_bytes(b"garbage"), WeightsError, "a denoiser comes as .safetensors or .pth"),
    "garbage": ("d.pth", raw_bytes(b"garbage"), WeightsError, "not loaded|cannot be read"),
    "empty": ("d.pth", raw_bytes(b""), WeightsError, "cannot be read"),
    "cut short": ("d.safetensors", cut(0.6), WeightsError, "d.safetensors cannot be read as safetensors"),
    "cut in its header": ("d.safetensors", cut(0.001), WeightsError, "d.safetensors cannot be read as safetensors"),
}


@pytest.mark.parametrize("case", WRONG)
def test_what_is_no_fitting_denoiser_is_told_in_one_line(case: str, state: State, tmp_path: Path) -> None:
    name, write, kind, words = WRONG[case]
    write(state, tmp_path / name)
    with pytest.raises(kind, match=words) as caught:
        Denoiser.from_checkpoint(tmp_path / name, backbone="dinov2_s", width=64)
    assert type(caught.value) is kind
    assert "\n" not in str(caught.value)
    assert name in str(caught.value)


@pytest.mark.parametrize("stem", ["vit_small_patch14_dinov2.lvd142m", "vit_small_patch14_dinov2", "mine"])
def test_a_file_may_bear_its_own_backbones_name(stem: str, state: State, tmp_path: Path) -> None:
    torch.save({"denoiser": state}, tmp_path / f"{stem}.pth")
    assert Denoiser.from_checkpoint(tmp_path / f"{stem}.pth", backbone="dinov2_s").width == 64
    (tmp_path / f"{stem}.pth").rename(tmp_path / "vit_small_patch14_dinov2.other.pth")
    with pytest.raises(DenoiserError, match="by its name"):
        Denoiser.from_checkpoint(tmp_path / "vit_small_patch14_dinov2.other.pth", backbone="dinov2_s")


class Evil:
    def __reduce__(self) -> tuple[Any, ...]:
        return (Path("evil").touch, ())


def test_a_pickle_with_code_is_not_run(state: State, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    torch.save({"denoiser": state, "extra": Evil()}, "evil.pth")
    with pytest.raises(WeightsError, match=r"evil.pth holds more than tensors .* is not loaded") as caught:
        Denoiser.from_checkpoint("evil.pth")
    assert "\n" not in str(caught.value)
    assert not Path("evil").exists()
    torch.load("evil.pth", weights_only=False)
    assert Path("evil").exists()


def test_a_width_that_no_denoiser_has_is_told_where_the_backbones_is_not(tmp_path: Path) -> None:
    of_width(96)({}, tmp_path / "d.pth")
    with pytest.raises(DenoiserError, match=r"96 channels cannot be denoised: heads have 64 channels"):
        Denoiser.from_checkpoint(tmp_path / "d.pth")


def test_a_denoiser_given_as_a_backbone_is_told(state: State, tmp_path: Path) -> None:
    torch.save({"denoiser": state, "step": 3}, tmp_path / "d.pth")
    with pytest.raises(WeightsError, match=r"d.pth holds a denoiser, not a backbone: give it as --denoiser"):
        read_weights(tmp_path / "d.pth")


@pytest.mark.parametrize("grid", [(4, 9), (5, 5), None])
def test_ours_comes_back_as_it_was(grid: tuple[int, int] | None, tmp_path: Path) -> None:
    path = tmp_path / "denoiser.safetensors"
    denoiser, artifact = planted(64, grid, blocks=2), torch.randn(4, 9, 64)
    facts = {"backbone": {"id": "vit", "mean": [0.5, 0.25]}, "trained_on": "3f9a", "artifact_images": 12}
    path.write_bytes(denoiser.to_bytes(facts, artifact))

    with safe_open(path, framework="pt") as file:
        told = json.loads(file.metadata()["featstore"])
        stored = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    assert told == facts | {"grid": list(grid) if grid else None, "blocks": 2}
    assert set(stored) == {*published(64, grid, 2), "artifact"}
    assert all(torch.equal(stored[name], value) for name, value in published(64, grid, 2).items())

    back = Denoiser.from_checkpoint(path, width=64)
    assert (back.width, back.grid, back.blocks) == (64, grid, 2)
    assert back.facts == told
    assert back.artifact is not None
    assert torch.equal(back.artifact, artifact)
    assert back.digest() == denoiser.digest()
    with torch.inference_mode():
        assert torch.equal(back(RAW), denoiser(RAW))
    assert back.to_bytes(facts, back.artifact) == path.read_bytes()
    tensors, header = read_state(path)
    assert header == told
    assert set(tensors) == set(stored)


def test_the_digest_tells_every_bit_and_the_grid_but_not_the_way_it_came(state: State, tmp_path: Path) -> None:
    torch.save({"denoiser": published(64, (4, 4))}, tmp_path / "d.pth")
    own = planted(64, (4, 4)).digest()
    assert Denoiser.from_checkpoint(tmp_path / "d.pth").digest() == own
    seen = {own, planted(64, (2, 8)).digest(), planted(64, (8, 2)).digest(), planted(64, None).digest()}
    assert len(seen) == 4
    for name in published(64, (4, 4)):
        changed = planted(64, (4, 4))
        numbers = changed.state_dict()[name].view(-1)
        bits = struct.unpack("<I", struct.pack("<f", float(numbers[0])))[0] ^ 1
        numbers[0] = struct.unpack("<f", struct.pack("<I", bits))[0]
        assert not torch.equal(changed.state_dict()[name], published(64, (4, 4))[name])
        assert changed.digest() not in seen
        seen.add(changed.digest())
    assert len(seen) == 4 + len(published(64, (4, 4)))
