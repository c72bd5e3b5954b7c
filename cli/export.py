"""``featstore export``."""

from pathlib import Path
from typing import Any

import click

from featstore.compute import VARIANTS
from featstore.exchange.export import ExportReport, ExportRequest, export_version
from featstore.exchange.formats import FORMATS
from featstore.exchange.source import DTYPES, Wanted

from . import options
from .printing import bytes_text, emit_json, plural, seconds_text
from .progress import Progress

__all__ = ["export"]

LEFT_OUT = 3
SHOWN = 10


@click.command()
@click.argument("version")
@click.option("--format", "form", type=click.Choice(FORMATS), required=True, help="What to write.")
@click.option("--output", type=options.Place(local=True), metavar="DIR", required=True, help="A folder of its own.")
@click.option(
    "--variants", type=options.Variants(), default=(), help=f"Of {','.join(VARIANTS)}.  [default: all stored]"
)
@click.option("--prefix", is_flag=True, help="Class and register tokens too, as prefix_tokens.")
@click.option("--where", metavar="SQL", help="Only images for which this holds, e.g. \"split = 'train'\".")
@click.option("--limit", type=click.IntRange(min=1), metavar="N", help="Only the first N images by image_id.")
@click.option(
    "--dtype",
    type=click.Choice(DTYPES),
    help="What numbers are written as.  [default: float16, as stored; dvt float32]",
)
@click.option(
    "--channels",
    type=click.Choice(["last", "first"]),
    default="last",
    show_default=True,
    help="(H, W, C), as stored, or (C, H, W).",
)
@click.option(
    "--per-file",
    type=click.IntRange(min=1),
    metavar="N",
    help="Images a file.  [default: safetensors 1; parquet and webdataset about 512 MB, zarr shards 64 MB]",
)
@click.option("--resume", is_flag=True, help="Go on with this same export after it was stopped.")
@click.option("--overwrite", is_flag=True, help="Replace an earlier export; other files are never removed.")
@options.dry_run
@options.root
@options.as_json
def export(
    version: str,
    form: str,
    output: Path,
    per_file: int | None,
    resume: bool,
    overwrite: bool,
    dry_run: bool,
    root: Path,
    as_json: bool,
    **wanted: Any,
) -> int:
    """Write the features of VERSION in a format that other programs read.

    \b
      npy          <variant>/<image_id>.npy, and index.csv
      safetensors  <image_id>.safetensors, a tensor a variant (--per-file: images stacked)
      parquet      an image a row: image_id, sha256, split, label, each map as bytes beside its shape
      zarr         features.zarr, Zarr v3: arrays (N, H, W, C), a sample a chunk
      webdataset   features-000000.tar …: <key>.<variant>.npy and <key>.json
      dvt          raw_features/ and denoised_features/ as the code of DVT's authors reads them

    Every sample is held against its checksum on the way. featstore.json in the folder says what it is: recipe, provenance,
    shapes. Files get their names when they are whole; after a kill, --resume goes on. Exit code 3 where
    `dvt` has to leave out an image, by its name: each is told with the reason.

    \b
    Examples:
      featstore export voc/dinov2_b/v1 --format npy --output features --variants clean
      featstore export voc/dinov2_b/v1 --format webdataset --output tars --where "split = 'train'"
      featstore export voc/dinov2_b/v1 --format dvt --output for-dvt
    """
    request = ExportRequest(Wanted(version, **wanted), form, output, per_file, resume, overwrite)
    with Progress("exporting", quiet=as_json or dry_run) as progress:
        report = export_version(root, request, progress.start, progress.advance, dry_run)
    if as_json:
        emit_json(vars(report) | {"left_out": [vars(item) for item in report.left_out], "dry_run": dry_run})
    else:
        tell(report, dry_run)
    return LEFT_OUT if report.left_out else 0


def tell(report: ExportReport, dry_run: bool) -> None:
    """Say what was written and how to read it."""
    done = "would write" if dry_run else "wrote"
    before = f" ({report.present:,} were there)" if report.present else ""
    click.echo(f"{report.version} as {report.format}: {done} {plural(report.written, 'image')}{before}")
    shapes = ", ".join(f"{name} {'×'.join(map(str, shape))}" for name, shape in report.arrays.items())
    click.echo(f"  arrays  {shapes} {report.dtype}, {bytes_text(report.bytes)}")
    click.echo(f"  into    {report.output}")
    click.echo(f"  read    {report.note}")
    if not dry_run:
        click.echo(f"  took    {seconds_text(report.seconds)}")
    if report.without:
        click.echo(f"  without {plural(report.without, 'image')} of which not all of these are stored")
    for item in report.left_out[:SHOWN]:
        click.echo(f"left out {item.image_id}: {item.reason}", err=True)
    if len(report.left_out) > SHOWN:
        click.echo(f"and {plural(len(report.left_out) - SHOWN, 'image')} more: --json lists all", err=True)
