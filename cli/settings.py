"""Options that take settings in one word: ``--slurm partition=gpu,time=60``."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import click

__all__ = ["RAY", "SLURM", "Known", "Settings"]


def whole(text: str) -> int:
    """Return a whole number above zero."""
    number = int(text)
    if number < 1:
        raise ValueError(text)
    return number


def share(text: str) -> float:
    """Return a number that is not negative."""
    number = float(text)
    if not 0 <= number < float("inf"):
        raise ValueError(text)
    return number


def minutes(text: str) -> int:
    """Return minutes of ``90``, ``1:30:00`` (hours first) or ``2-12:00:00`` (days first), as Slurm writes them."""
    days, _, clock = text.rpartition("-")
    parts = [int(part) for part in clock.split(":")]
    if len(parts) == 1 and not days:
        return whole(text)
    hours, mins, secs = ([*parts, 0, 0] if days else [0] * (3 - len(parts)) + parts)[:3]
    return whole(str(int(days or 0) * 1440 + hours * 60 + mins + (secs > 0)))


def gigabytes(text: str) -> float:
    """Return GB of ``32``, ``32G`` or ``32GB``."""
    return share(text.upper().removesuffix("B").removesuffix("G"))


@dataclass(frozen=True)
class Known:
    """The settings that an option takes: what reads each, which are unset unless given, and what the others become."""

    option: str
    help: str
    readers: Mapping[str, Callable[[str], Any]]
    settle: Callable[[Sequence[dict[str, Any]]], dict[str, Any]]
    others: bool = False


class Settings(click.ParamType[dict[str, Any]]):
    """``key=value`` with commas."""

    name = "KEY=VALUE,…"

    def __init__(self, known: Known) -> None:
        self.known = known

    def convert(self, value: Any, parameter: click.Parameter | None, context: click.Context | None) -> dict[str, Any]:
        """Read each value."""
        if isinstance(value, dict):
            return value
        found: dict[str, Any] = {}
        for word in filter(None, (word.strip() for word in str(value).split(","))):
            key, sign, text = (part.strip() for part in word.partition("="))
            read = self.known.readers.get(key, str if self.known.others else None)
            if not sign or not key or read is None:
                self.fail(f"{word!r} is no setting: give {', '.join(f'{name}=…' for name in self.known.readers)}")
            try:
                found[key] = read(text)
            except ValueError:
                self.fail(f"{key}={text} is not a {read.__name__.replace('share', 'number')} that makes sense")
        return found


def merged(given: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Return several settings as one, the last of each."""
    return {key: value for one in given for key, value in one.items()}


SUBMITIT = {"time": "timeout_min", "gpus": "gpus_per_node", "cpus": "cpus_per_task", "mem": "mem_gb"}
GENERIC = {"name"}
OWN = {"jobs", "cluster"}
HOURS = 4


def for_submitit(given: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Return what ``SlurmEngine`` takes: its own settings, and submitit's under its names, where every other is Slurm's."""
    found = merged(given)
    parameters = {"timeout_min": HOURS * 60, "name": "featstore"}
    for key, value in found.items():
        name = key.replace("-", "_")
        if key not in OWN:
            parameters[SUBMITIT.get(key) or (key if key in GENERIC else f"slurm_{name}")] = value
    return {"jobs": 8} | {key: found[key] for key in OWN & found.keys()} | {"parameters": parameters}


RAY = Known(
    "ray",
    "address=HOST:PORT (else the cluster of this machine), actors=N (else what the nodes hold), cpus=N, gpus=N an actor.",
    {"address": str, "actors": whole, "cpus": share, "gpus": share},
    merged,
)
SLURM = Known(
    "slurm",
    "jobs=N at a time; partition, time [minutes], gpus, cpus, mem [GB] and what else sbatch knows, a job; cluster=local "
    "runs them as processes here.",
    {
        "jobs": whole,
        "time": minutes,
        "gpus": whole,
        "cpus": whole,
        "mem": gigabytes,
        "cluster": str,
        "partition": str,
    },
    for_submitit,
    others=True,
)
