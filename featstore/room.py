"""Whether a build fits where its store lies."""

import os
import shutil
from collections.abc import Iterable
from pathlib import Path

from .errors import StoreError
from .places import as_remote
from .plan import Plan

__all__ = ["check_room", "free_bytes", "needed"]

SHARE, LEAST = 0.02, 32 * 2**20
"""What a build needs beside its maps: headers, tables and manifest, as a share of them, and at least so many bytes."""


def free_bytes(root: Path) -> int | None:
    """Return the space left on the file system of ``root`` [bytes]; None behind a URL, where nobody tells."""
    if as_remote(root) is not None:
        return None
    here = root
    while not here.exists() and here != here.parent:
        here = here.parent
    return shutil.disk_usage(here).free


def needed(plan: Plan) -> int:
    """Return how much must be free for a build [bytes]; nothing where it has nothing to do."""
    size = plan.bytes_to_write
    return size + max(int(SHARE * size), LEAST) if plan.todo else 0


def check_room(root: Path, plans: Iterable[Plan]) -> None:
    """Raise StoreError where a build cannot fit."""
    free, size = free_bytes(root), sum(map(needed, plans))
    if free is not None and size > free:
        raise StoreError(
            f"this build does not fit: it needs {gigabytes(size)} and {os.fspath(root)} has {gigabytes(free)} free; make room, "
            "take fewer --variants, a --limit, --store int8 or another --root, or go on regardless with --force"
        )


def gigabytes(size: int) -> str:
    """Return bytes in words."""
    return f"{size / 1e9:,.1f} GB" if size >= 1e8 else f"{size / 1e6:,.1f} MB"
