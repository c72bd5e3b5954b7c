"""Denoisers that the manifest lists: what they were trained on, how good they are, where they lie."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from . import manifest
from .errors import NotInStoreError
from .notes import keep_denoiser
from .query import viewed

__all__ = ["DenoiserRow", "find_denoiser", "list_denoisers", "newest_denoiser", "register_denoiser"]

COLUMNS = ("dataset", "backbone", "number", "digest", "run", "path", "trained_on", "images", "recipe")
BEATS = "coalesce(cosine > raw_cosine, true)"


@dataclass(frozen=True)
class DenoiserRow:
    """One row of ``denoisers``. ``name`` is ``dataset/backbone/dN``; ``beats_raw`` is judged on held-out images."""

    dataset: str
    backbone: str
    number: int
    digest: str
    run: str
    path: str
    trained_on: str
    images: int
    recipe: str
    beats_raw: bool

    @property
    def name(self) -> str:
        """Return ``dataset/backbone/dN``."""
        return f"{self.dataset}/{self.backbone}/d{self.number}"

    @property
    def features(self) -> dict[str, Any]:
        """Return the part of the recipe that tells of which features it is."""
        told: dict[str, Any] = json.loads(self.recipe)["backbone"]
        return told


def list_denoisers(root: Path) -> list[DenoiserRow]:
    """Return every denoiser, the newest last."""
    with viewed(root) as connection:
        query = f"SELECT {', '.join(COLUMNS)}, {BEATS} FROM denoisers ORDER BY created_at, number"
        rows = connection.execute(query).fetchall()
    return [DenoiserRow(*row) for row in rows]


def find_denoiser(root: Path, name: str) -> DenoiserRow:
    """Return the one denoiser that ``name`` means: ``[dataset/[backbone/]]`` and ``dN`` or four or more digits of its digest.

    Raises NotInStoreError, naming what there is, where none or several fit.
    """
    *scope, last = name.strip("/").split("/")
    have = list_denoisers(root)
    fits = [one for one in have if is_named(one, last) and scope in scopes(one)]
    if len({one.digest for one in fits}) == 1:
        return fits[-1]
    there = ", ".join(one.name for one in (fits or have)) or "none is trained yet: featstore train NAME"
    problem = "means several" if fits else "is neither a file nor a denoiser of this store"
    raise NotInStoreError(f"{name!r} {problem}; there are: {there}")


def is_named(one: DenoiserRow, last: str) -> bool:
    """Whether ``last`` is a denoiser's number or the first digits of its digest."""
    return last == f"d{one.number}" or (len(last) >= 4 and one.digest.startswith(last.lower()))


def scopes(one: DenoiserRow) -> list[list[str]]:
    """Return what may stand before the last part of its name."""
    return [[], [one.dataset], [one.backbone], [one.dataset, one.backbone]]


def newest_denoiser(root: Path, backbone: Mapping[str, Any], dataset: str) -> DenoiserRow | None:
    """Return the newest denoiser of features of this recipe that beats raw, those of ``dataset`` first; None without one."""
    alike = [one for one in list_denoisers(root) if one.features == dict(backbone) and one.beats_raw]
    same = [one for one in alike if (root / one.path).is_file()]
    own = [one for one in same if one.dataset == dataset]
    return own[-1] if own else same[-1] if same else None


def register_denoiser(
    root: Path, row: Mapping[str, Any], train: Sequence[str], heldout: Sequence[str]
) -> tuple[int, bool]:
    """List a denoiser with the SHA-256 of its images; returns its number, and whether it is new.

    ``row`` has the columns of ``denoisers`` but number and time. A run keeps its number; where it comes to what is listed,
    the row stays as it is, so that asking again makes nothing the newest.
    """
    key = [row["dataset"], row["backbone"]]
    with manifest.writing(root) as connection:
        known = connection.execute(
            "SELECT number, digest FROM denoisers WHERE dataset = ? AND backbone = ? AND run = ?", [*key, row["run"]]
        ).fetchone()
        if known and known[1] == row["digest"]:
            return int(known[0]), False
        last = connection.execute(
            "SELECT coalesce(max(number), 0) FROM denoisers WHERE dataset = ? AND backbone = ?", key
        ).fetchall()[0][0]
        number = int(known[0]) if known else int(last) + 1
        whole = {**row, "number": number, "created_at": manifest.now()}
        manifest.insert(connection, "denoisers", [whole], verb="INSERT OR REPLACE")
        parts = {"train": train, "heldout": heldout}
        rows = [
            {"run": row["run"], "sha256": image, "part": part} for part, images in parts.items() for image in images
        ]
        manifest.insert(connection, "denoiser_images", rows, verb="INSERT OR REPLACE")
    keep_denoiser(root, str(row["run"]))
    return number, known is None
