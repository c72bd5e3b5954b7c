"""``featstore report``."""

from dataclasses import asdict
from pathlib import Path

import click

from featstore.report.page import write_report

from . import options
from .printing import bytes_text, emit_json, plural

__all__ = ["report"]


@click.command(context_settings={"show_default": True})
@click.argument("version")
@click.option(
    "--output",
    "-o",
    type=options.Place(local=True),
    metavar="FILE",
    help="Ends in .html.  [default: the version's name, as voc-dinov2_b-v1.html]",
)
@click.option(
    "--images", type=click.IntRange(0, 20), default=4, metavar="N", help="Pictures of the N worst and the N best."
)
@options.root
@options.as_json
def report(version: str, output: Path | None, images: int, root: Path, as_json: bool) -> None:
    """Tell all about VERSION in one HTML file, to be looked at, printed and passed on.

    Data set, recipe in words and as JSON, how many images and what failed, distributions of quality and of norms, the worst
    and the best images with their features, figures of `featstore eval`, provenance and checksums. The file holds its
    pictures and loads nothing. No model is run. What it holds of you: the source's path and the command that built it.

    \b
    Examples:
      featstore report voc/dinov2_b/v1
      featstore report voc/dinov2_b/paper --images 8 --output report.html
    """
    told = write_report(root, version, output, images)
    if as_json:
        emit_json(asdict(told))
        return
    click.echo(
        f"report {told.output}: {plural(len(told.pictures), 'picture')} of {told.version}, {bytes_text(told.bytes)}"
    )
