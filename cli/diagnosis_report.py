"""What ``featstore diagnose`` hands out: text, JSON, and the figure."""

from collections.abc import Sequence
from pathlib import Path
from textwrap import fill
from typing import TYPE_CHECKING, Any

import click
import numpy as np

from featstore.subset import Subset

from .diagnosis_tables import beside_text, examined_text, places_text, stored_text, verdict
from .printing import plural

if TYPE_CHECKING:
    from .diagnosing import Examined, LayerDiagnosis, OutlierRule

__all__ = ["draw", "report", "report_json"]

LINE = 100


def report_json(
    found: Sequence["Examined"], stored: "Examined | None", subset: Subset, rule: "OutlierRule"
) -> dict[str, Any]:
    """Return all of it for ``--json``."""
    images = [{"image": image.image_id, "sha256": image.sha256} for image in subset.images]
    told = {"images": images, "failed": subset.failed, "outlier": rule.text}
    told["backbones"] = [as_json(one, rule) for one in found]
    return told | {"stored": as_json(stored, rule) if stored else None}


def report(found: Sequence["Examined"], stored: "Examined | None", subset: Subset, rule: "OutlierRule") -> None:
    """Print tables, and what they come to."""
    click.echo(f"outlier: {rule.text}")
    for letter, one in zip("AB", found, strict=False):
        facts, seen = one.facts, one.diagnosis
        height, width = facts["input"]
        say(
            f"{letter + ': ' if len(found) > 1 else ''}{one.title} at {height}×{width}, {seen.grid[0]}×{seen.grid[1]} patches; "
            f"{plural(seen.images, 'image')}, {plural(seen.crops, 'crop')}; weights {facts['weights']}"
        )
    if found:
        click.echo("\n" + (examined_text(found[0], rule) if len(found) == 1 else beside_text(found, rule)) + "\n")
    for letter, one in zip("AB", found, strict=False):
        start = f"{letter}: " if len(found) > 1 else ""
        say(start + verdict(one, rule))
        if places := places_text(one, rule):
            say(start + places)
        say(
            f"{start}MIC of numbers that have nothing to do with position, on this grid: {one.diagnosis.mic_chance:.3f}"
        )
        if str(one.facts["weights"]).startswith("random"):
            say(f"{start}the weights are random: these are figures of a model that has learned nothing")
    if stored:
        layer = "" if stored.facts["layer"] is None else f", block {stored.facts['layer']}"
        layer += {True: ", after the final norm", False: ", before the final norm"}.get(stored.facts["norm"], "")
        click.echo(f"\n{stored.title} ({stored.facts['method']}{layer}), {plural(stored.diagnosis.images, 'image')}\n")
        click.echo(stored_text(stored, rule))
        if found and stored.facts["weights_digest"] != found[0].facts["weights_digest"]:
            click.echo("it was made with other weights than those above")
    for name, reason in subset.failed.items():
        click.echo(f"left out: {name}: {reason}", err=True)


def say(text: str) -> None:
    """Print a sentence in lines that fit."""
    click.echo(fill(text, LINE, subsequent_indent="  ", break_long_words=False))


def draw(found: Sequence["Examined"], rule: "OutlierRule", path: Path) -> None:
    """Save the figure."""
    from featstore.diagnosis_figure import Curves, Panel, save_figure

    panels = []
    for one in found:
        layers = one.diagnosis.layers
        curves = Curves(
            names=[layer.name for layer in layers],
            norms=[layer.norms for layer in layers],
            outliers=[rule.find(layer.norms) for layer in layers],
            prefix={
                name: [layer.prefix_norms[:, n] for layer in layers] for n, name in enumerate(one.diagnosis.prefix)
            },
            share_images=[layer.share_images for layer in layers],
            share_crops=[layer.share_crops for layer in layers],
            mic=[layer.mic for layer in layers],
            mic_chance=one.diagnosis.mic_chance,
        )
        looked = [n for n, layer in enumerate(layers) if layer.normed or layer.block in one.looked]
        height, width = one.facts["input"]
        title = (
            f"{one.title} at {height}×{width}, weights {one.facts['weights']}, {plural(one.diagnosis.images, 'image')}"
        )
        panels.append(Panel(title, curves, looked, one.shown))
    save_figure(panels, rule.text, path)


def levels(layer: "LayerDiagnosis", rule: "OutlierRule") -> dict[str, Any]:
    """Return the figures of one layer, JSON-ready."""
    spread = layer.spread(rule)
    edges, tokens = layer.histogram()
    places = layer.places(rule)
    return {
        "name": layer.name,
        "block": layer.block,
        "after_norm": layer.normed,
        "norm": {"min": spread.minimum, "median": spread.median, "max": spread.maximum},
        "outliers": {
            "per_image": spread.outliers,
            "images": spread.images,
            "places": [{"row": place.row, "column": place.column, "images": place.share} for place in places],
            "counts": rule.find(layer.norms).sum(axis=(1, 2)).tolist(),
        },
        "histogram": {"edges": edges.tolist(), "tokens": tokens.tolist()},
        "position": {"images": layer.share_images, "crops": layer.share_crops, "mic": layer.mic},
    }


def as_json(examined: "Examined", rule: "OutlierRule") -> dict[str, Any]:
    """Return all figures of one backbone or version."""
    found = examined.diagnosis
    layers = []
    for layer in found.layers:
        prefix = np.median(layer.prefix_norms, axis=0).tolist()
        layers.append(levels(layer, rule) | {"prefix": dict(zip(found.prefix, prefix, strict=True))})
    facts = examined.facts | {"images": found.images, "crops": found.crops, "mic_chance": found.mic_chance}
    return facts | {"layers": layers, "verdict": verdict(examined, rule) if examined.looked else None}
