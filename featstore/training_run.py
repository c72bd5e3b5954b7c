"""The folder of one training: its recipe, last checkpoint and curve, each whole at any moment."""

import json
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from .manifest import plain
from .recipe import Recipe
from .root import hold_lock, require_local
from .sealing import storing, sweep, write_bytes, write_text

__all__ = ["TrainingRun"]


class TrainingRun:
    """``<root>/<dataset>/<backbone>/denoisers/<first 12 digits>/`` of the training whose recipe this is.

    ``checkpoint.safetensors`` is the whole state at some step, ``metrics.jsonl`` one line a step told up to there and maybe
    beyond, ``denoiser.safetensors`` the result. Methods that write raise StoreError where the disk refuses.
    """

    def __init__(self, root: Path, dataset: str, backbone: str, recipe: Recipe) -> None:
        require_local(root, "training, which writes as it goes,")
        self.recipe = recipe
        self.folder = root / dataset / backbone / "denoisers" / recipe.digest[:12]
        self.checkpoint = self.folder / "checkpoint.safetensors"
        self.metrics = self.folder / "metrics.jsonl"
        self.denoiser = self.folder / "denoiser.safetensors"
        self.plot = self.folder / "loss.png"

    @contextmanager
    def held(self, restart: bool = False) -> Iterator[None]:
        """Make the folder and be the only one to train there; ``restart`` forgets what was learned before.

        Raises LockedError while another process trains it.
        """
        with storing(self.folder):
            self.folder.mkdir(parents=True, exist_ok=True)
        with hold_lock(self.folder / ".lock", f"training {self.folder}"):
            sweep(self.folder)
            if restart:
                for path in (self.checkpoint, self.metrics, self.denoiser, self.plot, *self.folder.glob("events.*")):
                    path.unlink(missing_ok=True)
            with storing(self.folder):
                write_text(self.folder / "recipe.json", self.recipe.text)
            yield

    def save(self, state: bytes) -> None:
        """Write a checkpoint; the one before stays until this is whole."""
        with storing(self.checkpoint):
            write_bytes(self.checkpoint, state)

    def finish(self, denoiser: bytes) -> None:
        """Write the result."""
        with storing(self.denoiser):
            write_bytes(self.denoiser, denoiser)

    def append(self, rows: Iterable[Mapping[str, Any]]) -> None:
        """Add lines to the curve; NaN becomes null, as JSON has none."""
        with storing(self.metrics), self.metrics.open("a", encoding="utf-8") as file:
            file.writelines(json.dumps({key: plain(value) for key, value in row.items()}) + "\n" for row in rows)

    def curve(self) -> list[dict[str, Any]]:
        """Return the lines of the curve; a last one that a kill cut short is left out."""
        if not self.metrics.is_file():
            return []
        rows = []
        for line in self.metrics.read_text(encoding="utf-8").splitlines():
            try:
                rows.append(json.loads(line))
            except ValueError:
                break
        return rows

    def rewind(self, step: int) -> list[dict[str, Any]]:
        """Take lines after ``step`` off the curve, which steps taken again will write; returns those that stay."""
        rows = [row for row in self.curve() if row["step"] <= step]
        with storing(self.metrics):
            write_text(self.metrics, "".join(json.dumps(row) + "\n" for row in rows))
        return rows
