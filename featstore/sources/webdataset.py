"""WebDataset: tar files whose files of one key are one sample."""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from featstore.errors import DecodeError, SourceError
from featstore.records import ImageRecord, Meaning, ObjectRecord, Problem
from featstore.tar_members import read_tar, tar_index

from .base import require_folder
from .files import few, unmatched
from .folder import ENDINGS
from .shards import only_shards, require_images, shards_of, split_named

__all__ = ["WebDatasetSource"]

TAR = (".tar",)
PACKED = (".tar.gz", ".tgz", ".tar.bz2", ".tbz2", ".tar.xz", ".txz", ".tar.zst")
KEY = re.compile(r"((?:.*/)?[^./]+)\.([^/]+)")
IMAGES = ("jpg", "jpeg", "png", "webp", *sorted(ending[1:] for ending in ENDINGS - {".jpg", ".jpeg", ".png", ".webp"}))
MASKS = ("seg", "mask", "segmentation", "semantic", "annotation")
INSTANCES, DEPTHS = ("instance", "instances", "inst"), ("depth", "depths")
LABELS = ("cls", "label", "class")
CORNERS = ("xmin", "ymin", "xmax", "ymax")
WORDNET = re.compile(r"n\d{8}")
"""How ImageNet calls its classes, and the tar of each."""

Sample = dict[str, str]


class WebDatasetSource:
    """Tar files in a folder or below it, or one tar file.

    A sample is the files of one key, which is a file's path in the tar up to the first dot of its name, as the library
    webdataset has it. Its image is the first of ``jpg``, ``jpeg``, ``png``, ``webp`` … or else of what ends so; ``seg.png`` or
    ``mask.png`` is the mask, ``instance.png`` the instances, ``depth.png``, ``depth.tiff`` or ``depth.npy`` the depth map;
    ``cls``, ``label`` or a ``label`` or ``class`` in ``json`` the label (ImageNet's tars of one class, n01440764.tar, have it
    in their names), and boxes are the ``objects`` in ``json`` that have ``class`` (or ``name``, ``label``), ``xmin``, ``ymin``,
    ``xmax`` and ``ymax``. An image's name is ``<tar without ending>/<key>``.
    """

    layout = "webdataset"
    expects = "tar files (train-0000.tar …), or one, of samples: KEY.jpg, KEY.cls, KEY.json, KEY.seg.png, KEY.depth.png"
    holds: tuple[str, ...] = ("split", "label", "boxes", "masks", "instances", "depth")
    home: Path | None = None

    def detect(self, folder: Path) -> bool:
        """Whether it is a tar or a folder of tars, compressed ones too, to say that they cannot be read in place."""
        return only_shards(folder, TAR + PACKED)

    def read(self, folder: Path) -> Iterator[ImageRecord | Problem]:
        """Yield samples by tar and by the order in it; a tar that is cut off or damaged is a problem.

        Raises SourceError where there is no tar, or none that holds an image.
        """
        if not folder.is_file():
            require_folder(folder)
        packed = [name for name, _ in shards_of(folder, PACKED)]
        tars = list(shards_of(folder, TAR))
        if packed and not tars:
            raise SourceError(
                f"{folder}: {packed[0]} is compressed, and images in it cannot be read in place: decompress it"
            )
        yield from require_images(folder, self, (item for tar in tars for item in read_tar_samples(*tar)))
        for name in packed:
            yield Problem(name, "image", "a compressed tar cannot be read in place: decompress it (gzip -d)")

    def meaning(self, folder: Path) -> Meaning:
        """Tars do not say what their masks and depth maps mean."""
        return Meaning()


