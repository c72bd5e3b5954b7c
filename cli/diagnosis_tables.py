"""What ``featstore diagnose`` found, in tables and sentences."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from .printing import plural

if TYPE_CHECKING:
    from .diagnosing import Examined, LayerDiagnosis, OutlierRule

__all__ = ["beside_text", "examined_text", "places_text", "stored_text", "verdict"]

NAMED = 8
MOST = 0.5
"""Blocks are named that have outliers in this share of images or more."""


def aligned(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return a table whose columns end where their numbers end."""
    widths = [max(map(len, cells)) for cells in zip(columns, *rows, strict=True)]
    lines = [columns, ["─" * width for width in widths], *rows]
    told = ["  ".join(f"{cell:>{width}}" for cell, width in zip(line, widths, strict=True)) for line in lines]
    return "\n".join(line.rstrip() for line in told)


def share(value: float) -> str:
    """Return a share as percent, a dash where it is not known."""
    return "–" if np.isnan(value) else f"{value * 100:.1f} %"


def mic_text(value: float) -> str:
    """Return a MIC, nothing where none was taken."""
    return "" if np.isnan(value) else f"{value:.3f}"


def norms_of(layer: "LayerDiagnosis", rule: "OutlierRule") -> tuple[str, ...]:
    """Return smallest, median and largest norm, outliers an image and the share of images with any."""
    spread = layer.spread(rule)
    numbers = [f"{value:.4g}" for value in (spread.minimum, spread.median, spread.maximum)]
    return (*numbers, f"{spread.outliers:.2f}", share(spread.images))


def examined_text(examined: "Examined", rule: "OutlierRule") -> str:
    """Return the table of a backbone, a line a block."""
    found = examined.diagnosis
    named = [index for index, name in enumerate(found.prefix) if not name.startswith("register")]
    registers = [index for index, name in enumerate(found.prefix) if name.startswith("register")]
    columns = ["block", "min", "median", "max"]
    columns += [found.prefix[index] for index in named] + (["registers"] if registers else [])
    columns += ["outliers", "images", "position", *(["crops"] if found.crops else []), "MIC"]
    rows = []
    for layer in found.layers:
        smallest, middle, largest, outliers, images = norms_of(layer, rule)
        apart = [f"{np.median(layer.prefix_norms[:, index]):.4g}" for index in named]
        apart += [f"{np.median(layer.prefix_norms[:, registers]):.4g}"] if registers else []
        shares = [share(layer.share_images), *([share(layer.share_crops)] if found.crops else [])]
        rows.append((layer.name, smallest, middle, largest, *apart, outliers, images, *shares, mic_text(layer.mic)))
    return aligned(columns, rows)


def beside_text(pair: Sequence["Examined"], rule: "OutlierRule") -> str:
    """Return two backbones side by side, block by block; the final norms in the last line."""
    names = ["A", "B"]
    columns = ["block", *(f"{what} {name}" for what in ("median", "max", "outliers", "position") for name in names)]
    tables = [{layer.name: layer for layer in one.diagnosis.layers} for one in pair]
    keys = sorted({name for table in tables for name in table}, key=lambda name: (name == "norm", name.zfill(9)))
    rows = []
    for key in keys:
        cells: list[tuple[str, ...]] = []
        for table, one in zip(tables, pair, strict=True):
            layer = table.get(key)
            if layer is None:
                cells.append(("", "", "", ""))
                continue
            _, middle, largest, outliers, _ = norms_of(layer, rule)
            explained = layer.share_crops if one.diagnosis.crops else layer.share_images
            cells.append((middle, largest, outliers, share(explained)))
        rows.append((key, *(cell[place] for place in range(4) for cell in cells)))
    return aligned(columns, rows)


def stored_text(examined: "Examined", rule: "OutlierRule") -> str:
    """Return the table of what a version stores, a line a variant."""
    columns = ["", "min", "median", "max", "outliers", "images", "position", "MIC"]
    rows = [
        (layer.name, *norms_of(layer, rule), share(layer.share_images), mic_text(layer.mic))
        for layer in examined.diagnosis.layers
    ]
    return aligned(columns, rows)


def places_text(examined: "Examined", rule: "OutlierRule") -> str | None:
    """Return where outliers of the block with most of them lie, None without any."""
    layers = [layer for layer in examined.diagnosis.layers if not layer.normed]
    worst = max(layers, key=lambda layer: layer.spread(rule).outliers)
    places = worst.places(rule)
    if not places:
        return None
    told = ", ".join(f"({place.row}, {place.column}) {place.share:.0%}" for place in places[:NAMED])
    more = f", and {plural(len(places) - NAMED, 'more place')}" if len(places) > NAMED else ""
    return f"most outliers at block {worst.name}; (row, column) and share of images: {told}{more}"


def verdict(examined: "Examined", rule: "OutlierRule") -> str:
    """Return in a sentence which blocks have outliers in most images, how large, and what the final norm leaves of them."""
    layers = examined.diagnosis.layers
    spreads = [layer.spread(rule) for layer in layers]
    hit = [
        n
        for n, (layer, spread) in enumerate(zip(layers, spreads, strict=True))
        if not layer.normed and spread.images >= MOST
    ]
    if not hit:
        some = max(
            (spread.images for layer, spread in zip(layers, spreads, strict=True) if not layer.normed), default=0.0
        )
        seldom = f" (at most in {some:.0%})" if some else ""
        return f"no block has outlier tokens in half of the images or more{seldom}"
    largest = max(hit, key=lambda n: spreads[n].maximum)
    top, middle = spreads[largest].maximum, spreads[largest].median
    told = f"outlier tokens in half of the images or more: {runs([int(layers[n].name) for n in hit])}; "
    told += f"the largest norm {top:.4g} at block {layers[largest].name}, {top / middle:.1f} × the median"
    normed = [spread for layer, spread in zip(layers, spreads, strict=True) if layer.normed]
    if normed and int(layers[hit[-1]].name) == examined.facts["blocks"] - 1:
        told += "; the final norm hides them" if normed[0].images < MOST else "; also after the final norm"
    return told


def runs(numbers: Sequence[int]) -> str:
    """Return blocks in words: ``blocks 3, 7 to 11``."""
    parts: list[list[int]] = []
    for number in numbers:
        if parts and number == parts[-1][-1] + 1:
            parts[-1].append(number)
        else:
            parts.append([number])
    told = ", ".join(f"{part[0]} to {part[-1]}" if len(part) > 1 else str(part[0]) for part in parts)
    return ("block " if len(numbers) == 1 else "blocks ") + told
