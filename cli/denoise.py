"""``featstore denoise``."""

from pathlib import Path
from typing import TYPE_CHECKING

import click

from featstore.build import Listener, build_version
from featstore.compute import PARTS
from featstore.errors import InputError, NotInStoreError
from featstore.plan import Request, make_plan
from featstore.query import restricted
from featstore.versions import Version, describe_version, find_version

from . import options
from .build_report import FAILED, report_builds, report_plans
from .denoisers import HELP, artifact_of, locate, raw_through
from .environment import device_name, installed_versions, provenance
from .progress import Progress
from .reproduce import denoise_command

if TYPE_CHECKING:
    from dvt import StoredDecomposer

__all__ = ["denoise"]

BATCH = 16


@click.command(context_settings={"show_default": True})
@click.argument("version")
@click.option("--denoiser", metavar="NAME", help=f"The denoiser: {HELP}  [default: the newest for these features]")
@click.option("--variants", type=options.Variants(), default=(), help=f"Of {','.join(PARTS)}.  [default: all]")
@options.store
@options.compress
@click.option("--where", metavar="SQL", help="Only images for which this holds, e.g. \"split = 'train'\".")
@click.option("--limit", type=click.IntRange(min=1), metavar="N", help="Only the first N images by image_id.")
@click.option("--device", metavar="NAME", default="auto", help="cpu, cuda, cuda:1 …")
@click.option("--batch-size", type=click.IntRange(min=1), metavar="N", default=BATCH, help="Maps at a time.")
@click.option("--compile", "compiled", is_flag=True, help="Run the denoiser through torch.compile.")
@options.force
@options.dry_run
@options.root
@options.as_json
def denoise(
    version: str,
    denoiser: str | None,
    variants: tuple[str, ...],
    store: str,
    codec: str,
    where: str | None,
    limit: int | None,
    device: str,
    batch_size: int,
    compiled: bool,
    force: bool,
    dry_run: bool,
    root: Path,
    as_json: bool,
) -> int:
    """Clean the raw features that VERSION stores, with no backbone.

    They become the version that `build --method stage2` with the same denoiser would make, and go on with it. Exit code 3 where
    a sample of VERSION could not be read.

    \b
    Examples:
      featstore build voc --backbone dinov2_b --method raw
      featstore denoise voc/dinov2_b/v1 --denoiser hub:voc_denoised
    """
    with restricted(root) as connection:
        source = find_version(connection, version)
    decomposer, said = load_decomposer(root, source, denoiser, device, batch_size, compiled, dry_run)
    facts = installed_versions() | {"device": device_name(decomposer.device)}
    command = denoise_command(root, source, decomposer.recipe()["method"]["denoiser"][:12], store)
    facts |= {"reproduce": command} if command else {}
    request = Request(
        *(source.dataset, source.backbone, variants, where, limit),
        environment=facts,
        provenance=provenance(),
        stored=source.digest,
        store=store,
        codec=codec,
    )
    plan = make_plan(root, request, decomposer)
    if not plan.wanted:
        raise NotInStoreError(f"{source.name} stores no raw map" + (" of images that this leaves" if where else ""))
    if dry_run:
        if not as_json:
            click.echo("; ".join(said), err=True)
        report_plans(root, [plan], [decomposer], as_json, 1)
        return 0
    with Progress("cleaning", quiet=as_json) as progress:
        for line in said:
            progress.say(line)
        listener = Listener(progress.start, progress.advance, progress.say)
        report = build_version(root, request, decomposer, listener, force=force)
    report_builds([report], None, as_json)
    return FAILED if report.failed else 0


def load_decomposer(
    root: Path, source: Version, denoiser: str | None, device: str, batch_size: int, compiled: bool, dry_run: bool
) -> tuple["StoredDecomposer", list[str]]:
    """Return what cleans the raw maps of a version, and lines that say with what."""
    import dvt

    backbone = {"dtype": "float32"} | describe_version(root, source.name)["recipe"]["backbone"]
    if backbone.get("resize") == "keep":
        raise InputError(
            f"{source.name} keeps each image's shape: its artifact is taken at one, which its maps do not tell; "
            "featstore build --method stage2 --resize keep makes the same from the images"
        )
    place = dvt.choose_device(device)
    name, label = locate(root, denoiser, source.dataset, backbone)
    model = dvt.Denoiser.from_checkpoint(name, backbone["id"], source.channels)
    dvt.check_lineage(model, backbone)
    said = [f"denoiser {label}"]
    batches = raw_through(root, source, model, place, backbone["dtype"], batch_size)
    artifact = dvt.as_map(artifact_of(root, model, backbone, batches, said.append, dry_run=dry_run))
    settings = (source.prefix_tokens, place, backbone["dtype"], batch_size)
    return dvt.StoredDecomposer(model, artifact, backbone, *settings, compiled=compiled), said
