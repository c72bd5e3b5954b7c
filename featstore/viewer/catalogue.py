"""What a store offers to look at: its data sets with their versions, what is known of one image, columns to filter by."""

import json
from pathlib import Path
from typing import Any

from featstore.compute import VARIANTS
from featstore.geometry import Geometry
from featstore.query import document, restricted
from featstore.shown import had
from featstore.versions import STATISTICS

from .listings import SORTS, Listing

__all__ = ["columns_of", "facts_of", "place_of", "store_of"]

VERSIONS = """
    SELECT v.dataset, v.backbone, v.number, v.tag, v.method, v.digest, v.channels, v.recipe, v.created_at,
           (SELECT list(DISTINCT s.variants) FROM manifest.shards s WHERE s.digest = v.digest)
    FROM versions v ORDER BY v.dataset, v.backbone, v.number
"""
"""Features of a digest may lie in another data set's shards."""


def store_of(root: Path) -> dict[str, Any]:
    """Return data sets, each with its versions and the variants that each of those has of any image."""
    with restricted(root) as connection:
        sets = connection.execute(
            "SELECT dataset, layout, source, (SELECT count(*) FROM images i WHERE i.dataset = d.dataset) FROM datasets d "
            "ORDER BY dataset"
        ).fetchall()
        rows = connection.execute(VERSIONS).fetchall()
    found: dict[str, list[dict[str, Any]]] = {}
    for dataset, backbone, number, tag, method, digest, channels, recipe, created, kept in rows:
        held = frozenset().union(*(had(variants) for variants in kept or ()))
        version = {"name": f"{backbone}/v{number}", "tag": tag, "method": method, "digest": digest[:12]}
        version |= {"channels": channels, "variants": [name for name in VARIANTS if name in held]}
        version |= {"created": str(created), "input": json.loads(recipe).get("backbone", {}).get("input")}
        found.setdefault(dataset, []).append(version)
    keys = ("dataset", "layout", "source", "images")
    datasets = [dict(zip(keys, row, strict=True)) | {"versions": found.get(row[0], [])} for row in sets]
    return {"root": str(root), "datasets": datasets, "sorts": SORTS}


def columns_of(root: Path) -> list[dict[str, str]]:
    """Return the columns that a condition can use, with what they mean."""
    rows = document(root)
    return [
        {"name": column, "type": kind, "meaning": meaning}
        for table, column, kind, meaning in rows
        if table == "stored" and column and not column.startswith(("checksum_", "shard"))
    ]


def place_of(listing: Listing, row: dict[str, Any]) -> dict[str, float]:
    """Return the part of the photograph that features show: left, top, width, height as shares of the whole."""
    geometry, height, width = Geometry.of(json.loads(listing.recipe)), row["height"], row["width"]
    top, left, high, wide = geometry.box(height, width) if geometry else (0, 0, height, width)
    return {"left": left / width, "top": top / height, "width": wide / width, "height": high / height}


def facts_of(listing: Listing, row: dict[str, Any]) -> dict[str, Any]:
    """Return what is known of an image: its row, without what only programs need."""
    shown = {name: row[name] for name in ("image_id", "width", "height", "split", "label") if row[name] is not None}
    numbers = {name: row[name] for name in STATISTICS if row.get(name) is not None}
    variants = [name for name in VARIANTS if name in had(row.get("variants") or ())]
    return {
        "image": shown | numbers,
        "n": row["n"],
        "key": row["sha256"][:16],
        "mask": row["mask_path"] is not None,
        "variants": variants,
        "place": place_of(listing, row),
    }
