"""What ``featstore build demo`` chooses for a first look: six photographs, demo weights, few views, one picture."""

from pathlib import Path
from typing import Any

import click
from click.core import ParameterSource

from featstore.build import BuildReport

__all__ = ["LAYOUT", "NAME", "choose", "draw"]

NAME = LAYOUT = "demo"
CHOICES = {"weights": "demo", "views": 32, "wide": 4, "holdout": 4}
SHOWN = 8


def choose(chosen: dict[str, Any], context: click.Context) -> dict[str, Any]:
    """Return the options with the demo's own wherever the user gave none."""
    given = {name for name in chosen if context.get_parameter_source(name) is not ParameterSource.DEFAULT}
    if chosen["method"] not in (None, "stage1"):
        given.add("views")  # other methods have numbers of their own
    return chosen | {name: value for name, value in CHOICES.items() if name not in given}


def draw(root: Path, report: BuildReport) -> Path | None:
    """Save the picture of a demo build; None where it stored no clean maps to show."""
    if not {"raw", "clean", "artifact"} <= set(report.variants):
        return None
    from featstore.picture import save_picture

    name = f"{report.dataset}/{report.backbone}/{report.version}"
    return save_picture(root, name, root / "pictures" / f"{name.replace('/', '-')}.png", limit=SHOWN)
