"""What a source yields: one frozen record an image, and one a problem."""

from dataclasses import dataclass

__all__ = ["ImageRecord", "Meaning", "ObjectRecord", "Problem"]


@dataclass(frozen=True, slots=True)
class ObjectRecord:
    """One annotated box: its edges [pixels] from the image's upper left corner, so that the whole image is 0, 0, width, height.

    Layout ``voc`` alone keeps its files' numbers: pixels counted from 1, both edges inside. ``difficult`` boxes do not count in
    evaluation (COCO: crowds).
    """

    name: str
    xmin: float
    ymin: float
    xmax: float
    ymax: float
    difficult: bool = False
    truncated: bool = False
    occluded: bool = False
    pose: str | None = None


@dataclass(frozen=True, slots=True)
class ImageRecord:
    """One image as its source describes it, before its bytes are read.

    Paths are POSIX paths below the source's folder, or absolute, or URLs, where the file lies elsewhere; behind ``::`` the name
    of a file inside a tar, Parquet or MATLAB file (``train.tar::a.jpg``, ``train.parquet::17/image``, ``a.mat::images/12``).
    """

    image_id: str
    path: str
    part: str | None = None
    split: str | None = None
    splits: tuple[str, ...] = ()
    label: str | None = None
    mask_path: str | None = None
    instance_path: str | None = None
    depth_path: str | None = None
    objects: tuple[ObjectRecord, ...] = ()


@dataclass(frozen=True)
class Meaning:
    """What the numbers in a data set's masks and depth maps mean.

    ``mask_classes`` names each label from 0 on; ``mask_ignored`` are labels that count for nothing; ``mask_coding`` says how a
    mask file holds its labels (``index``: a number a pixel; others are in ``featstore.codings``); ``depth_metres`` is the
    length of a depth map's unit [m]. None where the layout does not say.
    """

    mask_classes: tuple[str, ...] | None = None
    mask_ignored: tuple[int, ...] | None = None
    mask_coding: str = "index"
    depth_metres: float | None = None


@dataclass(frozen=True)
class Problem:
    """Something a source or a decoder could not read; becomes a row of ``failures``.

    ``step`` is one of ``image``, ``annotation``, ``mask``, ``split``; ``error`` is one line.
    """

    path: str
    step: str
    error: str
    image_id: str | None = None
