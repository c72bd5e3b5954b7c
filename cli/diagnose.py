"""``featstore diagnose``."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from click.core import ParameterSource

from featstore.errors import InputError, NotInStoreError
from featstore.places import path_of
from featstore.subset import StoredMaps, Subset, files_of, images_of

from . import options
from .model_options import model_options
from .printing import emit_json

if TYPE_CHECKING:
    from .diagnosing import Examined

__all__ = ["diagnose"]

FAILED = 3
SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".ppm")


class Threshold(click.ParamType[tuple[float, float | None]]):
    """``2x``, times the median of an image; ``150``, a norm."""

    name = "RULE"

    def convert(
        self, value: Any, parameter: click.Parameter | None, context: click.Context | None
    ) -> tuple[float, float | None]:
        """Return (times, above)."""
        if isinstance(value, tuple):
            return value
        word = str(value).lower().replace("×", "x")
        try:
            number = float(word.removesuffix("x"))
        except ValueError:
            self.fail(f"{value!r} is no threshold: give 2x (times the median) or 150 (a norm)", parameter, context)
        return (number, None) if word.endswith("x") else (2.0, number)


@click.command(context_settings={"show_default": True})
@click.argument("targets", nargs=-1, required=True, metavar="IMAGE…|NAME")
@model_options("backbone", "weights")
@click.option("--against", metavar="NAME", help="A second backbone, to show beside the first.")
@click.option("--against-weights", metavar="FILE", help="Its weights.")
@click.option(
    "--limit", type=click.IntRange(min=1), default=16, metavar="N", help="Of a data set, the first N by SHA-256."
)
@click.option("--where", metavar="SQL", help="Of a data set, only images for which this holds.")
@click.option(
    "--threshold", type=Threshold(), default="2x", help="An outlier's norm: times its image's median, or a number."
)
@click.option(
    "--blocks", type=options.Blocks(), help="Blocks to take the MIC of and to draw.  [default: four, the last one too]"
)
@click.option(
    "--crops",
    type=click.IntRange(min=0),
    metavar="N",
    help="Crops of each image, for what is position.  [default: 32 in all]",
)
@model_options("device", "batch_size", "dtype", "input_size", "stride")
@click.option("--stored", "stored_only", is_flag=True, help="Only what the store holds: no model is run.")
@click.option("--figure", type=options.Place(local=True), metavar="FILE", help="Draw it all, as PNG.")
@options.root
@options.as_json
def diagnose(
    targets: tuple[str, ...],
    limit: int,
    where: str | None,
    threshold: tuple[float, float | None],
    stored_only: bool,
    figure: Path | None,
    root: Path,
    as_json: bool,
    **chosen: Any,
) -> int:
    """Find outlier tokens, and how much of the features is position, block by block.

    Images are files, or some of a data set NAME, or of a version (voc/dinov2_b/v1). A line a block: L2 norms of the patch
    tokens before the final norm, which hides large ones, and after it (`norm`); the class token's and the registers';
    outliers an image; `position`, the share of variance that positions explain over the images, free of chance, and
    over crops in which content lies anywhere; MIC, the mean maximal information coefficient of a channel and a
    coordinate. Of a data set, features that are stored are shown before and after cleaning. Exit code 3 where an
    image could not be read: the others are shown.

    \b
    Examples:
      featstore diagnose photos/*.jpg --backbone dinov2_l --figure norms.png
      featstore diagnose voc --backbone dinov2_l --against dinov2_l_reg
      featstore diagnose voc --backbone dinov2_l --threshold 150 --limit 100 --json
      featstore diagnose voc/dinov2_b/v1 --stored
    """
    from .diagnosing import backbone_name, outlier_rule
    from .diagnosis_report import draw, report, report_json

    rule = outlier_rule(*threshold)
    subset, version, backbone = find_subset(targets, where, limit, root)
    if backbone and click.get_current_context().get_parameter_source("backbone") is ParameterSource.DEFAULT:
        chosen["backbone"] = backbone
    check(subset, stored_only, figure, chosen)
    stored = find_stored(root, subset, backbone_name(chosen["backbone"]), version, stored_only)
    if version and stored and chosen["input_size"] is None and stored.facts["input"]:
        chosen["input_size"] = tuple(stored.facts["input"])  # so that both can be held against each other
    found = [] if stored_only else run_models(subset, chosen, as_json)
    if as_json:
        emit_json(report_json(found, stored, subset, rule))
    else:
        report(found, stored, subset, rule)
    if figure is not None:
        draw(found, rule, figure)
        click.echo(f"figure {figure}", err=True)
    return FAILED if subset.failed else 0


def find_subset(
    targets: tuple[str, ...], where: str | None, limit: int, root: Path
) -> tuple[Subset, str | None, str | None]:
    """Return the images, and the version and its backbone where one is named. Raises InputError, NotInStoreError."""
    if len(targets) == 1 and not path_of(targets[0]).exists():
        name, *rest = targets[0].strip("/").split("/")
        if len(rest) < 3 and Path(targets[0]).suffix.lower() not in SUFFIXES:
            backbone, version = [*rest, None, None][:2]
            held = f"{backbone}/{version}" if version else None
            return images_of(root, name, where, limit, held), version, backbone
        raise InputError(f"{targets[0]} is neither an image file nor a data set (voc) or version (voc/dinov2_b/v1)")
    if where:
        raise InputError("--where chooses images of a data set, not files")
    return files_of(targets), None, None


def check(subset: Subset, stored_only: bool, figure: Path | None, chosen: dict[str, Any]) -> None:
    """Raise InputError for options that do not go together."""
    if stored_only and subset.dataset is None:
        raise InputError("--stored needs a data set or a version: files have nothing stored")
    if stored_only and (figure or chosen["against"]):
        raise InputError("--stored runs no model, which --figure and --against show")
    if chosen["against_weights"] and not chosen["against"]:
        raise InputError("--against-weights needs --against NAME")
    if figure is not None and figure.suffix.lower() != ".png":
        raise InputError(f"--figure {figure}: the figure is a PNG, give a name that ends in .png")
    if figure is not None and not figure.absolute().parent.is_dir():
        raise InputError(f"--figure {figure}: there is no folder {figure.absolute().parent}")


def find_stored(root: Path, subset: Subset, backbone: str, version: str | None, needed: bool) -> "Examined | None":
    """Return what is stored of the images, None where there is nothing and nobody asked for it."""
    from .diagnosing import examine_stored

    if subset.dataset is None:
        return None
    try:
        return examine_stored(StoredMaps(root, subset, backbone, version))
    except NotInStoreError:
        if needed or version:
            raise
        return None


def run_models(subset: Subset, chosen: dict[str, Any], quiet: bool) -> list["Examined"]:
    """Examine the backbone, and the second where there is one."""
    from .diagnosing import examine

    names = [(chosen["backbone"], chosen["weights"])]
    names += [(chosen["against"], chosen["against_weights"])] if chosen["against"] else []
    model = {name: chosen[name] for name in ("device", "dtype", "input_size", "stride")}
    looks = chosen["blocks"], chosen["crops"], chosen["batch_size"]
    return [examine(name, weights, subset, *looks, quiet, **model) for name, weights in names]
