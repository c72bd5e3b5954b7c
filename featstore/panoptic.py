"""COCO's panoptic pictures: a colour is a number of a segment, whose category only the JSON beside the pictures knows."""

import json
import os
import uuid
from contextlib import suppress
from functools import lru_cache
from hashlib import blake2b
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np
from numpy.typing import NDArray

from .cache import cache_folder
from .errors import DecodeError, StoreError

__all__ = ["Segments", "categories_in", "json_beside", "segments_of"]

PARSED = "panoptic"


class Segments:
    """The segments of every picture of one folder, a few bytes each: those of picture i are ``start[i]`` to ``start[i + 1]``.

    ``names`` (N,) are stems as bytes, sorted; ``ids`` and ``categories`` (S,), ids sorted within a picture.
    """

    def __init__(self, arrays: dict[str, NDArray[Any]]) -> None:
        self.names, self.start = arrays["names"], arrays["start"]
        self.ids, self.categories = arrays["ids"], arrays["categories"]
        self.classes = tuple(json.loads(arrays["classes"].tobytes()))

    def labels(self, colours: NDArray[np.uint8], stem: str) -> NDArray[np.uint16]:
        """Return the category (h, w) of every pixel of a picture, 0 where it shows no segment.

        A segment's number is red + 256 green + 256² blue, as in COCO's panopticapi. Raises DecodeError for a picture or a
        segment that the JSON does not name.
        """
        numbers = colours.astype(np.uint32) @ np.array([1, 256, 65536], np.uint32)
        at = int(np.searchsorted(self.names, stem.encode()))
        if at == len(self.names) or self.names[at] != stem.encode():
            raise DecodeError("the JSON beside the panoptic pictures does not name this one: fetch both again")
        own = slice(self.start[at], self.start[at + 1])
        known = np.concatenate([np.zeros(1, np.uint32), self.ids[own]])
        place = np.minimum(np.searchsorted(known, numbers), len(known) - 1)
        if (known[place] != numbers).any():
            raise DecodeError("the picture shows segments that the JSON beside it does not name: fetch both again")
        found: NDArray[np.uint16] = np.concatenate([np.zeros(1, np.uint16), self.categories[own]])[place]
        return found


def json_beside(folder: Path) -> Path | None:
    """Return the JSON of a folder of pictures: ``panoptic_val2017.json`` beside it or in annotations; None without one."""
    name = f"{folder.name}.json"
    return next((path for path in (folder.parent / name, folder.parent / "annotations" / name) if path.is_file()), None)


@lru_cache(maxsize=8)
def segments_of(folder: Path) -> Segments:
    """Return the segments of a folder of pictures; the JSON, a third of a gigabyte, is parsed once and kept in the cache.

    Raises DecodeError where there is no JSON, or it is cut off.
    """
    path = json_beside(folder)
    if path is None:
        raise DecodeError(f"the labels of panoptic pictures need {folder.name}.json beside their folder")
    status = path.stat()
    key = blake2b(f"{path}\n{status.st_size}\n{status.st_mtime_ns}".encode(), digest_size=16).hexdigest()
    unusable = (StoreError, OSError, EOFError, ValueError, KeyError, BadZipFile)
    with suppress(*unusable), np.load(cache_folder(PARSED) / f"{key}.npz") as kept:
        return Segments(dict(kept))
    arrays: dict[str, Any] = parse(path)
    with suppress(StoreError, OSError):  # a cache that cannot be written is one that forgets
        place = cache_folder(PARSED) / f"{key}.npz"
        draft = place.with_name(f".{uuid.uuid4().hex}.npz")
        np.savez(draft, **arrays)
        os.replace(draft, place)  # noqa: PTH105
    return Segments(arrays)


def shrink(found: dict[str, Any]) -> Any:
    """Return what is needed of a JSON object as soon as it is parsed."""
    if "segments_info" in found:
        stem = str(found["file_name"]).rpartition("/")[2].rpartition(".")[0]
        pairs = np.array(sorted(found["segments_info"]), np.uint32).reshape(-1, 2)
        return stem.encode(), pairs
    return (found["id"], found["category_id"]) if "category_id" in found and "id" in found else found


def parse(path: Path) -> dict[str, NDArray[Any]]:
    """Return the arrays of ``Segments``; raises DecodeError where the JSON is not one of panoptic segments."""
    try:
        data = json.loads(path.read_bytes(), object_hook=shrink)
        pictures = sorted(data["annotations"], key=lambda picture: picture[0])
        classes = categories_in(data["categories"])
        pairs = np.concatenate([np.zeros((0, 2), np.uint32), *(pairs for _, pairs in pictures)])
    except (ValueError, KeyError, TypeError, OverflowError) as error:
        raise DecodeError(f"{path} is cut off or no JSON of panoptic segments: fetch it again") from error
    start = np.cumsum([0, *(len(pairs) for _, pairs in pictures)])
    return {
        "names": np.array([stem for stem, _ in pictures], np.bytes_),
        "start": start.astype(np.int64),
        "ids": pairs[:, 0].copy(),
        "categories": pairs[:, 1].astype(np.uint16),
        "classes": np.frombuffer(json.dumps(classes).encode(), np.uint8),
    }


def categories_in(entries: list[dict[str, Any]]) -> list[str]:
    """Return the name of each category by its number, empty for numbers that none has; 0 is unlabelled."""
    named = {int(entry["id"]): str(entry["name"]) for entry in entries}
    return ["unlabelled", *(named.get(number, "") for number in range(1, max(named, default=0) + 1))]
