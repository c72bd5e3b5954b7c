"""dvt: the folders that the code of the DVT paper's authors writes and reads.

``raw_features/<timm name>/<image's path>.npy`` and ``denoised_features/…`` beside it, (H, W, C) and (1, H, W, C) float32, and
a text file that lists images by their path below the data set's folder.
"""

import os
import re
from collections.abc import Iterator, Sequence
from pathlib import PurePosixPath
from typing import Any

import numpy as np
from numpy.typing import NDArray

from featstore.errors import InputError
from featstore.members import SEPARATOR

from .formats import LeftOut, Part, ReadTask, Task
from .matching import Entry
from .npy import load_npy, npy_files
from .source import PREFIX

__all__ = ["FOLDERS", "LIST", "Reader", "Writer"]

FOLDERS = {"raw": "raw_features", "clean": "denoised_features"}
LIST = "images.txt"


class Writer:
    """Writes the two trees and the list."""

    threads = 4

    def __init__(self, task: Task) -> None:
        self.task, self.source = task, task.source
        wanted, self.variants = self.source.wanted, [name for name in self.source.shapes if name != PREFIX]
        if wrong := [name for name in self.source.shapes if name not in FOLDERS]:
            raise InputError(f"layout dvt holds raw and clean, not {', '.join(wrong)}: give --variants raw,clean")
        if wanted.dtype != "float32" or wanted.channels != "last" or task.per_file not in (None, 1):
            raise InputError("layout dvt is float32, channels last, one file an image: leave out these options")
        if FOLDERS["clean"] in str(task.folder.path):
            raise InputError(
                f"the authors' code finds raw features by replacing {FOLDERS['clean']} in the whole path, which "
                f"{task.folder.path} has itself: give a folder of another name"
            )
        self.model = str(self.source.recipe.get("backbone", {}).get("id") or self.source.version.backbone)
        self.owns = (*(FOLDERS[name] for name in self.variants), LIST)
        self.left_out: Sequence[LeftOut] = tuple(self.leave_out())
        self.odd = {item.image_id for item in self.left_out}
        self.note = (
            f"main_denoiser.py --model {self.model} --data_root {self.source.source} "
            f"--feat_root {task.folder.path / FOLDERS['clean'] / self.model} "
            f"--data_list_path {task.folder.path / LIST}"
        )

    def leave_out(self) -> Iterator[LeftOut]:
        """Yield the images that the authors' code would not find, or would take for another."""
        seen: dict[str, str] = {}
        for image_id, path in zip(self.source.image_ids, self.source.paths, strict=True):
            name = feature_path(path)
            if re.search(r"\s", path):
                yield LeftOut(image_id, "its path has a blank, at which the authors' lists are cut")
            elif path.startswith("/") or "://" in path:
                yield LeftOut(image_id, "it lies outside the data set's folder")
            elif SEPARATOR in path:
                yield LeftOut(image_id, "it lies inside another file, into which the authors' code does not look")
            elif FOLDERS["clean"] in path or not PurePosixPath(path).suffix:
                yield LeftOut(image_id, f"its path holds {FOLDERS['clean']}, or has no ending")
            elif name in seen:
                yield LeftOut(image_id, f"its features would have the name of those of {seen[name]}")
            else:
                seen[name] = image_id

    def parts(self) -> Iterator[Part]:
        """Yield every image that has a name."""
        for number, (image_id, path) in enumerate(zip(self.source.image_ids, self.source.paths, strict=True)):
            if image_id not in self.odd:
                names = tuple(f"{FOLDERS[name]}/{self.model}/{feature_path(path)}" for name in self.variants)
                yield Part(number, number + 1, names)

    def write(self, part: Part) -> None:
        """Write one image's files."""
        sample = self.source.read(part.start)
        for name, variant in zip(part.names, self.variants, strict=True):
            values = sample.arrays[variant]
            with self.task.folder.put(name) as temporary, temporary.open("wb") as file:
                np.lib.format.write_array(file, values[None] if variant == "clean" else values, version=(1, 0))

    def finish(self) -> None:
        """Write the list of images."""
        pairs = zip(self.source.image_ids, self.source.paths, strict=True)
        self.task.folder.write(LIST, "".join(f"{path}\n" for image_id, path in pairs if image_id not in self.odd))


def feature_path(path: str) -> str:
    """Return where the authors' code looks for the features of an image: its ending is replaced wherever it stands."""
    ending = os.path.splitext(path)[1]  # noqa: PTH122
    return path.replace(ending, ".npy") if ending else path


class Reader:
    """Reads the two trees, or one of them; file names stand for images."""

    channels = "last"

    def __init__(self, task: ReadTask) -> None:
        self.folder, self.model = task.folder, choose_model(task)
        places = {name: task.folder / folder / self.model for name, folder in FOLDERS.items()}
        self.places = {name: place for name, place in places.items() if place.is_dir()}
        self.variants = tuple(self.places)

    def entries(self) -> Sequence[Entry]:
        """Return every image of which there is a file."""
        names = sorted({name for place in self.places.values() for name in npy_files(place)})
        return [Entry(name, name) for name in names]

    def load(self, place: str, names: Sequence[str]) -> dict[str, NDArray[Any]]:
        """Read the files of one image that are there."""
        files = {name: self.places[name] / f"{place}.npy" for name in names if name in self.places}
        return {name: load_npy(file) for name, file in files.items() if file.exists()}


def choose_model(task: ReadTask) -> str:
    """Return the one model whose features are read; raises InputError where there are none, or several and none is named."""
    trees = [task.folder / folder for folder in FOLDERS.values() if (task.folder / folder).is_dir()]
    models = sorted({entry.name for tree in trees for entry in tree.iterdir() if entry.is_dir()})
    if not models:
        raise InputError(f"{task.folder} has no {FOLDERS['raw']}/MODEL or {FOLDERS['clean']}/MODEL: give their folder")
    if task.model in models:
        return str(task.model)
    if len(models) > 1 or (task.model and "." in task.model):
        raise InputError(f"{task.folder} holds features of {', '.join(models)}: say which with --model")
    return models[0]
