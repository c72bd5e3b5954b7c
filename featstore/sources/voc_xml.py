"""One VOC annotation file: boxes, classes, flags."""

import math
import re
from pathlib import Path
from xml.etree import ElementTree
from xml.parsers import expat

from featstore.records import ObjectRecord

__all__ = ["read_annotation"]

SUSPECT = re.compile(rb"<!ENTITY|\0", re.IGNORECASE)
"""What a file with entities contains: the word, or the zero bytes of an encoding in which it is spelt otherwise."""


class EntityFoundError(ValueError):
    """The XML declares an entity, which could unfold to gigabytes."""


def read_annotation(path: Path) -> tuple[tuple[ObjectRecord, ...], list[str]]:
    """Return the boxes that can be read, and a line for each thing that cannot."""
    try:
        data = path.read_bytes()
        if SUSPECT.search(data):
            refuse_entities(data)
        tree = ElementTree.fromstring(data)
    except OSError as error:
        return (), [f"the annotation cannot be read: {error.strerror}"]
    except EntityFoundError:
        return (), ["the XML declares entities, which annotations do not need, and is refused: take them out"]
    except (expat.ExpatError, ElementTree.ParseError, ValueError, LookupError) as error:
        return (), [f"broken XML, its boxes are left out: {error}"]
    objects: list[ObjectRecord] = []
    problems: list[str] = []
    for number, element in enumerate(tree.findall("object"), 1):
        try:
            objects.append(read_object(element))
        except ValueError as error:
            problems.append(f"object {number} is left out: {error}")
    return tuple(objects), problems


def refuse_entities(data: bytes) -> None:
    """Parse without keeping anything; raises EntityFoundError at the first entity, before it is ever unfolded."""

    def found(*_: object) -> None:
        raise EntityFoundError

    parser = expat.ParserCreate()
    parser.EntityDeclHandler = found
    parser.Parse(data, True)


def read_object(element: ElementTree.Element) -> ObjectRecord:
    """Return one box; raises ValueError saying what is wrong with it."""
    name = (element.findtext("name") or "").strip()
    if not name:
        raise ValueError("it has no class name")
    box = element.find("bndbox")
    if box is None:
        raise ValueError("it has no bndbox")
    xmin, ymin, xmax, ymax = (number(box, edge) for edge in ("xmin", "ymin", "xmax", "ymax"))
    if xmin > xmax or ymin > ymax:
        raise ValueError(f"its box is inverted: {xmin:g} {ymin:g} {xmax:g} {ymax:g}")
    difficult, truncated, occluded = (is_set(element, flag) for flag in ("difficult", "truncated", "occluded"))
    pose = (element.findtext("pose") or "").strip() or None
    return ObjectRecord(name, xmin, ymin, xmax, ymax, difficult, truncated, occluded, pose)


def is_set(element: ElementTree.Element, flag: str) -> bool:
    """Whether a flag is there and says yes."""
    return (element.findtext(flag) or "0").strip() in ("1", "true", "True")


def number(box: ElementTree.Element, edge: str) -> float:
    """Return one edge of a box."""
    text = box.findtext(edge)
    try:
        value = float(text or "")
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise ValueError(f"its {edge} is {text!r}")
    return value
