"""``featstore figure``."""

from pathlib import Path
from typing import Any

import click

from featstore.figure import FORMATS, Style, check_format, save_panel
from featstore.panel import COLUMNS, make_panel
from featstore.shown import choose_images

from . import options
from .printing import emit_json, plural

__all__ = ["figure"]

VARIANTS = ("raw", "clean", "artifact", "residual")


class Patch(click.ParamType[tuple[int, int]]):
    """``18,20``: row and column of a patch, from 0."""

    name = "ROW,COL"

    def convert(self, value: Any, parameter: click.Parameter | None, context: click.Context | None) -> tuple[int, int]:
        """Parse two numbers."""
        if isinstance(value, tuple):
            return value
        words = [word.strip() for word in str(value).split(",")]
        if len(words) != 2 or not all(word.isdigit() for word in words):
            self.fail(
                f"{value!r} is no patch: give its row and column from the upper left, as 18,20", parameter, context
            )
        return int(words[0]), int(words[1])


@click.command(context_settings={"show_default": True})
@click.argument("version")
@click.argument("images", nargs=-1, metavar="[IMAGE]…")
@click.option(
    "--output", type=options.Place(local=True), metavar="FILE", required=True, help=f"Ends in {', '.join(FORMATS)}."
)
@click.option(
    "--columns", type=options.Variants(), default=",".join(COLUMNS), help="What to show of each variant, in this order."
)
@click.option(
    "--variants", type=options.Variants(), default=",".join(VARIANTS), help="Of which variants; clean_fine, too."
)
@click.option("--where", metavar="SQL", help="Instead of names: images for which this holds.")
@click.option("--limit", type=click.IntRange(1, 100), default=4, metavar="N", help="Where none are named, the first N.")
@click.option("--clusters", type=click.IntRange(2, 20), default=8, metavar="K", help="Of k-means.")
@click.option("--patch", type=Patch(), help="What the similarity is with.  [default: the patch in the middle]")
@click.option("--smooth", is_flag=True, help="Blend between patches, instead of drawing each as a square.")
@click.option(
    "--dpi", type=click.IntRange(30, 1200), default=100, metavar="N", help="Pixels an inch; a tile is 1.5 inches."
)
@options.root
@options.as_json
def figure(
    version: str,
    images: tuple[str, ...],
    output: Path,
    columns: tuple[str, ...],
    variants: tuple[str, ...],
    where: str | None,
    limit: int,
    clusters: int,
    patch: tuple[int, int] | None,
    smooth: bool,
    dpi: int,
    root: Path,
    as_json: bool,
) -> None:
    """Draw stored features of VERSION, an image a row: what the model gave, and what cleaning made of it.

    \b
      input       the photograph, as much of it as the features show
      pca         the three leading components as red, green and blue
      kmeans      clusters of the features
      norm        L2 norm of each feature
      similarity  cosine of each feature with one patch's, marked by a cross
      artifact    PCA and norm of what sits at the same place in every image
      residual    norm of what neither explains, and PCA of artifact + residual

    Raw and clean of all images share one PCA basis and one clustering: the same colour is the same feature.

    \b
    Examples:
      featstore figure voc/dinov2_b/v1 --output figure.png
      featstore figure voc/dinov2_b/v1 2007_000032 2007_000033 --columns input,pca,norm --output paper.pdf
      featstore figure voc/dinov2_b/v1 --where "split = 'val'" --limit 6 --patch 20,14 --output val.svg
    """
    check_format(output)
    chosen = choose_images(root, version, images, variants, where, limit)
    panel = make_panel(list(chosen), columns, clusters, patch)
    width, height = save_panel(panel, Style(chosen.title, smooth, dpi), output)
    if as_json:
        emit_json(
            {
                "version": chosen.version.name,
                "output": str(output),
                "images": [row.image_id for row in panel.rows],
                "variants": chosen.variants,
                "not_stored": chosen.absent,
                "columns": [" ".join((column.group, column.title)).strip() for column in panel.columns],
                "inches": [width, height],
            }
        )
        return
    if chosen.absent:
        click.echo(f"left out, not stored: {', '.join(chosen.absent)}", err=True)
    size = (
        f"{width * dpi:.0f}×{height * dpi:.0f} pixels"
        if output.suffix.lower() == ".png"
        else f"{width:.1f}×{height:.1f} inches"
    )
    click.echo(f"figure {output}: {plural(len(panel.rows), 'image')} of {chosen.version.name}, {size}")
