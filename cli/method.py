"""Which method a build takes, and what that needs to know beforehand: a prior artifact, or a denoiser and its artifact."""

import hashlib
from contextlib import nullcontext, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
import numpy as np
from click.core import ParameterSource
from numpy.typing import NDArray

from featstore.calibration import Calibration, decoded, sample_images
from featstore.denoisers import newest_denoiser
from featstore.errors import InputError, StoreError
from featstore.pooled import pool_artifact

from .compute import ComputeOptions
from .denoisers import artifact_of, images_through, locate
from .neighbours import NEIGHBOURS, calibrated
from .printing import plural
from .progress import counted
from .stage1_options import OPTIONS

if TYPE_CHECKING:
    from dvt import Backbone

__all__ = ["Choice", "choose_method", "named_method"]

MEASURE, NONE = "measure", "none"
CROPS = 512  # to measure the artifact by, where a data set has the images
EACH, LEAST = 16, 64  # crops of an image, and in all, where it has few
# The methods that an option is of. Not the seed, which random weights have as well.
OF: dict[str, tuple[str, ...]] = {name: ("stage1",) for name in ("solver", *OPTIONS) if name != "seed"}
OF |= {"views": ("stage1", "shift-mean"), "denoiser": ("stage2",), "compiled": ("stage2",)}
OF |= {"rasa_rounds": ("rasa",)}
OF |= dict.fromkeys(("register_neurons", "register_layer"), ("test-time-registers",))
SPELT = {"compiled": "compile"}


@dataclass(frozen=True)
class Choice:
    """The options as they are to be computed, what is known beforehand (H, W, C), and lines that say why and with what.

    ``reference`` is what ``--artifact-prior`` or ``--denoiser`` has to be given for the same.
    """

    compute: ComputeOptions
    known: NDArray[np.float32] | None
    why: str = ""
    prior: str = ""
    reference: str = NONE


def named_method(chosen: dict[str, Any], context: click.Context) -> str | None:
    """Return the method that the options mean: the one given, or the only one that other options given belong to.

    Raises UsageError where options of one method are given to another, which would not look at them.
    """
    given = {name for name in chosen if context.get_parameter_source(name) is ParameterSource.COMMANDLINE}
    meant = [OF[name][0] for name in OF if name in given and name != "compiled"]
    method: str | None = chosen["method"] or (
        "stage2" if "denoiser" in given else meant[0] if meant else "stage1" if "seed" in given else None
    )
    for others in dict.fromkeys(OF.values()):
        names = [name for name in OF if name in given and OF[name] == others]
        if method and method not in others and names:
            told = ", ".join(f"--{SPELT.get(name, name).replace('_', '-')}" for name in names)
            verb, them = ("is", "it") if len(names) == 1 else ("are", "them")
            raise click.UsageError(
                f"{told} {verb} of --method {' and '.join(others)}, not of {method}: leave {them} out"
            )
    return method


def choose_method(
    root: Path, dataset: str, compute: ComputeOptions, backbone: "Backbone", named: str | None, dry_run: bool = False
) -> Choice:
    """Take the method named, else the best at hand: stage 2 where a denoiser for these very features is, else stage 1.

    Raises NotInStoreError, InputError, and DenoiserError where the denoiser does not fit.
    """
    if named is None and newest_denoiser(root, backbone.recipe(), dataset) is not None:
        compute = replace(compute, method="stage2")
    if compute.method == "stage2":
        return with_denoiser(root, dataset, compute, backbone, named, dry_run)
    if compute.method in NEIGHBOURS:
        size = batch_size(compute, backbone)
        compute, known, told = calibrated(root, dataset, compute, backbone, size, dry_run)
        return Choice(compute, known, prior=told)
    why = (
        ""
        if named
        else f"method {compute.method}: the best at hand, since no denoiser for these features is trained yet"
    )
    asked = compute.artifact_prior
    if asked == NONE or (asked is None and not begins_from_artifact(compute)):
        return Choice(compute, None, why)
    if asked in (None, MEASURE):
        values, told = measured_artifact(root, dataset, compute, backbone, dry_run)
        return Choice(compute, values, why, told, MEASURE if values is not None else NONE)
    pooled = pool_artifact(root, str(asked))
    if pooled.backbone != backbone.recipe():
        raise InputError(
            f"{pooled.version} was made with another backbone, weights, input or layer: its artifact is no prior"
        )
    told = f"artifact prior: the mean over {plural(pooled.images, 'image')} of {pooled.version}"
    return Choice(compute, pooled.mean, why, told, str(asked))


def begins_from_artifact(compute: ComputeOptions) -> bool:
    """Whether the method can begin from an artifact known beforehand, which is measured unasked then."""
    return compute.method == "stage1" and not compute.faithful


def measured_artifact(
    root: Path, dataset: str, compute: ComputeOptions, backbone: "Backbone", dry_run: bool
) -> tuple[NDArray[np.float32] | None, str]:
    """Return the mean over crops of the data set's images in which content lies anywhere, once taken kept.

    It belongs to the backbone; what few images gave, to the data set alone. None where no image can be read.
    """
    import dvt

    whole = Calibration(root, "anywhere", backbone.recipe())
    own = Calibration(root, hashlib.sha256(dataset.encode()).hexdigest(), backbone.recipe(), "few")
    for kept in (own, whole):
        values = kept.load()
        if values is not None:
            return values, f"artifact prior: kept in {kept.path.name}"
    images = sample_images(root, dataset, CROPS)
    wanted = min(CROPS, max(LEAST, EACH * len(images)))
    kept = own if wanted < CROPS else whole
    each = -(-wanted // max(1, len(images)))
    shown = counted(decoded(images), len(images), "measuring the artifact prior")
    named = ((pixels, str(number)) for number, pixels in enumerate(shown))
    try:
        values = dvt.mean_anywhere(backbone, named, each, batch_size(compute, backbone)).numpy()
    except dvt.SolverError:  # of no image; the build tells of each
        return None, "no artifact prior: no image can be read"
    told = f"artifact prior: the mean over {each * len(images)} crops of {plural(len(images), 'image')}"
    with (
        suppress(StoreError) if dry_run else nullcontext()
    ):  # a dry run keeps it as well: the build need not measure again
        kept.save(values)
        told = f"{told}, kept in {kept.path.name}"
    return values, told


def batch_size(compute: ComputeOptions, backbone: "Backbone") -> int:
    """Return how many inputs a forward takes."""
    return compute.batch_size or (32 if backbone.device.type == "cuda" else 4)


def with_denoiser(
    root: Path, dataset: str, compute: ComputeOptions, backbone: "Backbone", named: str | None, dry_run: bool
) -> Choice:
    """Find the denoiser and its artifact."""
    import dvt

    source, label = locate(root, compute.denoiser, dataset, backbone.recipe())
    denoiser = dvt.Denoiser.from_checkpoint(source, backbone.timm_name, backbone.width)
    dvt.check_lineage(denoiser, backbone.recipe())
    size = batch_size(compute, backbone)
    said: list[str] = []
    batches = images_through(root, dataset, backbone, denoiser, size)
    artifact = artifact_of(root, denoiser, backbone.recipe(), batches, said.append, dry_run=dry_run)
    why = "" if named else "method stage2: the best at hand, since there is a denoiser for these features"
    prior = "; ".join([f"denoiser {label}", *said])
    reference = source if source == compute.denoiser else denoiser.digest()[:12]
    if Path(reference).is_file():
        reference = str(Path(reference).absolute())
    return Choice(replace(compute, denoiser=source), artifact, why, prior, reference)
