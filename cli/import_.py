"""``featstore import``."""

import json
import shlex
from pathlib import Path
from typing import Any

import click

from featstore.build import Listener
from featstore.compute import VARIANTS
from featstore.exchange.formats import FORMATS
from featstore.exchange.imports import ImportReport, ImportRequest, import_version

from . import options
from .environment import installed, provenance
from .printing import bytes_text, emit_json, plural, seconds_text
from .progress import Progress

__all__ = ["import_"]

FAILED = 3
SHOWN = 10


@click.command("import")
@click.argument("folder", type=click.Path(path_type=Path))
@click.option("--name", required=True, metavar="NAME", help="The data set whose images they are, indexed before.")
@click.option("--backbone", metavar="NAME", help="Model they are of; needed where the folder does not tell.")
@click.option("--format", "form", type=click.Choice(FORMATS), help="How the folder is laid out.  [default: detected]")
@click.option(
    "--variants",
    type=options.Variants(),
    default=(),
    help=f"Of {','.join(VARIANTS)}; for a plain folder of .npy files the one that they are.  [default: all]",
)
@click.option("--model", metavar="NAME", help="dvt: the folder below raw_features.  [default: the only one]")
@click.option("--channels", type=click.Choice(["last", "first"]), help="Plain .npy: axis order.  [default: last]")
@click.option("--grid", type=options.Size(), help="Plain .npy: rows x columns of maps that lie as (patches, channels).")
@click.option("--input-size", type=options.Size(), help="What images were resized to [pixels], if known.")
@click.option("--layer", type=int, metavar="N", help="The block they come from, counted from 0, if known.")
@click.option("--note", metavar="TEXT", help="What tells them from other features of the same model.")
@options.compress
@options.dry_run
@options.root
@options.as_json
def import_(
    folder: Path,
    name: str,
    backbone: str | None,
    form: str | None,
    input_size: tuple[int, int] | None,
    layer: int | None,
    dry_run: bool,
    root: Path,
    as_json: bool,
    **given: Any,
) -> int:
    """Store features that lie in FOLDER as a version with the method "imported".

    FOLDER is an export of this program, the save_root of DVT's own code, or any folder of .npy files. Files are matched with
    images by name, exports by the images' bytes; what matches nothing is listed, and the exit code is 3. float32 is rounded
    to float16. The same command again stores only what is new.

    \b
    Examples:
      featstore import data/denoised_feats/voc --name voc --backbone dinov2_b --input-size 518
      featstore import features --name pets --backbone clip_b --variants raw --grid 14x14
      featstore import for-a-friend --name pets
    """
    facts: dict[str, Any] = {"input": list(input_size)} if input_size else {}
    if layer is not None:
        facts["layer"] = layer
    about = {"featstore-dvt": installed("featstore-dvt"), "numpy": installed("numpy"), "reproduce": again(folder)}
    request = ImportRequest(
        *(folder, name, backbone, form), facts=facts, environment=about, provenance=provenance(), **given
    )
    with Progress("importing", quiet=as_json or dry_run) as progress:
        listener = Listener(progress.start, progress.advance, progress.say)
        report = import_version(root, request, listener, dry_run)
    if as_json:
        emit_json(vars(report) | {"unmatched": [vars(item) for item in report.unmatched], "dry_run": dry_run})
    else:
        tell(report, name, dry_run)
    return FAILED if report.failed or report.unmatched else 0


def again(folder: Path) -> str:
    """Return the command that imports the same again, wherever it is called from."""
    context, words = click.get_current_context(), []
    for option in context.command.params:
        value = context.params.get(option.name or "")
        passing = not isinstance(option, click.Option) or option.name in ("root", "dry_run", "as_json")
        if passing or value in (None, (), option.default):
            continue
        if isinstance(value, tuple):
            value = ("x" if isinstance(option.type, options.Size) else ",").join(map(str, value))
        words += [option.opts[0], str(value)]
    return shlex.join(["featstore", "import", str(folder.expanduser().absolute()), *words])


def tell(report: ImportReport, dataset: str, dry_run: bool) -> None:
    """Say what was stored, and what matches nothing."""
    done = "would import" if dry_run else "imported"
    there = f", {report.present:,} there before" if report.present else ""
    click.echo(
        f"{report.version or dataset} from {report.format}: {done} {plural(report.imported, 'image')}{there}, "
        f"{report.failed:,} failed"
    )
    size = "×".join(map(str, (*report.grid, report.channels)))
    click.echo(f"  maps     {', '.join(report.variants)}, {size} float16, {bytes_text(report.bytes)}")
    if report.without:
        click.echo(f"  without  {plural(report.without, 'image')} of {dataset}: the folder has nothing of them")
    if not dry_run:
        click.echo(f"  took     {seconds_text(report.seconds)}")
    for item in report.unmatched[:SHOWN]:
        click.echo(f"not imported: {json.dumps(item.name, ensure_ascii=False)}, {item.reason}", err=True)
    if len(report.unmatched) > SHOWN:
        click.echo(f"and {plural(len(report.unmatched) - SHOWN, 'file')} more: --json lists all", err=True)
    if report.failed:
        click.echo(f'  failed   featstore query {dataset} "SELECT image_id, step, error FROM failures"', err=True)
