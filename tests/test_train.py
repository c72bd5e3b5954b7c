"""``featstore train``: what it leaves, that it learns, and that neither a kill nor more processes change what comes out."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tinystore import STAGE1, TRAIN, Planted, call, done, photographs, planted_artifact, rows, stored

import dvt
from featstore.build import build_version
from featstore.index import index_dataset
from featstore.plan import Request
from featstore.root import hold_lock

# Processes, one after the other, that kill themselves with a signal that nothing can catch: in the middle of a line of the
# curve, or after a checkpoint. Forked, so that torch is imported once.
KILLED = """
import os, signal, sys
import dvt
from featstore.cli.main import main
from featstore.training_run import TrainingRun

append, save = TrainingRun.append, TrainingRun.save

def torn(self, rows):
    global left
    append(self, rows)
    left -= moment == "append"
    if not left:
        os.truncate(self.metrics, self.metrics.stat().st_size - 25)
        os.kill(os.getpid(), signal.SIGKILL)

def saved(self, state):
    global left
    save(self, state)
    left -= moment == "save"
    if not left:
        os.kill(os.getpid(), signal.SIGKILL)

TrainingRun.append, TrainingRun.save = torn, saved
for moment, left in (("append", 3), ("save", 2)):
    child = os.fork()
    if not child:
        main(sys.argv[1:])
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""


LEARNED = ("--steps", 45, "--validate-every", 15, "--heldout", 0.3)


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store with a stage-1 version of a tiny real model: twelve images, 4×4 patches, 64 channels."""
    folder = tmp_path_factory.mktemp("tiny")
    source = photographs(folder / "pets", range(12))
    done("build", "pets", "--source", source, *STAGE1, "--root", folder / "store")
    return folder / "store"


@pytest.fixture(scope="module")
def learned(tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    """A copy in which a denoiser is trained, and the report of that; tests only read it."""
    root = Path(shutil.copytree(tiny, tmp_path_factory.mktemp("learned") / "store"))
    return root, train(root, *LEARNED)


@pytest.fixture
def root(tiny: Path, tmp_path: Path) -> Path:
    """A copy of it, the test's own."""
    return Path(shutil.copytree(tiny, tmp_path / "store"))


def train(root: Path, *arguments: object) -> dict[str, Any]:
    """Train to the end; returns the report."""
    report: dict[str, Any] = json.loads(done("train", "pets", *TRAIN, *arguments, "--json", "--root", root).out)
    return report


def curve(report: dict[str, Any]) -> list[dict[str, Any]]:
    lines = (Path(report["folder"]) / "metrics.jsonl").read_text().splitlines()
    return [json.loads(line, parse_constant=pytest.fail) for line in lines]


def events_of(report: dict[str, Any]) -> EventAccumulator:
    return EventAccumulator(report["folder"], size_guidance={"scalars": 0}).Reload()


def assert_events_are_the_curve(report: dict[str, Any]) -> None:
    events, lines = events_of(report), curve(report)
    for name in ("loss", "mse", "cosine", "rate"):
        found = [(event.step, event.value) for event in events.Scalars(f"train/{name}")]
        assert found == [(line["step"], np.float32(line[name])) for line in lines]
    judged = [line for line in lines if "val_loss" in line]
    for name in ("loss", "mse", "cosine", "raw_mse", "raw_cosine", "position", "raw_position", "clean_position"):
        found = [(event.step, event.value) for event in events.Scalars(f"heldout/{name}")]
        assert found == [(line["step"], np.float32(line[f"val_{name}"])) for line in judged]


def cosine(found: NDArray[Any], clean: NDArray[Any]) -> float:
    lengths = np.linalg.norm(found, axis=-1) * np.linalg.norm(clean, axis=-1)
    return float(((found * clean).sum(axis=-1) / lengths).mean())


def position_share(maps: NDArray[Any]) -> float:
    """Variance of positions' means, less what chance puts into it, over all variance."""
    between = maps.mean(axis=0).var(axis=(0, 1)).sum()
    chance = (maps - maps.mean(axis=(1, 2), keepdims=True)).var(axis=0, ddof=1).sum(axis=-1).mean() / len(maps)
    return float((between - chance) / np.square(maps - maps.mean(axis=(0, 1, 2))).sum(axis=-1).mean())


def denoised(report: dict[str, Any], maps: list[NDArray[Any]]) -> NDArray[np.float64]:
    model = dvt.Denoiser.from_checkpoint(report["file"], "test_vit", 64)
    with torch.inference_mode():
        return model(torch.from_numpy(np.stack(maps).astype(np.float32))).double().numpy()


