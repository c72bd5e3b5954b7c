"""Which denoiser a command means, and the artifact that belongs to it."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from featstore.calibration import Calibration, decoded, sample_images, sample_raw
from featstore.denoisers import find_denoiser, list_denoisers, newest_denoiser
from featstore.errors import InputError, NotInStoreError, StoreError
from featstore.places import path_of
from featstore.versions import Version
from featstore.working_copy import local_copy

from .printing import plural
from .progress import counted

if TYPE_CHECKING:
    import torch

    from dvt import Backbone, Denoiser

__all__ = ["HELP", "artifact_of", "images_through", "locate", "raw_through"]

HELP = "its file, hub:voc_denoised, hub:imgnet_denoised, or one of the store: d1, voc/dinov2_b/d1, first digits of its digest."
Batches = Iterator[tuple["torch.Tensor", "torch.Tensor"]]


def locate(root: Path, name: str | None, dataset: str, backbone: Mapping[str, Any]) -> tuple[str, str]:
    """Return what ``Denoiser.from_checkpoint`` takes, and what to call it.

    ``name`` None is the newest that was trained on features of this recipe. Raises NotInStoreError.
    """
    if name is None:
        newest = newest_denoiser(root, backbone, dataset)
        if newest is None:
            raise NotInStoreError(none_fits(root, dataset, backbone))
        return str(local_copy(root / newest.path)), f"{newest.name}, trained on {plural(newest.images, 'image')}"
    if name.startswith("hub:"):
        return name, Path(name).name
    if (path := path_of(name)).is_file():
        return str(local_copy(path)), path.name
    if name.endswith((".pth", ".pt", ".safetensors")):
        raise InputError(f"there is no denoiser file {name}")
    row = find_denoiser(root, name)
    return str(local_copy(root / row.path)), f"{row.name}, trained on {plural(row.images, 'image')}"


def none_fits(root: Path, dataset: str, backbone: Mapping[str, Any]) -> str:
    """Say that no denoiser is of these features, in what the nearest one differs, and what to do."""
    import dvt

    told = f"no denoiser for these features of {backbone['id']} is at hand"
    near = [one for one in list_denoisers(root) if one.features.get("id") == backbone["id"]]
    for one in near[-1:]:
        other = [key for key, value in backbone.items() if one.features.get(key) != value]
        why = "does not beat raw on held-out images" if (root / one.path).is_file() else "has lost its file"
        told += f" ({one.name} is of another {', '.join(other)})" if other else f" ({one.name} {why})"
    return (
        f"{told}: featstore train {dataset} --backbone {dvt.backbone_id(str(backbone['id']))} makes one of a stage-1 "
        "version, or give --denoiser NAME (one trained at another input size may do)"
    )


def artifact_of(
    root: Path,
    denoiser: "Denoiser",
    backbone: dict[str, Any],
    batches: Callable[[], Batches],
    say: Callable[[str], None],
    dry_run: bool = False,
) -> NDArray[np.float32]:
    """Return the artifact (H, W, C): the denoiser's own, or that kept in the store, or taken now over ``batches``.

    Its own counts only for the features that it was trained on. A dry run keeps it as well, so that
    the build need not take it again, but does not mind where it cannot.
    """
    import torch

    import dvt

    if denoiser.artifact is not None and denoiser.facts.get("backbone") == backbone:
        return denoiser.artifact.numpy()
    kept = Calibration(root, denoiser.digest(), backbone)
    values = kept.load()
    if values is None:
        seen = 0

        def counted() -> Batches:
            nonlocal seen
            for raw, clean in batches():
                seen += len(raw)
                yield raw, clean

        with torch.inference_mode():
            values = dvt.position_mean(counted()).numpy()
        told = f"kept in {kept.path.name}"
        try:
            kept.save(values)
        except StoreError:
            if not dry_run:
                raise
            told = "not kept, since the store cannot be written"
        say(f"artifact: the mean of raw - clean over {plural(seen, 'image')}, {told}")
    return values


def images_through(
    root: Path, dataset: str, backbone: "Backbone", denoiser: "Denoiser", batch_size: int
) -> Callable[[], Batches]:
    """Return what yields (raw, D(raw)) of a data set's sample, batch by batch."""
    import dvt

    def run() -> Batches:
        loader = dvt.RawDecomposer(backbone, batch_size)
        images = sample_images(root, dataset)
        shown = counted(decoded(images), len(images), "measuring the artifact")
        for group in groups(shown, batch_size):
            raw, _ = dvt.raw_of(backbone, [loader.prepare(image, "") for image in group])
            raw = raw.half()  # as a store holds it
            yield from dvt.cleaned(denoiser, [(raw, raw)], backbone.device, backbone.dtype)

    return run


def raw_through(
    root: Path, version: Version, denoiser: "Denoiser", device: "torch.device", dtype: str, batch_size: int
) -> Callable[[], Batches]:
    """Return what yields (raw, D(raw)) of the same sample from what a version stores."""
    import dvt

    def run() -> Batches:
        maps = sample_raw(root, version.dataset, version.backbone, f"v{version.number}")
        for group in groups(maps, batch_size):
            raw = dvt.as_maps(group)
            yield from dvt.cleaned(denoiser, [(raw, raw)], device, dtype)

    return run


def groups(values: Iterable[NDArray[Any]], size: int) -> Iterator[list[NDArray[Any]]]:
    """Yield values in groups of ``size``."""
    remaining = iter(values)
    while group := list(islice(remaining, size)):
        yield group
