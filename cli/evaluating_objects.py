"""Objects found on stored features without training, by LOST, held against annotated boxes."""

from typing import TYPE_CHECKING

from featstore.boxes import PhotographBoxes
from featstore.errors import InputError

from .evaluating import Job

if TYPE_CHECKING:
    from .evaluating import Outcome

__all__ = ["discovery"]

ENOUGH = 0.5  # IoU above which a box has found an object


def discovery(job: Job) -> "Outcome":
    """Return CorLoc: the share of images where LOST's box has an IoU above 0.5 with that of any object.

    Beside it that of the box around the whole image, which needs no features. Images without an object in sight count for
    nothing.
    """
    import torch

    import dvt

    data = job.data(train=False)
    boxes = PhotographBoxes(job.root, data)
    found: dict[str, list[list[int]]] = {variant: [] for variant in (*job.variants, "")}
    for place in range(len(data)):
        item = data[place]
        for variant in job.variants:
            maps = item[variant].permute(1, 2, 0).to(job.device)
            grid = int(maps.shape[0]), int(maps.shape[1])
            found[variant].append(hit(boxes, place, dvt.find_object(maps, job.k_patches).box, grid))
        found[""].append(hit(boxes, place, (0, 0, 1, 1), (1, 1)))
        job.advance(1)
    counts = {name: torch.tensor(some)[None, :, None] for name, some in found.items()}
    if not int(counts[""][..., 1].sum()):
        raise InputError(f"{job.version.name}: no image to judge by shows an object of which a box is known")
    outcome: Outcome = {}
    for variant in job.variants:
        outcome[variant, "CorLoc"] = dvt.Sums(counts[variant], dvt.corloc)
        outcome[variant, "whole image"] = dvt.Sums(counts[""], dvt.corloc)
    return outcome


def hit(boxes: PhotographBoxes, place: int, box: tuple[int, int, int, int], grid: tuple[int, int]) -> list[int]:
    """Return whether a box of patches has found an object, and whether there is one to find."""
    import torch

    import dvt

    true = torch.from_numpy(boxes.true(place))
    if not len(true):
        return [0, 0]
    overlap = dvt.box_iou(torch.from_numpy(boxes.of_patches(place, box, grid)), true)
    return [int(bool((overlap > ENOUGH).any())), 1]
