"""Boxes on photographs: those of annotated objects, as far as features show them, and those of patches."""

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from .annotations import objects_of, sizes_of
from .errors import NotInStoreError
from .geometry import Box, Geometry
from .query import restricted

if TYPE_CHECKING:
    from .dataset import FeatureDataset

__all__ = ["PhotographBoxes", "check_boxes"]


def check_boxes(root: Path, dataset: str) -> None:
    """Raise NotInStoreError where a data set has no box of an object at all."""
    with restricted(root, dataset) as connection:
        if not connection.execute("SELECT count(*) FROM objects").fetchall()[0][0]:
            raise NotInStoreError(
                f"{dataset} has no boxes of objects, and masks of classes do not tell objects apart: index the data set "
                "with its boxes (VOC's Annotations, COCO's instances_*.json), or choose another --task"
            )


class PhotographBoxes:
    """Boxes on the photographs of a data set's samples: left, top, right, bottom [pixels of the photograph], from 0 on."""

    def __init__(self, root: Path, data: "FeatureDataset") -> None:
        """Look up sizes and objects. Raises NotInStoreError where the recipe does not say what features show."""
        version, stored = data.version, data.stored[0]
        geometry = Geometry.of(data.recipe)
        if geometry is None:
            raise NotInStoreError(
                f"the recipe of {version.name} names no input size, so where patches lie is not known: import its features "
                "again with --input-size"
            )
        self.geometry, self.stored = geometry, stored
        self.stride: int | None = data.recipe["backbone"].get("stride")
        self.sizes = sizes_of(root, version.dataset, data.ids)
        self.objects = objects_of(root, version.dataset, data.ids)
        with restricted(root, version.dataset) as connection:
            self.crowds = connection.execute("SELECT layout FROM datasets").fetchall()[0][0] == "coco"

    def true(self, place: int) -> NDArray[np.float64]:
        """Return the boxes (K, 4) of a sample's objects, cut to what features show of it, those beyond left out.

        All count, difficult and truncated ones too, but for COCO's crowds, which are no single object.
        """
        height, width = self.sizes[place].tolist()
        own = slice(self.objects.start.item(place), self.objects.start.item(place) + self.objects.count.item(place))
        corners = self.objects.corners[own].astype(np.float64) * [width, height, width, height]
        if self.crowds:
            corners = corners[~self.objects.difficult[own]]
        top, left, rows, columns = self.geometry.box(height, width)
        shown = np.clip(corners, [left, top, left, top], [left + columns, top + rows] * 2)
        seen: NDArray[np.float64] = shown[(shown[:, 2] > shown[:, 0]) & (shown[:, 3] > shown[:, 1])]
        return seen

    def of_patches(self, place: int, box: Box, grid: tuple[int, int]) -> NDArray[np.float64]:
        """Return where a ``box`` (top, left, bottom, right) of a sample's patches lies; ``grid`` is that of the map."""
        stride = self.stride if grid == self.stored.grid(place) else None
        height, width = self.sizes[place].tolist()
        return np.array(self.geometry.pixels(box, grid, height, width, stride))
