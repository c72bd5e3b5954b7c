"""A backbone examined on a subset of images, and what a store holds of them: options in, ``dvt.Diagnosis`` out."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from featstore.subset import StoredMaps, Subset, photographs

from .compute import local_weights
from .progress import Progress

if TYPE_CHECKING:
    from dvt import Diagnosis, LayerDiagnosis, OutlierRule

__all__ = [
    "INPUTS",
    "Examined",
    "LayerDiagnosis",
    "OutlierRule",
    "backbone_name",
    "examine",
    "examine_stored",
    "outlier_rule",
]

INPUTS = 32
"""How many crops are run in all, where nobody says how many of each image."""
SHOWN, SIDE = 3, 240


@dataclass(frozen=True)
class Examined:
    """One backbone, or a version, and what was found; ``facts`` of it by name, ``looked`` the blocks to look at closely.

    ``shown`` is (image, photograph) of the first few images, small.
    """

    title: str
    facts: dict[str, Any]
    diagnosis: "Diagnosis"
    looked: tuple[int, ...] = ()
    shown: list[tuple[str, NDArray[np.uint8]]] = field(default_factory=list)


def backbone_name(name: str) -> str:
    """Return a backbone's alias where it has one."""
    import dvt

    return dvt.backbone_id(name)


def outlier_rule(times: float, above: float | None) -> "OutlierRule":
    """Return the rule; raises BackboneError for one that cannot be."""
    import dvt

    return dvt.OutlierRule(times, above)


def examine(
    name: str,
    weights: str | None,
    subset: Subset,
    look: Sequence[int] | None,
    crops: int | None,
    batch_size: int | None,
    quiet: bool,
    **model: Any,
) -> Examined:
    """Load a backbone and examine it on a subset; ``model`` are options of ``Backbone.create``."""
    import dvt

    backbone = dvt.Backbone.create(name, weights=local_weights(weights), **model)
    looked = tuple(look) if look else dvt.spread_blocks(backbone.depth)
    looked = tuple(sorted({block % backbone.depth if -backbone.depth <= block < 0 else block for block in looked}))
    size = batch_size or (32 if backbone.device.type == "cuda" else 4)
    each = math.ceil(INPUTS / len(subset.images)) if crops is None else crops
    shown: list[tuple[str, NDArray[np.uint8]]] = []
    with Progress(f"examining {backbone.id}", "input", quiet=quiet) as progress:
        progress.say(f"{backbone.id}, weights {backbone.weights_source}, {backbone.device}, {backbone.dtype}")
        progress.start(len(subset.images) * (1 + each))
        found = dvt.diagnose(backbone, keeping(subset, shown), looked, each, size, progress.advance)
    facts = {
        "backbone": backbone.id,
        "timm_name": backbone.timm_name,
        "weights": backbone.weights_source,
        "weights_digest": backbone.weights_digest,
        "input": list(backbone.input_size),
        "grid": list(backbone.grid),
        "blocks": backbone.depth,
        "dtype": backbone.dtype,
    }
    return Examined(backbone.id, facts, found, looked, shown)


def keeping(subset: Subset, shown: list[tuple[str, NDArray[np.uint8]]]) -> Iterator[tuple[NDArray[np.uint8], str]]:
    """Yield a subset's photographs, and keep the first few, small, to show."""
    names = {image.sha256: Path(image.image_id).stem for image in subset.images}
    for pixels, sha256 in photographs(subset):
        if len(shown) < SHOWN:
            step = max(1, max(pixels.shape[:2]) // SIDE)
            shown.append((names[sha256], pixels[::step, ::step].copy()))
        yield pixels, sha256


def examine_stored(maps: StoredMaps) -> Examined:
    """Examine what a version stores: raw, clean and artifact."""
    import dvt

    def tensors() -> Iterator[dict[str, Any]]:
        for each in maps:
            yield {name: dvt.as_map(values) for name, values in each.items()}

    found = dvt.diagnose_maps(tensors())
    facts = {"version": maps.version, "layer": maps.layer, "norm": maps.norm, "weights_digest": maps.weights}
    facts |= {"input": maps.input_size}
    facts |= {"method": maps.method, "grid": list(found.grid)}
    return Examined(maps.version, facts, found)
