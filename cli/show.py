"""``featstore show``."""

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

import click

from featstore.compute import FINE
from featstore.filters import NONE
from featstore.layout import FLOAT16
from featstore.versions import describe_version

from . import options
from .printing import bytes_text, emit_json, plural, table_text

__all__ = ["show"]

SHOWN = 10


@click.command()
@click.argument("version")
@options.root
@options.as_json
def show(version: str, root: Path, as_json: bool) -> None:
    """Tell all about a version.

    VERSION is voc/dinov2_s/v1; or v1, a tag or the first digits of the digest, where that is enough.

    \b
    Examples:
      featstore show voc/dinov2_b/v1
      featstore show paper --json
    """
    facts = describe_version(root, version)
    if as_json:
        emit_json(facts)
        return
    size = sum(shard["bytes"] for shard in facts["shards"])
    codecs = sorted({shard["codec"] for shard in facts["shards"]})
    stored = {name for shard in facts["shards"] for name in shard["variants"]}
    click.echo(f"{facts['version']}" + (f" ({facts['tag']})" if facts["tag"] else ""))
    kept = facts["recipe"].get("store", {}).get("dtype", FLOAT16)
    lines = {
        "method": facts["method"],
        "digest": facts["digest"],
        "folder": facts["folder"],
        "created": facts["created_at"].isoformat(sep=" ", timespec="seconds") + " UTC",
        "images": f"{facts['stored']:,} of {facts['images']:,} stored, {facts['failed']:,} failed",
        "maps": maps_text(facts["grid"], facts["channels"], kept, stored - {FINE}),
        **grids_text(facts),
        **({"fine": maps_text(facts["fine_grid"], facts["channels"], kept, {FINE})} if FINE in stored else {}),
        "prefix": plural(facts["prefix_tokens"], "token") + " (class and registers)",
        "shards": f"{len(facts['shards'])}, {bytes_text(size)}"
        + ("" if codecs in ([], [NONE]) else f", {', '.join(codecs)}"),
    }
    for key, value in lines.items():
        click.echo(f"  {key:<9}{value}")
    if facts["quality"]:
        click.echo()
        rows = [(name, *entry.values()) for name, entry in facts["quality"].items()]
        click.echo(table_text(["statistic", "min", "median", "max"], rows))
    again = facts["provenance"].pop("reproduce", None)
    for title in ("recipe", "provenance"):
        click.echo(f"\n{title}")
        tree(facts[title], 2)
    if again:
        click.echo(f"\nmake it again\n  {again}")
    if facts["failures"]:
        click.echo("\nfailures")
        for entry in facts["failures"][:SHOWN]:
            click.echo(f"  {entry['image_id']}: {entry['step']}: {entry['error']}")
        if len(facts["failures"]) > SHOWN:
            click.echo(f"  … and {len(facts['failures']) - SHOWN:,} more")


def grids_text(facts: Mapping[str, Any]) -> dict[str, str]:
    """Return how many samples are on each grid, where images keep their shapes."""
    if facts["recipe"].get("backbone", {}).get("resize") != "keep":
        return {}
    counts: Counter[tuple[int, int]] = Counter()
    for shard in facts["shards"]:
        counts[shard["grid_height"], shard["grid_width"]] += shard["samples"]
    told = [f"{height}×{width} ({count:,})" for (height, width), count in counts.most_common()]
    return {"grids": f"each image's own: {', '.join(told) or 'none yet'}"}


def maps_text(grid: Sequence[int], channels: int, kept: str, names: Collection[str]) -> str:
    """Return shape and names of the variants on one grid."""
    shape = "×".join(map(str, [*(grid or "??"), channels]))
    return f"{shape} {kept} (height × width × channels): {', '.join(sorted(names)) or 'none yet'}"


def tree(value: dict[str, Any], indent: int) -> None:
    """Print a nested dict, a line an entry."""
    for key, entry in value.items():
        if isinstance(entry, dict):
            click.echo(f"{' ' * indent}{key}")
            tree(entry, indent + 2)
        else:
            click.echo(f"{' ' * indent}{key}: {entry}")
