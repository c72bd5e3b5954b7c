"""What a task gave of a version: its figures beside the first version's, kept in the manifest, and as a table."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from pathlib import Path
from textwrap import shorten
from typing import TYPE_CHECKING, Any

from featstore.errors import InputError
from featstore.evaluations import Figure, keep_evaluations
from featstore.truths import Parts, digest_of
from featstore.versions import Version

from .printing import plural, table_text

if TYPE_CHECKING:
    from .evaluating import Outcome

__all__ = ["Measured", "figures_table", "joined", "parts_text"]

DIFFERENCE = ("baseline", "difference", "difference_low", "difference_high")
LINE = 100  # letters of a condition that are told
Told = tuple[Version, Sequence[Figure]]


@dataclass(frozen=True, eq=False)
class Measured:
    """What a task gave of one version; figures are compared with those of ``first``'s first variant, or its own."""

    version: Version
    task: str
    parts: tuple[Parts, ...]
    outcome: "Outcome"
    first: "Measured | None"

    @cached_property
    def figures(self) -> list[Figure]:
        """Return every variant's figures; raises InputError where nothing could be judged."""
        base = self.first or self
        variant = next(iter(base.outcome))[0]
        found = []
        for (own, metric), measured in self.outcome.items():
            value, low, high = measured.interval()
            figure = Figure(own, metric, value, low, high, measured.told, measured.seeds)
            peer = base.outcome.get((variant, metric))
            if peer is not None and measured is not peer:
                apart, least, most = measured.beyond(peer)
                name = f"{base.version.name} {variant}"
                figure = replace(figure, baseline=name, difference=apart, difference_low=least, difference_high=most)
            found.append(figure)
        if all(figure.value != figure.value for figure in found):
            raise InputError("nothing can be judged: no pixel of the images to judge by has a value that counts")
        return found

    def keep(self, root: Path, parameters: dict[str, object]) -> None:
        """List the figures in the manifest; raises StoreError where that cannot be."""
        settings: dict[str, object] = dict(zip(("train", "val"), self.parts[0].where, strict=True))
        settings |= {"images": digest_of(self.parts)} | parameters
        if len(self.parts) > 1:
            settings["folds"] = len(self.parts)
        keep_evaluations(root, self.version, self.task, self.figures, settings, self.counts())

    def counts(self) -> tuple[int, int]:
        """Return how many images taught (of the first fold) and how many were judged."""
        return len(self.parts[0].train), sum(len(fold.val) for fold in self.parts)

    def rows(self) -> list[dict[str, Any]]:
        """Return the figures, JSON-ready; without a baseline they have no difference."""
        counts = dict(zip(("train_images", "val_images"), self.counts(), strict=True))
        rows = []
        for figure in self.figures:
            told = {key: value for key, value in asdict(figure).items() if figure.baseline or key not in DIFFERENCE}
            head = {"version": self.version.name, "method": self.version.method, "task": self.task}
            rows.append(head | told | counts)
        return rows

    def told(self) -> list[Told]:
        """Return the figures, variant by variant."""
        variants = dict.fromkeys(figure.variant for figure in self.figures)
        return [(self.version, [figure for figure in self.figures if figure.variant == name]) for name in variants]


def joined(folds: Sequence["Outcome"]) -> "Outcome":
    """Return what all folds gave as one."""
    import dvt

    whole: Outcome = {}
    for key, first in folds[0].items():
        others = [fold[key] for fold in folds[1:]]
        sums = [other for other in others if isinstance(other, dvt.Sums)]
        whole[key] = first.joined(sums) if isinstance(first, dvt.Sums) and sums else first
    return whole


def parts_text(parts: Sequence[Parts]) -> str:
    """Return which images are taken, in words."""
    first, (taught, judged) = parts[0], (shorten(where, LINE, placeholder=" …") for where in parts[0].where)
    if len(parts) > 1:
        count = sum(len(fold.val) for fold in parts)
        return f"{plural(count, 'image')} ({judged}), each judged by what {taught} teach"
    trained = f"{plural(len(first.train), 'image')} to train on ({taught}), " if first.train else ""
    return f"{trained}{len(first.val)} to judge by ({judged})"


def figures_table(lines: Sequence[Told]) -> str:
    """Return the figures as a table, a line a version and variant."""
    names = [figure.metric for figure in lines[0][1]]
    delta = any(figures[0].baseline for _, figures in lines)
    columns = ["version", "method", "variant", names[0], *([f"Δ {names[0]}"] if delta else []), *names[1:]]
    shown = []
    for version, figures in lines:
        first, cells = figures[0], [bracketed(figure.value, figure.low, figure.high) for figure in figures]
        change = bracketed(first.difference, first.difference_low, first.difference_high, "+") if first.baseline else ""
        shown.append((version.name, version.method, first.variant, cells[0], *([change] if delta else []), *cells[1:]))
    return table_text(columns, shown)


def bracketed(value: float, low: float, high: float, sign: str = "") -> str:
    """Return a figure with its interval, where it has one."""
    text = f"{value:{sign}.3f}"
    return text if low != low else f"{text} [{low:{sign}.3f}, {high:{sign}.3f}]"
