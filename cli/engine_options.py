"""Where a build runs: the options that say so, and the engine they mean."""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import click
from click.core import ParameterSource

from featstore.engines import Engine, LocalEngine
from featstore.places import as_remote

from . import devices
from .compute import ComputeOptions, Known
from .settings import RAY, SLURM, Settings

__all__ = ["Place", "choose_place", "engine_options"]

F = TypeVar("F", bound=Callable[..., Any])
RETRIES = 2


class Gpus(click.ParamType[int | str]):
    """A number, or ``all``."""

    name = "N|all"

    def convert(self, value: Any, parameter: click.Parameter | None, context: click.Context | None) -> int | str:
        """Check it."""
        if value == "all" or (str(value).isdigit() and int(value)):
            return value if value == "all" else int(value)
        return self.fail(f"{value!r} is no number of GPUs: give 1, 2 … or all", parameter, context)


def engine_options(command: F) -> F:
    """Add the options that say where a build runs."""
    for option in reversed(OPTIONS):
        command = option(command)
    return command


OPTIONS = (
    click.option(
        "--engine",
        type=click.Choice(["local", "ray", "slurm"]),
        default="local",
        help="Who makes the shards: this machine, actors of a Ray cluster, or jobs of Slurm.",
    ),
    click.option("--gpus", type=Gpus(), help="local: this many GPUs, as --device cuda:0,cuda:1 …; all is every one."),
    click.option("--ray", type=Settings(RAY), multiple=True, help=f"ray: {RAY.help}  [default: cpus=1]"),
    click.option(
        "--slurm", type=Settings(SLURM), multiple=True, help=f"slurm: {SLURM.help}  [default: jobs=8,time=240]"
    ),
    click.option(
        "--timeout",
        type=click.FloatRange(min=0, min_open=True),
        metavar="MINUTES",
        help="Longest a shard, or loading the model, may take a worker before it counts as hung.  [default: no limit]",
    ),
    click.option(
        "--retries",
        type=click.IntRange(min=0),
        default=RETRIES,
        metavar="N",
        help="ray, slurm: how often a shard whose worker died is given to another.",
    ),
)
NAMES = ("engine", "gpus", "ray", "slurm", "timeout", "retries")


@dataclass(frozen=True)
class Place:
    """Where a build runs: ``devices`` are those of this machine's workers, or, for another engine, what each of its has."""

    engine: str
    devices: tuple[str, ...]
    settings: dict[str, Any] = field(default_factory=dict)
    timeout: float | None = None
    tries: int = RETRIES + 1

    @property
    def workers(self) -> int:
        """Return how many work at once, as far as that is known here."""
        known = {"local": len(self.devices), "ray": self.settings.get("actors"), "slurm": self.settings.get("jobs")}
        return int(known[self.engine] or 1)

    def share(self, options: ComputeOptions) -> ComputeOptions:
        """Return the options for this process, with the numbers of the workers' devices, and give it its share of the cores."""
        if self.engine == "local":
            return devices.share(options, self.devices)
        return devices.stand_in(options, self.devices[0])

    def facts(self) -> dict[str, str]:
        """Return what the environment says of the workers' devices where this process knows better than its own."""
        if self.engine == "local":
            return devices.cards(self.devices)
        return devices.elsewhere(self.devices[0], self.engine)

    def make_engine(self, options: ComputeOptions, backbone: Any, known: Known, root: Path) -> Engine:
        """Return the engine; ``options`` are those that ``share`` gave, ``known`` what the method needs beforehand."""
        if self.engine == "local":
            workers = devices.make_workers(options, self.devices, backbone, known, alone=self.timeout is not None)
            return LocalEngine(workers, self.timeout)
        settings = dict(self.settings)
        cpus = settings.get("cpus") or settings.get("parameters", {}).get("cpus_per_task")
        worker = devices.remote_worker(options, self.devices[0], backbone, known, max(1, int(cpus)) if cpus else None)
        if self.engine == "ray":
            from featstore.engines.ray import RayEngine

            return RayEngine(worker, **settings, tries=self.tries, timeout=self.timeout)
        from featstore.engines.slurm import SlurmEngine

        return SlurmEngine(worker, shared_folder(root), **settings, tries=self.tries, timeout=self.timeout)


def choose_place(chosen: dict[str, Any], context: click.Context) -> Place:
    """Take the engine's options out of ``chosen``; raises UsageError where they do not fit together."""
    own = {name: chosen.pop(name) for name in NAMES}
    engine, given = own["engine"], {name for name in (*NAMES, "device") if is_given(context, name)}
    for name, of in (("ray", ("ray",)), ("slurm", ("slurm",)), ("gpus", ("local",)), ("retries", ("ray", "slurm"))):
        if name in given and engine not in of:
            raise click.UsageError(
                f"--{name} is of --engine {' and '.join(of)}, and the engine is {engine}{hint(name, engine)}"
            )
    if engine == "local":
        if {"gpus", "device"} <= given:
            raise click.UsageError("--gpus and --device both say where to compute: give one of them")
        named = devices.gpus(own["gpus"]) if own["gpus"] else devices.parse_devices(chosen["device"])
        return Place(engine, named, timeout=seconds(own["timeout"]))
    if "device" in given:
        raise click.UsageError(f"--device is of --engine local: --{engine} gpus=1 gives every worker a GPU")
    settings = (RAY if engine == "ray" else SLURM).settle(own[engine])
    wants = settings.get("gpus") or settings.get("parameters", {}).get("gpus_per_node")
    return Place(engine, ("cuda" if wants else "cpu",), settings, seconds(own["timeout"]), own["retries"] + 1)


def shared_folder(root: Path) -> Path:
    """Return where driver and jobs of Slurm talk: in the store, or, where that is behind a URL, in the folder one is in."""
    if as_remote(root) is None:
        return root / ".slurm"
    return Path.cwd() / f".featstore-slurm-{hashlib.sha256(str(root).encode()).hexdigest()[:8]}"


def is_given(context: click.Context, name: str) -> bool:
    """Whether the user gave an option."""
    return context.get_parameter_source(name) is ParameterSource.COMMANDLINE


def hint(name: str, engine: str) -> str:
    """Return what to give in place of an option of another engine."""
    return f": --{engine} gpus=1 gives every worker a GPU" if name == "gpus" else ""


def seconds(minutes: float | None) -> float | None:
    """Return minutes in seconds."""
    return None if minutes is None else 60 * minutes
