"""Where and with what features are made: library versions, device, git revision, command line."""

import platform
import shlex
import subprocess
import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch

__all__ = ["device_name", "environment", "installed", "installed_versions", "provenance"]

PACKAGES = ("featstore-dvt", "torch", "timm", "numpy", "pillow", "h5py", "duckdb")


def environment(backbone: Any) -> dict[str, str]:
    """Return library versions and device: what, beside the recipe, may move the last bits."""
    return installed_versions() | {"device": device_name(backbone.device), "weights_source": backbone.weights_source}


def device_name(device: "torch.device") -> str:
    """Return a device's kind and what it is."""
    import torch

    name = torch.cuda.get_device_name(device) if device.type == "cuda" else platform.machine()
    return f"{device.type}: {name}"


def installed_versions() -> dict[str, str]:
    """Return the versions of what computes, with the git revision where it runs from a repository."""
    return {name: installed(name) for name in PACKAGES} | {"python": platform.python_version()} | git_revision()


def installed(name: str) -> str:
    """Return a package's version, or that it is not there."""
    try:
        return version(name)
    except PackageNotFoundError:
        return "not installed"


def provenance() -> dict[str, str]:
    """Return the command line, as it was given."""
    return {"command": shlex.join([Path(sys.argv[0]).name, *sys.argv[1:]])}


def git_revision() -> dict[str, str]:
    """Return the git revision of the program where it runs from a repository of its own."""
    file = Path(__file__)
    try:
        asked(
            file.parent, "ls-files", "--error-unmatch", file.name
        )  # installed inside someone's repository it is not theirs
        return {"git": asked(file.parent, "describe", "--always", "--dirty")}
    except (OSError, subprocess.SubprocessError):
        return {}


def asked(folder: Path, *words: str) -> str:
    """Return what git answers; raises SubprocessError where it fails."""
    command = ["git", "-C", str(folder), *words]
    return subprocess.run(command, capture_output=True, text=True, timeout=5, check=True).stdout.strip()
