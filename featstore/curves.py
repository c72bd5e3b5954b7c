"""A training's curve as a picture and as TensorBoard events."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from .sealing import sealed, storing

__all__ = ["EventLog", "draw_curve"]

COUNTS = ("step", "val_images")


class EventLog:
    """Scalars of every row for TensorBoard, in ``folder``; events after ``step`` of an earlier, killed run are purged."""

    def __init__(self, folder: Path, step: int) -> None:
        from torch.utils.tensorboard import SummaryWriter

        self.writer = SummaryWriter(str(folder), purge_step=step + 1)

    def add(self, row: Mapping[str, Any]) -> None:
        """Note the numbers of one row."""
        for name, value in row.items():
            if name not in COUNTS and value is not None and math.isfinite(value):
                group, _, kind = name.rpartition("val_")
                tag = f"heldout/{kind}" if name.startswith("val_") else f"train/{kind or group}"
                self.writer.add_scalar(tag, value, row["step"])

    def flush(self) -> None:
        """Have everything on the disk that was noted; a kill loses what was not."""
        self.writer.flush()

    def close(self) -> None:
        """Flush and close."""
        self.writer.close()


def draw_curve(rows: Sequence[Mapping[str, Any]], path: Path, title: str) -> None:
    """Draw loss and cosine of training and held-out images over steps, with raw's, as a PNG."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    judged = [row for row in rows if "val_loss" in row]
    figure = Figure(figsize=(9, 3.6), layout="constrained", dpi=120)
    FigureCanvasAgg(figure)
    for axes, name, label in zip(
        figure.subplots(1, 2), ("loss", "cosine"), ("mse + 1 − cosine", "cosine to clean"), strict=True
    ):
        axes.plot([row["step"] for row in rows], [row[name] for row in rows], color="0.75", lw=0.8, label="training")
        if judged:
            steps = [row["step"] for row in judged]
            axes.plot(steps, [row[f"val_{name}"] for row in judged], color="C0", marker=".", label="held out")
            raw = [row["val_raw_cosine"] for row in judged]
            if name == "loss":
                raw = [row["val_raw_mse"] + 1 - row["val_raw_cosine"] for row in judged]
            axes.plot(steps, raw, color="C3", ls="--", label="held out, raw")
        axes.set_xlabel("step")
        axes.set_ylabel(label)
    handles, names = axes.get_legend_handles_labels()
    figure.legend(handles, names, loc="outside lower center", ncols=3, frameon=False)
    figure.suptitle(title, fontsize=10)
    with storing(path), sealed(path) as temporary:
        figure.savefig(temporary, format="png")
