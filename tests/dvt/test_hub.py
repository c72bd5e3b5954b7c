"""The hub, played by a server on this machine: weights are fetched once, then taken from the cache."""

import hashlib
import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from denoisers import published, reference
from hub import ask, serving
from safetensors.torch import load, save

NAME = "vit_tiny_patch16_224.augreg_in21k_ft_in1k"
SCRIPT = f"""
import json, dvt
backbone = dvt.Backbone.create({NAME!r}, input_size=(32, 32), device="cpu")
print(json.dumps([backbone.weights_source, backbone.weights_digest]))
"""
PUBLISHED = f"""
import json, sys, dvt
NAME = {NAME!r}
def told(what):
    try:
        return what()
    except dvt.DvtError as error:
        return [type(error).__name__, str(error)]
def denoiser(place, name=NAME):
    made = dvt.Denoiser.from_checkpoint(place, backbone=name, width=192)
    raw = dvt.as_maps([[[[channel / 100 + cell for channel in range(192)] for cell in range(3)]]])
    return [made.digest(), made.source, made(raw).tolist()]
def backbone(place, name=NAME):
    made = dvt.Backbone.create(name, weights=place, input_size=(32, 32), device="cpu")
    return [made.weights_digest, made.weights_source]
print(json.dumps({{
    "denoiser": told(lambda: denoiser("hub:voc_denoised")),
    "distilled": told(lambda: backbone("hub:voc_distilled")),
    "no such folder": told(lambda: denoiser("hub:coco_denoised")),
    "no such file": told(lambda: denoiser("hub:voc_denoised", "vit_tiny_patch16_224.augreg_in21k")),
    "a backbone": told(lambda: denoiser("hub:voc_distilled")),
    "no backbone": told(lambda: backbone("hub:voc_denoised")),
    "of which backbone": told(lambda: dvt.Denoiser.from_checkpoint("hub:voc_denoised")),
}}))
"""
REPOSITORIES = f"""
import json, dvt
def told(place):
    try:
        made = dvt.Backbone.create({NAME!r}, weights=place, input_size=(32, 32), device="cpu")
        return [made.weights_digest, made.weights_source]
    except dvt.DvtError as error:
        return [type(error).__name__, str(error)]
print(json.dumps({{place: told("hub:" + place) for place in ("me/whole", "me/shards", "me/nothing")}}))
"""


@pytest.fixture
def hub() -> Iterator[tuple[str, list[str], bytes]]:
    """Serve the weights of one model as the hub does; yields its address, the requests seen, and the file."""
    torch.manual_seed(7)
    data = save(timm.create_model(NAME, pretrained=False).state_dict())
    with serving({f"timm/{NAME}/model.safetensors": data}) as (address, seen):
        yield address, seen, data


def digest_of(state: dict[str, torch.Tensor]) -> str:
    """The digest of a backbone without its head, as the documentation defines it."""
    expected = hashlib.sha256()
    for name, value in sorted(state.items()):
        if not name.startswith("head."):
            expected.update(f"{name} {value.dtype} {tuple(value.shape)}\n".encode() + value.numpy().tobytes())
    return expected.hexdigest()


@pytest.mark.slow
def test_weights_are_fetched_once_and_then_taken_from_the_cache(
    hub: tuple[str, list[str], bytes], tmp_path: Path
) -> None:
    address, seen, data = hub
    first = ask(SCRIPT, tmp_path, HF_ENDPOINT=address)
    assert first.returncode == 0, first.stderr
    source, digest = json.loads(first.stdout.splitlines()[-1])
    assert source == f"hub:{NAME}"
    assert any(line.startswith("GET") and line.endswith("model.safetensors") for line in seen)
    assert digest == digest_of(load(data))

    count = len(seen)
    offline = ask(SCRIPT, tmp_path, HF_ENDPOINT=address, HF_HUB_OFFLINE="1")
    assert offline.returncode == 0, offline.stderr
    assert json.loads(offline.stdout.splitlines()[-1]) == [source, digest]
    assert len(seen) == count


def test_a_hub_without_the_model_is_told_in_one_line(hub: tuple[str, list[str], bytes], tmp_path: Path) -> None:
    script = SCRIPT.replace(NAME, "vit_tiny_patch16_224.augreg_in21k")
    address, _, _ = hub
    failed = ask(script, tmp_path, HF_ENDPOINT=address)
    assert failed.returncode == 1
    assert "HubError: the weights of vit_tiny_patch16_224.augreg_in21k cannot be fetched" in failed.stderr
    assert "--weights FILE" in failed.stderr.splitlines()[-1]


def pth(content: Any) -> bytes:
    buffer = io.BytesIO()
    torch.save(content, buffer)
    return buffer.getvalue()


