"""Which devices a build runs on, and what one worker process of several takes of the machine."""

import re
import warnings
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from featstore.compute import Decomposer
from featstore.errors import InputError
from featstore.worker import Worker

from .compute import ComputeOptions, Known, load_backbone, make_decomposer

__all__ = ["HELP", "cards", "elsewhere", "gpus", "make_workers", "parse_devices", "remote_worker", "share", "stand_in"]

HELP = (
    "cpu, cuda, cuda:1 …; auto takes a GPU where there is one. Several are given with commas (cuda:0,cuda:1), or as "
    "all, which is every GPU: each makes whole shards in a process of its own, and the store is the same."
)


def parse_devices(text: str) -> tuple[str, ...]:
    """Return the devices that ``--device`` names: one as it is given, several checked.

    Raises InputError where several are not all CUDA devices that are there, each once, or all ``cpu``.
    """
    words = [word.strip().lower() for word in text.split(",")]
    if words == ["all"]:
        found = tuple(f"cuda:{number}" for number in range(cuda_devices()))
        if not found:
            raise InputError("--device all: there is no CUDA device here; give cpu, or cpu,cpu for two processes")
        return found
    if len(words) == 1:
        return (text,)
    names = ["cuda:0" if word == "cuda" else word for word in words]
    odd = [name for name in names if name != "cpu" and not re.fullmatch(r"cuda:\d+", name)]
    if odd:
        raise InputError(
            f"--device {text}: {odd[0]!r} cannot stand in a list; it is of cuda:0, cuda:1 … or of cpu alone"
        )
    if "cpu" in names and set(names) != {"cpu"}:
        raise InputError(f"--device {text}: cpu and GPUs compute different numbers; give cpu alone, or GPUs alone")
    if "cpu" not in names:
        check_cuda(text, names)
    return tuple(names)


def check_cuda(text: str, names: Sequence[str]) -> None:
    """Raise InputError for a CUDA device that is not there, or is given twice."""
    there = [f"cuda:{number}" for number in range(cuda_devices())]
    for name in names:
        if name not in there:
            known = f"there are {', '.join(there)}" if there else "there is no CUDA device at all"
            raise InputError(f"--device {text}: there is no {name} here; {known}")
        if names.count(name) > 1:
            raise InputError(f"--device {text}: {name} is given twice; a GPU gains nothing by a second process")


def gpus(count: int | str) -> tuple[str, ...]:
    """Return the first ``count`` CUDA devices, or all. Raises InputError where there are not as many."""
    there = cuda_devices()
    if count == "all" or int(count) <= there:
        names = tuple(f"cuda:{number}" for number in range(there if count == "all" else int(count)))
        if names:
            return names
    found = "no CUDA device" if not there else "only one CUDA device" if there == 1 else f"only {there} CUDA devices"
    raise InputError(f"--gpus {count}: there {'are' if there > 1 else 'is'} {found} here")


def cuda_devices() -> int:
    """Return how many CUDA devices there are."""
    import torch

    return torch.cuda.device_count()


def share(options: ComputeOptions, devices: Sequence[str]) -> ComputeOptions:
    """Return the options of the first of the processes, and give this one its share of the cores.

    Several on the CPU divide ``--memory``, too; every GPU has its own. What this process then measures is what a worker
    will take.
    """
    own = replace(options, device=devices[0])
    if len(devices) < 2:
        return own
    import torch

    torch.set_num_threads(max(1, torch.get_num_threads() // len(devices)))
    return replace(own, memory=own.memory // len(devices)) if own.memory and own.device == "cpu" else own


def cards(devices: Sequence[str]) -> dict[str, str]:
    """Return what GPUs several devices are, each kind once, as ``environment`` names one; nothing for others."""
    if len(devices) < 2 or devices[0] == "cpu":
        return {}
    import torch

    return {"device": f"cuda: {', '.join(dict.fromkeys(map(torch.cuda.get_device_name, devices)))}"}


def make_workers(
    options: ComputeOptions,
    devices: Sequence[str],
    backbone: Any,
    prior: Known,
    alone: bool = False,
) -> list[Worker]:
    """Return the workers of a build, none for one device unless ``alone``; ``backbone`` leaves the memory that they need.

    ``options`` are those that ``share`` gave.
    """
    if len(devices) < 2 and not alone:
        return []
    import torch

    leave(backbone)
    threads = torch.get_num_threads()
    return [Worker(name, partial(make_in_worker, replace(options, device=name), prior, threads)) for name in devices]


def leave(backbone: Any) -> None:
    """Free the GPU of a model that has been loaded to be looked at."""
    import torch

    if backbone.device.type == "cuda":
        backbone.model.cpu()
        torch.cuda.empty_cache()


def stand_in(options: ComputeOptions, device: str) -> ComputeOptions:
    """Return the options of this process for workers on ``device`` elsewhere: it computes little, but says what they will.

    Its numbers must be those of their device, which here may not be.
    """
    here = "cuda" if device == "cuda" and cuda_devices() else "cpu"
    return replace(options, device=here, dtype=options.dtype or ("bfloat16" if device == "cuda" else "float32"))


def elsewhere(device: str, engine: str) -> dict[str, str]:
    """Return what the environment says of workers that have GPUs where this machine has none."""
    return {"device": f"cuda: of {engine}"} if device == "cuda" and not cuda_devices() else {}


def remote_worker(options: ComputeOptions, device: str, backbone: Any, prior: Known, threads: int | None) -> Worker:
    """Return what works on ``device`` of another machine, where files have the same names and the folder may be another."""
    leave(backbone)
    own = replace(options, device=device, weights=absolute(options.weights), denoiser=absolute(options.denoiser))
    return Worker(device, partial(make_in_worker, own, prior, threads))


def absolute(name: str | None) -> str | None:
    """Return the whole path of a file, and what is none as it is."""
    return str(Path(name).absolute()) if name and Path(name).is_file() else name


def make_in_worker(options: ComputeOptions, prior: Known, threads: int | None) -> Decomposer:
    """Load the model in a worker's process and return what computes there; ``threads`` None is as many as torch takes."""
    import torch

    warnings.simplefilter("ignore")  # the parent has shown those that it shows
    if threads:
        torch.set_num_threads(threads)
    return make_decomposer(options, load_backbone(options), prior)
