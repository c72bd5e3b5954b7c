"""Figures of tasks in the manifest, and in the note beside their version."""

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from . import manifest
from .notes import keep_notes
from .recipe import canonical
from .versions import Version

__all__ = ["Figure", "keep_evaluations"]


@dataclass(frozen=True)
class Figure:
    """One figure of one variant: its value and the ends of its 95 % interval over ``interval``, NaN without one.

    ``difference`` is that from the same figure of ``baseline`` ("voc/dinov2_b/v1 raw"), paired, with its own interval.
    """

    variant: str
    metric: str
    value: float
    low: float
    high: float
    interval: str | None
    seeds: int = 1
    baseline: str | None = None
    difference: float = math.nan
    difference_low: float = math.nan
    difference_high: float = math.nan


def keep_evaluations(
    root: Path,
    version: Version,
    task: str,
    figures: Sequence[Figure],
    settings: dict[str, object],
    images: tuple[int, int],
) -> None:
    """List what was measured of a version; figures with the same settings are replaced. ``images`` count train and val.

    Raises LockedError, StoreError where the manifest cannot be written.
    """
    head: dict[str, Any] = {"dataset": version.dataset, "backbone": version.backbone, "digest": version.digest}
    head |= {"task": task}
    head |= {"settings": canonical(settings), "created_at": manifest.now()}
    head |= {"train_images": images[0], "val_images": images[1]}
    with manifest.writing(root, create=False) as writer:
        known = writer.execute("SELECT count(*) FROM versions WHERE version_id = ?", [version.version_id]).fetchall()
        if known[0][0]:  # it may have been removed in the meantime
            manifest.insert(writer, "evaluations", [head | asdict(one) for one in figures], "INSERT OR REPLACE")
    keep_notes(root, version.dataset)