def test_it_leaves_what_it_promises(learned: tuple[Path, dict[str, Any]]) -> None:
    root, report = learned
    assert (report["denoiser"], report["trained_on"], report["steps"]) == ("pets/test_vit/d1", "pets/test_vit/v1", 45)
    assert report["resumed_from"] == 0
    assert [line["step"] for line in curve(report)] == [10, 15, 20, 30, 40, 45]
    assert_events_are_the_curve(report)
    with Image.open(Path(report["folder"]) / "loss.png") as image:
        image.verify()
        assert (image.format, image.size) == ("PNG", (1080, 432))

    model = dvt.Denoiser.from_checkpoint(report["file"], "test_vit", 64)
    ((recipe, digest),) = rows(root, "SELECT recipe, digest FROM versions")
    (row,) = rows(root, "SELECT digest, run, path, trained_on, images, heldout_images, steps FROM denoisers")
    assert row[:4] == (report["digest"], model.facts["run"], Path(report["file"]).relative_to(root).as_posix(), digest)
    assert row[4:] == (12 - report["heldout"]["images"], report["heldout"]["images"], 45)
    assert model.digest() == report["digest"]
    assert model.facts["backbone"] == json.loads(recipe)["backbone"]
    assert (model.facts["trained_on"], model.facts["artifact_images"]) == (digest, 12)
    ((trained, made),) = rows(root, "SELECT recipe, provenance FROM denoisers")
    assert json.loads(trained)["train"] | {"steps": 45, "batch": 4, "seed": 0} == json.loads(trained)["train"]
    assert json.loads(made)["device"].startswith("cpu")
    assert json.loads(made)["command"]

    maps = [one["raw"] for one in stored(root, "v1", "raw").values()]
    mean = (np.stack(maps) - denoised(report, maps)).mean(axis=0)
    assert model.artifact is not None
    np.testing.assert_allclose(model.artifact.numpy(), mean - mean.mean(axis=(0, 1)), atol=1e-5)


def test_what_the_manifest_says_is_what_held_out_images_say(learned: tuple[Path, dict[str, Any]]) -> None:
    root, report = learned
    parts = dict(rows(root, "SELECT image_id, d.part FROM denoiser_images d JOIN current_images USING (sha256)"))
    assert len(parts) == 12
    maps = stored(root, "v1", "raw", "clean")
    out = [one for name, one in maps.items() if parts[name] == "heldout"]
    assert 2 <= len(out) <= 8
    raw, clean = (np.stack([one[name] for one in out]).astype(np.float64) for name in ("raw", "clean"))
    found = denoised(report, [one["raw"] for one in out])
    mse, raw_mse = (float(np.square(maps - clean).mean()) for maps in (found, raw))
    expected = (cosine(found, clean), cosine(raw, clean), mse, raw_mse, position_share(found), position_share(raw))
    names = "cosine, raw_cosine, mse, raw_mse, position_share, raw_position_share"
    np.testing.assert_allclose(rows(root, f"SELECT {names} FROM denoisers")[0], expected, rtol=1e-4)
    told = report["heldout"]
    assert told["clean_position"] == pytest.approx(position_share(clean), rel=1e-4)
    assert told["loss"] == pytest.approx(mse + 1 - cosine(found, clean), rel=1e-4)
    assert told["loss"] == pytest.approx(
        min(line["val_loss"] for line in curve(report) if "val_loss" in line), rel=1e-5
    )


def test_it_learns_to_take_a_planted_artifact_off(tmp_path: Path) -> None:
    index_dataset(tmp_path / "store", "pets", photographs(tmp_path / "pets", range(40)))
    build_version(tmp_path / "store", Request("pets", "test_vit"), Planted())
    arguments = ("--start", "random", "--steps", 120, "--validate-every", 40, "--batch", 8, "--rate", 0.08)
    arguments += ("--heldout", 0.3)
    said = done("train", "pets", *TRAIN, *arguments, "--root", tmp_path / "store")
    ((path, cos, raw_cos, share, raw_share),) = rows(
        tmp_path / "store", "SELECT path, cosine, raw_cosine, position_share, raw_position_share FROM denoisers"
    )
    assert 1 - cos < 0.2 * (1 - raw_cos)
    planted = planted_artifact()
    truth = np.square(planted).sum(axis=-1).mean()
    assert raw_share == pytest.approx(truth / (truth + 64), abs=0.08)  # clean has variance 1 in each of 64 channels
    assert abs(share) < 0.25 * raw_share
    artifact = dvt.Denoiser.from_checkpoint(tmp_path / "store" / path).artifact
    assert artifact is not None
    assert np.corrcoef(artifact.numpy().ravel(), planted.ravel())[0, 1] > 0.95
    assert f"pets/test_vit/d1: held out: cosine to clean {cos:.4f} (raw {raw_cos:.4f})" in said.out
    assert "featstore build pets --backbone test_vit --input-size 64 --method stage2" in said.out
    assert "does not beat raw" not in said.err
    assert "step 40: held out" in said.err

    report = train(tmp_path / "store", "--steps", 1, "--rate", 1e-9)  # it starts from what stage 1 found
    assert report["heldout"]["cosine"] > 0.9999
    found = denoised(report, [planted])
    np.testing.assert_allclose(found, 0, atol=2e-3)


