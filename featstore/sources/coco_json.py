"""COCO's instances_*.json: the boxes of each image. Half a gigabyte of polygons is parsed and none of it kept."""

import json
import math
from collections import Counter
from collections.abc import Collection
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from featstore.records import ObjectRecord

from .files import few

__all__ = ["Instances", "read_instances"]

Box = tuple[int, int, tuple[float, float, float, float], bool]
"""image_id, category_id, edges, crowd."""


@dataclass
class Instances:
    """Boxes by file name; ``names`` are all images of the file, ``wrong`` a line for each thing that is left out."""

    names: dict[str, int] = field(default_factory=dict)
    boxes: dict[int, list[Box]] = field(default_factory=dict)
    classes: dict[int, str] = field(default_factory=dict)
    wrong: list[str] = field(default_factory=list)

    def numbers_of(self, paths: Collection[str]) -> dict[str, int]:
        """Return the number of each image that is there, by its path below the part.

        Some files name images with more folders or fewer than they lie in: then the name alone decides, if no other has it.
        """
        bare = Counter(map(name_of, self.names))
        alone = {name_of(path): number for path, number in self.names.items() if bare[name_of(path)] == 1}
        held = Counter(map(name_of, paths))
        guessed = {path: alone[name_of(path)] for path in paths if name_of(path) in alone and held[name_of(path)] == 1}
        return guessed | {path: self.names[path] for path in paths if path in self.names}

    def objects_of(self, number: int | None) -> tuple[ObjectRecord, ...]:
        """Return the boxes of an image by its number."""
        found = self.boxes.get(number, ()) if number is not None else ()
        return tuple(
            ObjectRecord(self.classes.get(category, str(category)), *edges, crowd)
            for _, category, edges, crowd in found
        )


def name_of(path: str) -> str:
    """Return a path's last part."""
    return path.rpartition("/")[2]


def shrink(found: dict[str, Any]) -> Any:
    """Return what is needed of a JSON object as soon as it is parsed, so that polygons are freed one by one.

    An annotation becomes a Box, an annotation without four finite numbers its id, a run-length mask nothing.
    """
    if "counts" in found:
        return None
    if "image_id" in found and "category_id" in found:
        try:
            x, y, width, height = map(float, found["bbox"])
            edges = (x, y, x + width, y + height)
            if min(width, height) >= 0 and math.isfinite(math.fsum(edges)):
                return (int(found["image_id"]), int(found["category_id"]), edges, bool(found.get("iscrowd")))
        except (KeyError, TypeError, ValueError):
            pass
        return found.get("id", -1)
    if "file_name" in found:
        return {"id": found.get("id"), "file_name": found["file_name"]}
    return found


def read_instances(path: Path) -> Instances:
    """Read the boxes of a file; one that is cut off or of another form gives none, and a line that says so."""
    told = Instances()
    try:
        data = json.loads(path.read_bytes(), object_hook=shrink)
        told.classes = {int(entry["id"]): str(entry["name"]) for entry in data["categories"]}
        told.names = {str(entry["file_name"]): int(entry["id"]) for entry in data["images"]}
        boxes = data["annotations"]
    except OSError as error:
        return Instances(wrong=[f"the file cannot be read, its boxes are left out: {error.strerror}"])
    except (ValueError, KeyError, TypeError):
        reason = "is cut off or lacks `images`, `annotations` or `categories`, its boxes are left out: fetch it again"
        return Instances(wrong=[f"the JSON {reason}"])
    known = set(told.names.values())
    bad: list[str] = []
    strange = 0
    for box in boxes:
        if not isinstance(box, tuple):
            bad.append(str(box))
        elif box[0] not in known:
            strange += 1
        else:
            told.boxes.setdefault(box[0], []).append(box)
    if bad:
        reason = "have no image, no category or no box of four numbers and are left out"
        told.wrong.append(f"{len(bad):,} of {len(boxes):,} annotations {reason}: {few(bad)}")
    if strange:
        told.wrong.append(f"{strange:,} of {len(boxes):,} annotations are of images that the file does not name")
    return told
