"""One VOC annotation file: boxes, classes, flags."""

import math
import re
from pathlib import Path
from xml.etree import ElementTree

from featstore.records import ObjectRecord

__all__ = ["read_annotation"]

ENTITY = re.compile(rb"<!(DOCTYPE|ENTITY)", re.IGNORECASE)


def read_annotation(path: Path) -> tuple[tuple[ObjectRecord, ...], list[str]]:
    """Return the boxes that can be read, and a line for each thing that cannot."""
    try:
        data = path.read_bytes()
    except OSError as error:
        return (), [f"unreadable: {error.strerror}"]
    if ENTITY.search(data):
        return (), ["the XML declares a document type or entities, which annotations do not need: refused"]
    try:
        tree = ElementTree.fromstring(data)
    except (ElementTree.ParseError, ValueError) as error:
        return (), [f"broken XML: {error}"]
    objects: list[ObjectRecord] = []
    problems: list[str] = []
    for number, element in enumerate(tree.findall("object"), 1):
        try:
            objects.append(read_object(element))
        except ValueError as error:
            problems.append(f"object {number} is left out: {error}")
    return tuple(objects), problems


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