def test_killed_at_bad_moments_it_comes_to_the_same_end(root: Path, tmp_path: Path) -> None:
    other = Path(shutil.copytree(root, tmp_path / "undisturbed"))
    arguments = ("--steps", 60, "--validate-every", 8, "--heldout", 0.3, "--ema", 0.9)
    expected = train(other, *arguments)
    command = [sys.executable, "-c", KILLED, "train", "pets", *TRAIN, *map(str, arguments), "--root", str(root)]
    ended = subprocess.run(command, check=True, capture_output=True, text=True)
    assert ended.stdout.split() == [str(-signal.SIGKILL)] * 2, ended.stderr
    assert "on from step 16" in ended.stderr  # killed at 24 and 32, with checkpoints at 16 and 32
    time.sleep(1)  # files of events are read in the order of their names, which are of the second they were made in
    report = train(root, *arguments)
    assert report["resumed_from"] == 32
    assert report["digest"] == expected["digest"]
    same = ("metrics.jsonl", "denoiser.safetensors", "checkpoint.safetensors", "recipe.json", "loss.png")
    for name in same:
        assert (Path(report["folder"]) / name).read_bytes() == (Path(expected["folder"]) / name).read_bytes(), name
    assert_events_are_the_curve(report)
    assert not list(root.rglob(".tmp-*"))
    assert rows(root, "SELECT number, digest FROM denoisers") == rows(other, "SELECT number, digest FROM denoisers")


