"""Are the denoisers that the manifest lists still what was trained?"""

import hashlib
import json
from collections.abc import Iterator, Sequence
from pathlib import Path

import duckdb
import numpy as np

from .findings import Finding
from .versions import Version

__all__ = ["check_denoisers", "denoiser_digest"]

ARTIFACT = "artifact"


def check_denoisers(
    root: Path, connection: duckdb.DuckDBPyConnection, versions: Sequence[Version] | None, quick: bool
) -> list[Finding]:
    """Return the denoisers that are gone or changed: all, or those of the data sets and backbones of some versions."""
    wanted = None if versions is None else {(version.dataset, version.backbone) for version in versions}
    rows = connection.execute("SELECT dataset, backbone, path, digest FROM denoisers ORDER BY path").fetchall()
    chosen = [row[2:] for row in rows if wanted is None or row[:2] in wanted]
    return [finding for path, digest in chosen for finding in check_one(root, path, digest, quick)]


def check_one(root: Path, path: str, digest: str, quick: bool) -> Iterator[Finding]:
    """Yield what is wrong with one denoiser's file."""
    if not (root / path).is_file():
        yield Finding("denoiser", path, "the file is gone")
        return
    if quick:
        return
    try:
        found = denoiser_digest(root / path)
    except Exception as error:  # safetensors has its own errors, JSON and numpy theirs
        yield Finding("denoiser", path, f"it cannot be read: {' '.join(str(error).split())}")
        return
    if found != digest:
        yield Finding("denoiser", path, f"its parameters have digest {found[:12]}, listed is {digest[:12]}")


def denoiser_digest(path: Path) -> str:
    """Return the SHA-256 in hex of a denoiser's layout and parameters, as the table ``denoisers`` tells it."""
    from safetensors import safe_open

    with safe_open(str(path), framework="numpy") as file:
        told = json.loads((file.metadata() or {})["featstore"])
        names = sorted(name for name in file.keys() if name != ARTIFACT)  # noqa: SIM118
        width = next(file.get_slice(name).get_shape()[0] for name in names if name.endswith("norm1.weight"))
        digest = hashlib.sha256(json.dumps([width, told["grid"], told["blocks"]]).encode())
        for name in names:
            values = np.ascontiguousarray(file.get_tensor(name), "<f4")
            digest.update(f"{name} {tuple(values.shape)}\n".encode())
            digest.update(values.tobytes())
    return digest.hexdigest()
