"""Tables of what stored features are worth: a line a variant, and by how much it differs from the first."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any

__all__ = ["Cell", "Table", "make_tables"]

TITLES = {
    "segmentation": "Segmentation by a linear head",
    "knn": "Patches labelled by their nearest neighbours",
    "depth": "Depth by a linear head",
    "position": "How much is position",
    "discovery": "Objects found without labels",
}
LESS = ("RMSE", "AbsRel", "variance explained", "MIC")
"""Metrics of which less is better."""
MORE = ("mIoU", "aAcc", "mAcc", "delta", "CorLoc")
UNSAID = ("images",)
"""Settings that tell a reader nothing: a digest."""


@dataclass(frozen=True)
class Cell:
    """A figure, and its 95 % interval where it has one."""

    value: str
    interval: str = ""


@dataclass(frozen=True)
class Table:
    """Figures measured alike: ``rows`` and ``changes`` hold (variant, a cell a metric)."""

    task: str
    title: str
    metrics: tuple[tuple[str, str], ...]
    rows: tuple[tuple[str, tuple[Cell, ...]], ...]
    changes: tuple[tuple[str, tuple[Cell, ...]], ...]
    words: str
    settings: tuple[tuple[str, str], ...]


def make_tables(evaluations: Sequence[Mapping[str, Any]]) -> list[Table]:
    """Return a table of each task and settings, of rows in the order in which they come; one task's lie together."""
    alike: dict[tuple[str, str], list[Mapping[str, Any]]] = {}
    for row in evaluations:
        alike.setdefault((row["task"], str(row["settings"])), []).append(row)
    tasks = list(dict.fromkeys(task for task, _ in alike))
    return [make_table(rows) for wanted in tasks for (task, _), rows in alike.items() if task == wanted]


def make_table(rows: Sequence[Mapping[str, Any]]) -> Table:
    """Return the table of figures that were measured alike: this version's (``peer`` None), then those of its peers.

    Differences are from raw: this version's, else that of another version of the same backbone, else from the first line.
    """
    ranked = sorted(rows, key=lambda row: (row["peer"] or "", row["variant"] != "raw", row["variant"]))
    metrics = sorted({row["metric"] for row in rows}, key=order)
    lines = {name: {row["metric"]: row for row in own} for name, own in groupby(ranked, key=label)}
    mine = list(dict.fromkeys(label(row) for row in ranked if row["peer"] is None))
    raws = [label(row) for row in ranked if row["variant"] == "raw" and "/" not in (row["peer"] or "")]
    base = lines[(raws or mine)[0]]
    changes = [
        (
            f"{name} − {(raws or mine)[0]}",
            tuple(change(lines[name].get(metric), base.get(metric)) for metric in metrics),
        )
        for name in mine
        if lines[name] is not base
    ]
    head = ranked[0]
    return Table(
        str(head["task"]),
        TITLES.get(head["task"], str(head["task"])),
        tuple((metric, arrow(metric)) for metric in metrics),
        tuple((name, tuple(cell(own.get(metric)) for metric in metrics)) for name, own in lines.items()),
        tuple(changes),
        words([row for row in ranked if row["peer"] is None]),
        tuple((f"{key}:", said(value)) for key, value in head["settings"].items() if key not in UNSAID and value != ""),
    )


def label(row: Mapping[str, Any]) -> str:
    """Return what a line is of: a variant, of another version where it is not this one's."""
    return " ".join(filter(None, (row["peer"], str(row["variant"]))))


def said(value: object) -> str:
    """Return a setting as a reader wants it; the condition ``true`` chooses every image."""
    return "all images" if value == "true" else str(value)


def words(rows: Sequence[Mapping[str, Any]]) -> str:
    """Return on what and when it was measured."""
    row, seeds = rows[0], max(row["seeds"] for row in rows)
    trained = f"{row['train_images']:,} images to learn from, " if row["train_images"] else ""
    over = " or ".join(sorted({str(row["interval"]) for row in rows if row["interval"]}))
    interval = f"; brackets hold 95 % intervals over {over}" if over else ""
    repeated = f", {seeds} seeds" if seeds > 1 else ""
    when = max(row["created_at"] for row in rows)
    return f"{trained}{row['val_images']:,} images to judge by{repeated}{interval}. Measured {when:%Y-%m-%d}."


def order(metric: str) -> tuple[int, str]:
    """Return where a metric stands: the one a task is known by comes first."""
    known = ("mIoU", "RMSE", "CorLoc", "variance explained", "aAcc", "mAcc", "AbsRel")
    return (known.index(metric) if metric in known else len(known), metric)


def arrow(metric: str) -> str:
    """Return whether more or less is better, nothing where it is not known."""
    return "↓" if metric.startswith(LESS) else "↑" if metric.startswith(MORE) else ""


def cell(row: Mapping[str, Any] | None) -> Cell:
    """Return a figure with its interval."""
    if row is None or not known(row, "value"):
        return Cell("–")
    return Cell(f"{row['value']:.3f}", f"{row['low']:.3f}, {row['high']:.3f}" if known(row, "low", "high") else "")


def known(row: Mapping[str, Any] | None, *columns: str) -> bool:
    """Whether all these columns of a row hold numbers."""
    return row is not None and all(row[name] is not None and math.isfinite(row[name]) for name in columns)


def change(own: Mapping[str, Any] | None, peer: Mapping[str, Any] | None) -> Cell:
    """Return by how much a figure differs from another, with its paired interval where it was measured beside that."""
    if own is None or peer is None or not (known(own, "value") and known(peer, "value")):
        return Cell("–")
    beside = own.get("baseline") is not None and own["baseline"] == peer["named"]
    paired = beside and known(own, "difference", "difference_low", "difference_high")
    ends = f"{own['difference_low']:+.3f}, {own['difference_high']:+.3f}" if paired else ""
    told = own["difference"] if paired else own["value"] - peer["value"]
    return Cell(f"{told:+.3f}".replace("-", "−"), ends.replace("-", "−"))