def test_what_is_finished_is_not_trained_again_unless_asked(
    learned: tuple[Path, dict[str, Any]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = Path(shutil.copytree(learned[0], tmp_path / "store"))
    first = learned[1] | {"folder": learned[1]["folder"].replace(str(learned[0]), str(root))}
    before = {path: path.read_bytes() for path in Path(first["folder"]).iterdir()}
    listed = rows(root, "SELECT * FROM denoisers")
    taken: list[int] = []
    learn = dvt.Trainer.learn

    def counted(self: dvt.Trainer, *pair: Any) -> Any:
        taken.append(self.step)
        return learn(self, *pair)

    monkeypatch.setattr(dvt.Trainer, "learn", counted)
    again = train(root, *LEARNED)
    assert taken == []
    assert (again["denoiser"], again["digest"], again["resumed_from"]) == (first["denoiser"], first["digest"], 45)
    assert again["heldout"] == first["heldout"]
    assert rows(root, "SELECT * FROM denoisers") == listed
    same = [path for path in before if ".lock" not in path.name]
    assert {path: path.read_bytes() for path in same} == {path: before[path] for path in same}

    anew = train(root, *LEARNED, "--restart")
    assert taken == list(range(45))
    assert (anew["denoiser"], anew["digest"], anew["resumed_from"]) == (first["denoiser"], first["digest"], 0)
    assert_events_are_the_curve(anew)
    other = train(root, *LEARNED, "--seed", 1)
    assert (other["denoiser"], other["resumed_from"]) == ("pets/test_vit/d2", 0)
    assert other["digest"] != first["digest"]


def test_patience_stops_where_held_out_images_gain_no_more(root: Path) -> None:
    arguments = ("--steps", 80, "--validate-every", 4, "--rate", 0.3, "--heldout", 0.3)
    whole = [line["val_loss"] for line in curve(train(root, *arguments)) if "val_loss" in line]
    assert len(whole) == 20
    report = train(root, *arguments, "--patience", 3)
    losses = [line["val_loss"] for line in curve(report) if "val_loss" in line]
    best = [min(whole[:count]) for count in range(1, len(whole) + 1)]
    gains = [0] + [place for place, (before, now) in enumerate(pairwise(best), 1) if now < before]
    stop = next(place for place in range(20) if place - max(gain for gain in gains if gain <= place) == 3)
    assert stop < 19
    assert losses == whole[: stop + 1]
    assert report["steps"] == 4 * (stop + 1)
    assert report["heldout"]["loss"] == pytest.approx(min(losses), rel=1e-5)
    again = train(root, *arguments, "--patience", 3)  # that it stopped is remembered
    assert (again["denoiser"], again["steps"], again["resumed_from"]) == (report["denoiser"], *[report["steps"]] * 2)


def test_one_image_alone_to_judge_by_is_told_and_gives_no_nan(root: Path) -> None:
    said = done("train", "pets", *TRAIN, "--steps", 10, "--heldout", 0, "--root", root)
    assert "nan" not in (said.out + said.err).lower()
    assert "judged by one image alone" in said.err
    assert rows(root, "SELECT heldout_images, position_share FROM denoisers") == [(1, None)]
    (folder,) = (root / "pets" / "test_vit" / "denoisers").iterdir()
    assert curve({"folder": folder})[0]["val_position"] is None


def test_wrong_use_is_told_in_one_line(root: Path, tmp_path: Path) -> None:
    folder = next((root / "pets" / "test_vit").iterdir())
    one = ("--where", "image_id = '003.png'")
    for arguments, words in {
        ("petz",): "no data set 'petz' here (there are: pets)",
        ("pets", "--backbone", "dinov2_b"): "featstore build pets --backbone dinov2_b --method stage1",
        ("pets", *TRAIN, "--version", "v7"): "no version 'pets/test_vit/v7'",
        ("pets", *TRAIN, *one): "training needs two",
        ("pets", *TRAIN, "--where", "nonsense > 1"): "nonsense",
        ("pets", *TRAIN, "--root", tmp_path / "nowhere"): "index a data set first",
    }.items():
        said = call("train", *(("--root", root) if "--root" not in arguments else ()), *arguments)
        assert (said.code, said.out) == (1, "")
        assert said.err.startswith("error: ")
        assert words in said.err
        assert said.err.count("\n") == 1
    for option in (("--heldout", 1.5), ("--rate", 0), ("--rate", -1), ("--decay", -1), ("--steps", 0)):
        assert call("train", "pets", *option, "--root", root).code == 2
    build_version(root, Request("pets", "test_vit", variants=("raw", "clean")), Planted())
    said = call("train", "pets", *TRAIN, "--root", root)
    assert "pets/test_vit/v2 does not store the artifact" in said.err
    assert "--start random" in said.err
    assert (said.code, said.err.count("\n")) == (1, 1)
    assert not (folder.parent / "denoisers").exists()  # no folder of a training is left
    assert rows(root, "SELECT count(*) FROM denoisers") == [(0,)]


def test_a_training_in_hand_is_not_trained_beside(learned: tuple[Path, dict[str, Any]]) -> None:
    root, report = learned
    with hold_lock(Path(report["folder"]) / ".lock", "training"):
        said = call("train", "pets", *TRAIN, *LEARNED, "--root", root)
    assert said.code == 1
    assert f"process {os.getpid()} on " in said.err
    assert said.err.count("\n") == 1


@pytest.mark.slow
def test_two_processes_learn_what_one_does(root: Path, tmp_path: Path) -> None:
    other = Path(shutil.copytree(root, tmp_path / "alone"))
    arguments = ("--steps", "30", "--validate-every", "10", "--heldout", "0.3", "--json")
    alone = train(other, *arguments)
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--local-addr", "127.0.0.1"]
    command += ["--nproc-per-node", "2", "-m", "featstore.cli", "train", "pets", *TRAIN, *arguments]
    ended = subprocess.run([*command, "--root", str(root)], check=False, capture_output=True, text=True, timeout=120)
    assert ended.returncode == 0, ended.stderr
    together = json.loads(ended.stdout)  # one report, not one a process
    assert together["folder"] == alone["folder"].replace(str(other), str(root))
    for own, theirs in zip(curve(alone), curve(together), strict=True):
        assert own == pytest.approx(theirs, rel=1e-5, abs=1e-6)
    assert_events_are_the_curve(together)
    assert rows(root, "SELECT number FROM denoisers") == [(1,)]
    images = "SELECT sha256, part FROM denoiser_images ORDER BY 1"
    assert rows(root, images) == rows(other, images)