def read_tar_samples(name: str, path: Path) -> Iterator[ImageRecord | Problem]:
    """Yield the samples of one tar, and what is wrong with it; ``name`` is its path below the source's folder."""
    try:
        index = tar_index(path)
    except DecodeError as error:
        yield Problem(name, "image", str(error))
        return
    except OSError as error:
        yield Problem(name, "image", f"{path.name} cannot be read: {error.strerror}")
        return
    samples: dict[str, Sample] = {}
    for member in index.members:
        match = KEY.fullmatch(member)
        if match and not member.startswith("__MACOSX/"):
            samples.setdefault(match[1], {})[match[2].lower()] = member
    nested = [member for member in index.members if member.lower().endswith(TAR + PACKED)]
    if nested and len(nested) == len(index.members):
        yield Problem(
            name, "image", f"{path.name} holds tar files ({few(nested)}): extract it once, and index its folder"
        )
        return
    bare = [key for key, files in samples.items() if image_of(files) is None]
    yield from unmatched(name, "image", bare, len(samples), "samples have no image")
    if index.damage:
        yield Problem(name, "image", index.damage)
    split = split_named(name)
    for key, files in samples.items():
        if (image := image_of(files)) is not None:
            yield from describe(name, path, key, files, image, split)


def describe(
    name: str, path: Path, key: str, files: Sample, image: str, split: str | None
) -> Iterator[ImageRecord | Problem]:
    """Yield one sample's record, before it what is wrong with its label or its notes."""
    image_id = f"{name[: -len(TAR[0])]}/{key}"
    notes: dict[str, Any] = {}
    label: str | None = None
    try:
        if "json" in files:
            told = json.loads(read_tar(path, files["json"]))
            notes = told if isinstance(told, dict) else {}
        label = next((as_label(read_tar(path, files[e]).decode()) for e in LABELS if e in files), None)
    except (DecodeError, OSError, ValueError) as error:
        reason = " ".join(str(error).split())
        yield Problem(f"{name}::{files.get('json', key)}", "annotation", f"not read: {reason}", image_id)
    if label is None and WORDNET.fullmatch(path.name[: -len(TAR[0])]):
        label = path.name[: -len(TAR[0])]
    if label is None:
        label = next((as_label(notes[word]) for word in ("label", "class", "cls") if word in notes), None)
    paths = [
        f"{name}::{files[found]}" if found else None for found in (named(files, w) for w in (MASKS, INSTANCES, DEPTHS))
    ]
    yield ImageRecord(
        image_id,
        f"{name}::{image}",
        split=split,
        splits=(f"webdataset/{split}",) if split else (),
        label=label,
        mask_path=paths[0],
        instance_path=paths[1],
        depth_path=paths[2],
        objects=tuple(boxes(notes.get("objects"))),
    )


def image_of(files: Sample) -> str | None:
    """Return the sample's image: of the plainest ending, or the first by name that ends as images do and is no map."""
    for ending in IMAGES:
        if ending in files:
            return files[ending]
    for ending in sorted(files):
        word, _, last = ending.rpartition(".")
        if last in IMAGES and word.rpartition(".")[2] not in (*MASKS, *INSTANCES, *DEPTHS):
            return files[ending]
    return None


def named(files: Sample, words: tuple[str, ...]) -> str | None:
    """Return the ending of a map of one of these names: ``seg.png``, ``depth.tiff``, ``depth.npy``."""
    for word in words:
        for ending in sorted(files):
            before, _, last = ending.rpartition(".")
            if before == word and (last in IMAGES or (last == "npy" and words is DEPTHS)):
                return ending
    return None


def as_label(value: Any) -> str | None:
    """Return a word or a number as a label, None for what is neither."""
    if isinstance(value, bool) or not isinstance(value, (str, int)):
        return None
    return str(value).strip() or None


def boxes(told: Any) -> Iterator[ObjectRecord]:
    """Yield the boxes among a sample's ``objects`` whose corners are named; those in any other form are passed over."""
    for one in told if isinstance(told, list) else ():
        if isinstance(one, dict) and all(isinstance(one.get(c), (int, float)) for c in CORNERS):
            word = next((as_label(one[w]) for w in ("class", "name", "label") if w in one), None)
            if word is not None:
                xmin, ymin, xmax, ymax = (float(one[corner]) for corner in CORNERS)
                yield ObjectRecord(word, xmin, ymin, xmax, ymax)
