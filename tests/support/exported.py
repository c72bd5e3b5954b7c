"""A small store with awkward names, and its maps read with duckdb and h5py alone."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import duckdb
import h5py
import numpy as np
from fakes import FakeDecomposer
from numpy.typing import NDArray
from PIL import Image

from featstore.build import build_version
from featstore.index import index_dataset
from featstore.plan import Request

VARIANTS = ("raw", "clean", "artifact", "residual")
PREFIX = "prefix_tokens"
NAMES = (
    *("cats/1.png", "cats/2.png", "cats/3.png", "dogs/1.png", "dogs/2.png", "dogs/3.png"),
    *("a/b c.jpg.png", "a/ü:x.png", "same/x.png", "same/x.gif", "日本/猫.png"),
)


def make_source(folder: Path) -> Path:
    """Write one small image a name, each of another colour."""
    for number, name in enumerate(NAMES):
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        colours = np.random.default_rng(number).integers(0, 256, (6, 8, 3), dtype=np.uint8)
        Image.fromarray(colours).save(path)
    return folder


def make_store(folder: Path, variants: Sequence[str] = ()) -> Path:
    """Make a store of these images with the version pets/fake/v1."""
    root = folder / "store"
    index_dataset(root, "pets", make_source(folder / "pets"))
    request = Request("pets", "fake", tuple(variants), shard_size=4, environment={"device": "abacus"})
    build_version(root, request, FakeDecomposer())
    return root


def stored_maps(
    root: Path, variants: Sequence[str] = (*VARIANTS, PREFIX), version: str = "v1"
) -> dict[str, dict[str, NDArray[Any]]]:
    """Return {image_id: {variant: array}} of a version of ``pets``."""
    found: dict[str, dict[str, NDArray[Any]]] = {}
    with duckdb.connect(str(root / "manifest.duckdb"), read_only=True) as connection:
        rows = connection.execute(
            "SELECT image_id, sha256, shard, shard_row FROM stored WHERE version = ? ORDER BY image_id", [version]
        ).fetchall()
    for image_id, sha256, shard, row in rows:
        with h5py.File(root / shard) as file:
            assert file["sha256"].asstr()[row] == sha256
            found[image_id] = {name: file[name][row] for name in variants}
    return found