def asked(home: Path, **environment: str) -> dict[str, Any]:
    found = ask(PUBLISHED, home, **environment)
    assert found.returncode == 0, found.stderr
    told: dict[str, Any] = json.loads(found.stdout.splitlines()[-1])
    return told


@pytest.mark.slow
def test_what_the_authors_published_is_fetched_once_and_then_taken_from_the_cache(tmp_path: Path) -> None:
    """As they lie there: ``<folder>/<timm id>.pth`` of the repository jjiaweiyang/DVT, denoisers and distilled backbones."""
    torch.manual_seed(9)
    backbone = timm.create_model(NAME, pretrained=False, num_classes=0).state_dict()
    state = published(192, (7, 7))
    files = {
        f"jjiaweiyang/DVT/voc_denoised/{NAME}.pth": pth({"denoiser": state, "step": 3}),
        f"jjiaweiyang/DVT/voc_distilled/{NAME}.pth": pth({"model": {f"model.{k}": v for k, v in backbone.items()}}),
    }
    with serving(files) as (address, seen):
        online = asked(tmp_path, HF_ENDPOINT=address)
        fetched = [line.rsplit("/", 2)[1] for line in seen if line.startswith("GET") and line.endswith(f"{NAME}.pth")]
        count = len(seen)
        offline = asked(tmp_path, HF_ENDPOINT=address, HF_HUB_OFFLINE="1")
        assert len(seen) == count
    assert sorted(fetched) == ["voc_denoised", "voc_distilled"]

    digest, source, clean = online["denoiser"]
    raw = torch.arange(192) / 100 + torch.arange(3)[None, None, :, None]
    torch.testing.assert_close(torch.tensor(clean), reference(state, raw, (7, 7)).float(), atol=1e-4, rtol=1e-4)
    assert source == "hub:voc_denoised"
    assert len(digest) == 64
    assert online["distilled"] == [digest_of(backbone), "hub:voc_distilled"]
    for found in (online, offline):
        kind, words = found["no such folder"]
        assert kind == "HubError"
        assert words.startswith("hub:coco_denoised is not published; there are hub:voc_denoised, ")
        assert found["a backbone"][0] == "DenoiserError"
        assert f"{NAME}.pth is a distilled backbone, not a denoiser: give it as --weights" in found["a backbone"][1]
        assert found["no backbone"][0] == "WeightsError"
        assert f"{NAME}.pth holds a denoiser, not a backbone: give it as --denoiser" in found["no backbone"][1]
        assert found["of which backbone"] == ["DenoiserError", "hub:voc_denoised: say of which backbone"]
    assert offline["denoiser"] == online["denoiser"]
    assert offline["distilled"] == online["distilled"]
    place = "jjiaweiyang/DVT/voc_denoised/vit_tiny_patch16_224.augreg_in21k.pth"
    for found, words in ((online, "cannot be fetched: "), (offline, "is not cached and the hub cannot be reached")):
        assert found["no such file"][0] == "HubError"
        assert found["no such file"][1].startswith(f"{place} {words}")
        assert "\n" not in found["no such file"][1]


@pytest.mark.slow
def test_repositories_are_fetched_once_whole_or_in_shards_and_then_taken_from_the_cache(tmp_path: Path) -> None:
    torch.manual_seed(8)
    state = timm.create_model(NAME, pretrained=False, num_classes=0).state_dict()
    names = [f"model-{n}-of-2.safetensors" for n in (1, 2)]
    placed = {key: names[n % 2] for n, key in enumerate(state)}
    files = {
        "me/whole/config.json": b'{"architecture": "vit_tiny_patch16_224"}',
        "me/whole/model.safetensors": save(state),
        "me/shards/model.safetensors.index.json": json.dumps({"weight_map": placed}).encode(),
        "me/nothing/README.md": b"nothing here",
    }
    files |= {f"me/shards/{n}": save({k: v for k, v in state.items() if placed[k] == n}) for n in names}
    with serving(files) as (address, seen):
        online = ask(REPOSITORIES, tmp_path, HF_ENDPOINT=address)
        assert online.returncode == 0, online.stderr
        count = len(seen)
        offline = ask(REPOSITORIES, tmp_path, HF_ENDPOINT=address, HF_HUB_OFFLINE="1")
        assert len(seen) == count
    first, again = (json.loads(found.stdout.splitlines()[-1]) for found in (online, offline))
    for found in (first, again):
        assert found["me/whole"] == [digest_of(state), "hub:me/whole"]
        assert found["me/shards"] == [digest_of(state), "hub:me/shards"]
    assert first["me/nothing"][0] == again["me/nothing"][0] == "HubError"
    assert first["me/nothing"][1].startswith("hub:me/nothing holds no weights that are read here: none of model.safe")
    assert again["me/nothing"][1].startswith(
        "hub:me/nothing is not cached and the hub cannot be reached: fetch it, and"
    )
