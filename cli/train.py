"""``featstore train``."""

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from featstore.root import require_local

from . import options
from .printing import emit_json, plural

if TYPE_CHECKING:
    from featstore.pairs import PairSet

    from .training import Outcome

__all__ = ["train"]


@click.command(context_settings={"show_default": True})
@click.argument("name")
@click.option("--backbone", metavar="NAME", default="dinov2_s", help="Whose features; no model is loaded.")
@click.option("--version", metavar="vN", help="Stage-1 version to learn from.  [default: the newest]")
@click.option("--where", metavar="SQL", help="Only images for which this holds, e.g. \"split = 'train'\".")
@click.option(
    "--heldout",
    type=click.FloatRange(0, 0.9),
    metavar="SHARE",
    default=0.1,
    help="Of the images, to judge by and never train on.",
)
@click.option("--steps", type=click.IntRange(min=1), metavar="N", default=2000, help="Steps in all.")
@click.option("--batch", type=click.IntRange(min=1), metavar="N", default=64, help="Images a step, of all processes.")
@click.option(
    "--rate",
    type=click.FloatRange(0, min_open=True),
    metavar="RATE",
    default=2e-3,
    help="Learning rate at a batch of 256, scaled by √(batch/256); the paper's for 40,000 steps: 2e-4.",
)
@click.option(
    "--warmup",
    type=click.FloatRange(0, 0.99),
    metavar="SHARE",
    default=0.15,
    help="Share of the steps in which the rate rises.",
)
@click.option("--decay", type=click.FloatRange(0), metavar="WEIGHT", default=1e-5, help="AdamW's weight decay.")
@click.option(
    "--ema",
    type=click.FloatRange(0, 0.9999999),
    metavar="DECAY",
    default=0.0,
    help="Keep an average of the weights, of this decay (0.999); 0: the weights themselves.",
)
@click.option("--blocks", type=click.IntRange(min=1), metavar="N", default=1, help="Transformer blocks.")
@click.option(
    "--start",
    type=click.Choice(["artifact", "random"]),
    default="artifact",
    help="Of the embedding: stage 1's mean artifact taken off, or small random numbers.",
)
@click.option("--position/--no-position", default=True, help="Learn an embedding of positions.")
@click.option(
    "--validate-every",
    type=click.IntRange(min=1),
    metavar="N",
    default=100,
    help="Steps between validations, and checkpoints.",
)
@click.option(
    "--patience",
    type=click.IntRange(min=0),
    metavar="N",
    default=0,
    help="Stop after N validations without a lower loss; 0: never.",
)
@click.option(
    "--device", metavar="NAME", default="auto", help="cpu, cuda, cuda:1; under torchrun each process its own."
)
@click.option(
    "--dtype",
    type=click.Choice(["float32", "bfloat16"]),
    help="Precision; bfloat16 by autocast.  [default: float32, on a GPU bfloat16]",
)
@click.option("--workers", type=click.IntRange(min=0), metavar="N", default=0, help="Processes that read ahead.")
@click.option("--compile", "compiled", is_flag=True, help="Run the denoiser through torch.compile.")
@click.option("--seed", type=int, metavar="N", default=0, help="Of the first weights, and of the order of images.")
@click.option("--restart", is_flag=True, help="Begin anew instead of going on from the last checkpoint.")
@options.root
@options.as_json
def train(
    name: str,
    backbone: str,
    version: str | None,
    where: str | None,
    heldout: float,
    device: str,
    workers: int,
    compiled: bool,
    restart: bool,
    root: Path,
    as_json: bool,
    **chosen: Any,
) -> None:
    """Train a denoiser (stage 2) on what stage 1 made of data set NAME.

    It learns to give `clean` for `raw` of whole images, is judged now and then by images held out, and the best is kept.
    Killed and called again, the same command goes on from its last checkpoint to the same end. The folder it prints holds
    the curve (loss.png, metrics.jsonl, TensorBoard events) beside the denoiser.

    \b
    Examples:
      featstore build voc --source VOCdevkit --backbone dinov2_b --method stage1
      featstore train voc --backbone dinov2_b
      featstore build voc --backbone dinov2_b --method stage2
      torchrun --nproc-per-node 4 -m featstore.cli train voc --backbone dinov2_b
    """
    import dvt
    from featstore.pairs import open_pairs

    from .distributed import joined
    from .training import run_training

    require_local(root, "training, which writes as it goes,")
    pairs = open_pairs(root, name, dvt.backbone_id(backbone), version, where, heldout)
    with joined(device) as member:
        place = dvt.choose_device(member.device)
        chosen["dtype"] = chosen["dtype"] or ("bfloat16" if place.type == "cuda" else "float32")
        settings = dvt.TrainOptions(**chosen)
        outcome = run_training(root, pairs, settings, member, place, workers, compiled, restart, as_json)
    if member.leads:
        report(outcome, pairs, as_json)


def report(outcome: "Outcome", pairs: "PairSet", as_json: bool) -> None:
    """Say what was learned, where it lies, and what to do with it."""
    from .training import judged_text

    version = pairs.version
    if as_json:
        facts: dict[str, Any] = {"denoiser": outcome.name, "digest": outcome.digest, "trained_on": version.name}
        facts |= {"file": str(outcome.run.denoiser), "folder": str(outcome.run.folder), "steps": outcome.steps}
        emit_json(facts | {"resumed_from": outcome.resumed, "heldout": asdict(outcome.judged)})
        return
    judged = outcome.judged
    click.echo(f"{outcome.name}: {judged_text(judged)}")
    if judged.images > 1:
        click.echo(
            f"  position  explains {judged.position:.3f} of the variance (raw {judged.raw_position:.3f}, "
            f"clean {judged.clean_position:.3f}), over {plural(judged.images, 'image')}"
        )
    click.echo(f"  denoiser  {outcome.run.denoiser}")
    click.echo(f"  curve     {outcome.run.plot}")
    if judged.images < 2:
        click.echo(
            "  judged by one image alone: train on more images, or hold out a larger share (--heldout)", err=True
        )
    if judged.cosine <= judged.raw_cosine:
        click.echo("  it does not beat raw: train on more images, or longer", err=True)
    size = ""
    if "input" in pairs.data.recipe["backbone"]:  # of imported features nobody may know
        height, width = pairs.data.input_size
        size = f" --input-size {height}" + (f"x{width}" if height != width else "")
    click.echo(f"  use       featstore build {version.dataset} --backbone {version.backbone}{size} --method stage2")
