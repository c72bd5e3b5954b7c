"""``featstore diff``."""

from dataclasses import asdict
from pathlib import Path
from typing import Any

import click

from featstore.difference import Changed, Difference, compare_versions

from . import options
from .printing import emit_json, plural, table_text

__all__ = ["diff"]

WIDEST = 60


class Count(click.ParamType[int | None]):
    """A number of images, or ``all``."""

    name = "N"

    def convert(self, value: Any, parameter: click.Parameter | None, context: click.Context | None) -> int | None:
        """Return the number, None for all."""
        if isinstance(value, int) or str(value).lower() == "all":
            return value if isinstance(value, int) else None
        if not str(value).isdigit():
            self.fail(f"{value!r} is no number of images: give one, or all", parameter, context)
        return int(value)


@click.command()
@click.argument("first")
@click.argument("second")
@click.option(
    "--images",
    type=Count(),
    default="64",
    show_default=True,
    metavar="N",
    help="Compare features over N images that both hold, or all.",
)
@options.root
@options.as_json
def diff(first: str, second: str, images: int | None, root: Path, as_json: bool) -> None:
    """Tell in what two versions differ, and how far their features are apart.

    Parameters, images and variants come from the manifest; distances are taken over the first N images by SHA-256, the
    same whenever it is asked: the mean cosine over patches, the RMS of the difference over the RMS of FIRST, and the largest
    difference of one value. Maps of another grid are resampled at the places of FIRST's. SECOND is looked for beside FIRST.

    \b
    Examples:
      featstore diff voc/dinov2_b/v1 v2
      featstore diff voc/dinov2_b/v1 paper --images all
      featstore diff voc/dinov2_b/v1 voc/dinov2_s/v1 --images 0 --json
    """
    found = compare_versions(root, first, second, images)
    if as_json:
        emit_json(asdict(found))
        return
    click.echo(f"{found.versions[0]}  and  {found.versions[1]}")
    report_entries("parameters", found.parameters, "the same recipe" if found.same_recipe else "none differs")
    report_entries("provenance", found.provenance, "the same")
    report_images(found)
    report_distances(found)


def report_entries(title: str, entries: tuple[Changed, ...], none: str) -> None:
    """Print what differs, a line an entry."""
    if not entries:
        click.echo(f"\n{title}: {none}")
        return
    rows = [(entry.name, shortened(entry.first), shortened(entry.second)) for entry in entries]
    click.echo("\n" + table_text([title, "first", "second"], rows))


def shortened(value: Any) -> str:
    """Return one value in a line that fits."""
    text = " ".join(str(value).split())
    return text if len(text) <= WIDEST else text[: WIDEST - 1] + "…"


def report_images(found: Difference) -> None:
    """Print which images and variants either holds."""
    click.echo(f"\nimages: {found.both:,} in both (told apart by their bytes)")
    for name, count, names in zip(found.versions, found.images, found.only, strict=True):
        alone = count - found.both
        if alone:
            more = f" and {alone - len(names):,} more" if alone > len(names) else ""
            click.echo(f"  {alone:,} only in {name}: {', '.join(names)}{more}")
    alike = [name for name in found.variants[0] if name in found.variants[1]]
    click.echo(f"variants: {', '.join(alike) or 'none'} in both")
    for name, mine, other in zip(found.versions, found.variants, reversed(found.variants), strict=True):
        alone_in = [variant for variant in mine if variant not in other]
        if alone_in:
            click.echo(f"  {', '.join(alone_in)} only in {name}")


def report_distances(found: Difference) -> None:
    """Print how far features are apart."""
    if not found.sampled or not found.distances:
        return
    rows = [(d.variant, d.images, d.cosine, d.relative_l2, d.largest) for d in found.distances]
    click.echo(f"\nfeatures, over {plural(found.sampled, 'image')} of those in both")
    shown = [
        (name, count, *("" if value is None else f"{value:.6g}" for value in values)) for name, count, *values in rows
    ]
    click.echo(table_text(["variant", "images", "mean cosine", "relative L2", "largest difference"], shown))
    for note in dict.fromkeys(distance.note for distance in found.distances if distance.note):
        click.echo(note)
