"""A store to read: pets with two versions of fake features, of all ten images and of seven, and a made VOC tree."""

from pathlib import Path
from typing import Any

from bad_images import make_voc
from fakes import FakeDecomposer, make_folder

from featstore.build import build_version
from featstore.index import index_dataset
from featstore.plan import Request

FINE = (8, 10)
INPUT = (20, 30)


class Recipe(FakeDecomposer):
    """The fake, with an input size in its recipe as real ones have."""

    def recipe(self) -> dict[str, Any]:
        method = {"name": "fake", "scale": self.scale, "clean_grid": list(self.fine_grid or ())}
        return {"backbone": {"id": "fake", "input": list(INPUT)}, "method": method}


def make_readable(folder: Path) -> Path:
    """Build the store; returns its root."""
    store = folder / "store"
    index_dataset(store, "pets", make_folder(folder / "pets", count=10))
    build_version(store, Request("pets", "fake", shard_size=3), Recipe(fine_grid=FINE))
    build_version(store, Request("pets", "other", limit=7, shard_size=4), Recipe(scale=3.0))
    index_dataset(store, "voc", make_voc(folder / "voc").folder)
    build_version(store, Request("voc", "fake", variants=("raw", "clean", "artifact"), shard_size=5), Recipe())
    return store
