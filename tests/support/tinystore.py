"""Small stores to train and to clean on, of a tiny real model or of planted features; and the command line, in this process."""

import hashlib
import io
from collections.abc import Sequence
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any, NamedTuple

import duckdb
import h5py
import numpy as np
from fakes import Maps
from numpy.typing import NDArray
from PIL import Image

from featstore.cli.main import main

MODEL = ("--backbone", "test_vit", "--weights", "random", "--input-size", "64", "--device", "cpu")
STAGE1 = (*MODEL, "--method", "stage1", "--views", "6", "--holdout", "1")
TRAIN = ("--backbone", "test_vit", "--device", "cpu", "--batch", "4", "--rate", "0.002")
SIDE, WIDTH = 4, 64
Arrays = dict[str, dict[str, NDArray[Any]]]


class Said(NamedTuple):
    code: int
    out: str
    err: str


def call(*arguments: object) -> Said:
    """Run ``featstore …`` in this process."""
    out, err = io.StringIO(), io.StringIO()
    with redirect_stdout(out), redirect_stderr(err):
        try:
            main([str(word) for word in arguments])
        except SystemExit as stop:
            return Said(int(stop.code or 0), out.getvalue(), err.getvalue())
    raise AssertionError("the command line did not exit")


def done(*arguments: object) -> Said:
    """Run ``featstore …`` and see that it went well."""
    said = call(*arguments)
    assert said.code == 0, said
    return said


def photographs(folder: Path, numbers: Sequence[int]) -> Path:
    """Write smooth random pictures, each decided by its number alone."""
    folder.mkdir(parents=True, exist_ok=True)
    for number in numbers:
        coarse = np.random.default_rng(number).integers(0, 256, (5, 6, 3), dtype=np.uint8)
        Image.fromarray(coarse).resize((96, 80), Image.Resampling.BICUBIC).save(folder / f"{number:03d}.png")
    return folder


def stored(root: Path, version: str, *variants: str) -> Arrays:
    """Return {image_id: {variant: array}} of ``pets/…/version``, read with duckdb and h5py alone."""
    found: Arrays = {}
    with duckdb.connect(str(root / "manifest.duckdb"), read_only=True) as connection:
        rows = connection.execute(
            "SELECT image_id, sha256, shard, shard_row FROM stored WHERE version = ? ORDER BY image_id", [version]
        ).fetchall()
    for image_id, sha256, shard, row in rows:
        with h5py.File(root / shard) as file:
            assert file["sha256"].asstr()[row] == sha256
            found[image_id] = {name: file[name][row] for name in variants}
    return found


def rows(root: Path, sql: str) -> list[tuple[Any, ...]]:
    """Ask the manifest with duckdb alone."""
    with duckdb.connect(str(root / "manifest.duckdb"), read_only=True) as connection:
        return connection.execute(sql).fetchall()


def make_trained(folder: Path, count: int = 10) -> Path:
    """Make a store of ``count`` photographs: v1 of stage 1, v2 raw, and a denoiser d1 that moves features well."""
    source = photographs(folder / "pets", range(count))
    root = folder / "store"
    done("build", "pets", "--source", source, *STAGE1, "--root", root)
    done("build", "pets", *MODEL, "--method", "raw", "--shard-size", 4, "--root", root)
    done("train", "pets", *TRAIN, "--steps", 20, "--rate", 0.05, "--root", root)
    return root


def planted_artifact() -> NDArray[np.float32]:
    """What sits on every image's features, with zero mean over positions."""
    values = np.random.default_rng(7).normal(0, 0.6, (SIDE, SIDE, WIDTH)).astype(np.float32)
    return values - values.mean(axis=(0, 1))


class Planted:
    """Stage 1 as if it had found the truth: clean of few dimensions, decided by the image, and one artifact on all of them."""

    grid, width, prefix_tokens = (SIDE, SIDE), WIDTH, 0
    method, forwards_per_image, batch_size = "stage1/planted", 64, 4
    variants: tuple[str, ...] = ("raw", "clean", "artifact", "residual")

    def __init__(self, seed: int = 0) -> None:
        self.seed = seed

    def recipe(self) -> dict[str, Any]:
        backbone = {"id": "test_vit", "weights": "0" * 64, "layer": 5, "norm": True, "input": [64, 64], "stride": 16}
        backbone |= {"mean": [0.5] * 3, "std": [0.5] * 3, "dtype": "float32"}
        return {"backbone": backbone, "method": {"name": "stage1", "seed": self.seed}}

    def prepare(self, image: NDArray[np.uint8], key: str) -> NDArray[np.float32]:
        drawn = np.random.default_rng(int(hashlib.sha256(image.tobytes()).hexdigest()[:8], 16) + self.seed)
        basis = np.random.default_rng(1).normal(0, 1, (6, WIDTH))
        return (drawn.normal(0, 1, (SIDE, SIDE, 6)) @ basis / np.sqrt(6)).astype(np.float32)

    def decompose(self, prepared: Sequence[NDArray[np.float32]]) -> list[Maps]:
        artifact = planted_artifact()
        return [Maps(clean + artifact, clean, artifact, None, {"norm_max": 1.0}) for clean in prepared]
