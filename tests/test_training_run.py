"""The folder of a training: whole at any moment, and one process's at a time."""

import json
import math
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from featstore.curves import EventLog, draw_curve
from featstore.errors import LockedError, StoreError
from featstore.recipe import Recipe
from featstore.training_run import TrainingRun

RECIPE = Recipe.of({"train": {"seed": 0}})

# Limits of a file's size stand for a full disk, as in test_sealing.py.
SAVER = """
import resource, signal, sys
from pathlib import Path
from featstore.errors import StoreError
from featstore.recipe import Recipe
from featstore.training_run import TrainingRun

run = TrainingRun(Path(sys.argv[1]), "pets", "vit", Recipe.of({"train": {"seed": 0}}))
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))
for write in (lambda: run.save(b"new" * 1000), lambda: run.finish(b"new" * 1000), lambda: run.append([{"x": "y" * 999}] * 9)):
    try:
        write()
    except StoreError as error:
        print(error)
"""
HOLDER = """
import sys
from pathlib import Path
from featstore.recipe import Recipe
from featstore.training_run import TrainingRun

with TrainingRun(Path(sys.argv[1]), "pets", "vit", Recipe.of({"train": {"seed": 0}})).held():
    print("held", flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def run(tmp_path: Path) -> TrainingRun:
    return TrainingRun(tmp_path, "pets", "vit", RECIPE)


def test_it_lies_by_its_recipe_and_says_so(run: TrainingRun, tmp_path: Path) -> None:
    with run.held():
        assert run.folder == tmp_path / "pets" / "vit" / "denoisers" / RECIPE.digest[:12]
        assert json.loads((run.folder / "recipe.json").read_text()) == {"format": 1, "train": {"seed": 0}}


def test_a_write_that_fails_leaves_what_was_there(run: TrainingRun, tmp_path: Path) -> None:
    with run.held():
        run.save(b"old checkpoint")
        run.finish(b"old result")
        run.append([{"step": 1}])
    ended = subprocess.run([sys.executable, "-c", SAVER, str(tmp_path)], check=True, capture_output=True, text=True)
    told = ended.stdout.splitlines()
    for path, line in zip((run.checkpoint, run.denoiser, run.metrics), told, strict=True):
        assert line.startswith(f"cannot write {path}: File too large; make room")
    assert run.checkpoint.read_bytes() == b"old checkpoint"
    assert run.denoiser.read_bytes() == b"old result"
    assert run.curve()[0] == {"step": 1}
    with run.held():
        assert run.rewind(1) == [{"step": 1}]
    assert not list(run.folder.glob(".tmp-*"))


def test_rewinding_takes_off_later_lines_and_one_cut_short(run: TrainingRun) -> None:
    assert run.curve() == []
    with run.held():
        assert run.rewind(0) == []
        run.append({"step": step, "loss": step / 7} for step in range(1, 31))
        whole = run.metrics.read_text()
        run.metrics.write_text(whole[:-9])  # the last write was cut short by a kill
        assert run.curve() == [{"step": step, "loss": step / 7} for step in range(1, 30)]
        kept = run.rewind(20)
        assert kept == run.curve() == [{"step": step, "loss": step / 7} for step in range(1, 21)]
        run.append({"step": step, "loss": step / 7} for step in range(21, 31))
        assert run.metrics.read_text() == whole  # as if nobody had killed it


def test_what_is_no_number_is_null_in_the_curve(run: TrainingRun) -> None:
    with run.held():
        run.append([{"step": 1, "val_position": math.nan, "loss": 0.1}])
        text = run.metrics.read_text()
    assert json.loads(text, parse_constant=pytest.fail) == {"step": 1, "val_position": None, "loss": 0.1}


def test_restarting_forgets_what_was_learned_and_nothing_else(run: TrainingRun) -> None:
    names = {"checkpoint.safetensors", "metrics.jsonl", "denoiser.safetensors", "loss.png", "events.out.tfevents.1"}
    with run.held():
        for name in names | {"notes.txt"}:
            (run.folder / name).write_text("x")
    with run.held():
        assert {path.name for path in run.folder.iterdir()} >= names
    with run.held(restart=True):
        assert {path.name for path in run.folder.iterdir()} == {"recipe.json", "notes.txt", ".lock"}


def test_a_second_process_is_told_who_trains_it(run: TrainingRun, tmp_path: Path) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(tmp_path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as other:
        assert other.stdout is not None
        assert other.stdin is not None
        assert other.stdout.readline() == "held\n"
        run.save(b"theirs")
        words = rf"^process {other.pid} on .* is training {run.folder}; wait for it, or end it$"
        with pytest.raises(LockedError, match=words), run.held(restart=True):
            pass
        assert run.checkpoint.read_bytes() == b"theirs"
        with TrainingRun(tmp_path, "pets", "vit", Recipe.of({"train": {"seed": 1}})).held():
            pass  # another training of the same features goes on beside it
        other.stdin.close()
    with run.held():
        assert run.checkpoint.exists()


def test_a_folder_that_cannot_be_made_is_a_store_error(run: TrainingRun, tmp_path: Path) -> None:
    (tmp_path / "pets").write_text("in the way")
    with pytest.raises(StoreError, match=r"cannot write .*make room or choose another --root"), run.held():
        pass


def rows(first: int, last: int) -> list[dict[str, float]]:
    found = []
    for step in range(first, last + 1):
        row = {"step": step, "loss": 1 / step, "mse": 0.5 / step, "cosine": 1 - 0.5 / step, "rate": 0.1}
        if step % 4 == 0:
            row |= {"val_images": 3, "val_loss": 2 / step, "val_mse": 1 / step, "val_cosine": 1 - 1 / step}
            row |= {"val_raw_mse": 0.75, "val_raw_cosine": 0.25, "val_position": math.nan}
        found.append(row)
    return found


def test_events_of_steps_taken_again_count_once(tmp_path: Path) -> None:
    for start, end, spoiled in ((1, 11, 0.0), (9, 16, 1.0)):  # killed after step 11, gone on from a checkpoint at 8
        log = EventLog(tmp_path, start - 1)
        for row in rows(start, end):
            log.add(row | {"rate": row["rate"] + spoiled})
        log.close()
    events = EventAccumulator(str(tmp_path), size_guidance={"scalars": 0}).Reload()
    expected = rows(1, 16)
    assert [event.step for event in events.Scalars("train/loss")] == list(range(1, 17))
    np.testing.assert_allclose([event.value for event in events.Scalars("train/rate")], [0.1] * 8 + [1.1] * 8)
    np.testing.assert_allclose(
        [event.value for event in events.Scalars("train/cosine")], [row["cosine"] for row in expected], rtol=1e-6
    )
    assert [(event.step, event.value) for event in events.Scalars("heldout/loss")] == [
        (step, np.float32(2 / step)) for step in (4, 8, 12, 16)
    ]
    assert set(events.Tags()["scalars"]) == {
        *(f"train/{name}" for name in ("loss", "mse", "cosine", "rate")),
        *(f"heldout/{name}" for name in ("loss", "mse", "cosine", "raw_mse", "raw_cosine")),
    }


def test_the_picture_shows_three_lines_where_they_belong(tmp_path: Path) -> None:
    draw_curve([row | {"loss": 2.0 - row["step"] / 20} for row in rows(1, 20)], tmp_path / "loss.png", "a title")
    with Image.open(tmp_path / "loss.png") as image:
        assert image.format == "PNG"
        pixels = np.asarray(image.convert("RGB")).astype(int)
    assert pixels.shape == (432, 1080, 3)
    for half in (pixels[:, :540], pixels[:, 540:]):
        for colour in ((0x1F, 0x77, 0xB4), (0xD6, 0x27, 0x28), (191, 191, 191)):  # held out, raw, training
            assert (np.abs(half - colour).sum(axis=-1) < 12).sum() > 50
    blue = np.abs(pixels - (0x1F, 0x77, 0xB4)).sum(axis=-1) < 12
    for falls, (down, right) in ((1, np.nonzero(blue[150:350, 80:530])), (-1, np.nonzero(blue[35:160, 620:1070]))):
        assert falls * np.corrcoef(down, right)[0, 1] > 0.7  # the loss goes down, the cosine up


def test_a_curve_never_judged_is_drawn_too(tmp_path: Path) -> None:
    draw_curve([{"step": 1, "loss": 1.0, "cosine": 0.5}], tmp_path / "loss.png", "")
    with Image.open(tmp_path / "loss.png") as image:
        image.verify()
