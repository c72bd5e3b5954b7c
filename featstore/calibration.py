"""What is taken once of a sample of images and kept, so that new images do not move it: the artifact of stage 2, and
others.
"""

import hashlib
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .errors import CorruptError, DecodeError, RemoteError
from .images import decode
from .members import read_bytes
from .pending import Planned, first_by_sha256
from .query import viewed
from .reading import ShardPool
from .recipe import Recipe
from .sealing import storing, write_bytes
from .selection import select_samples

__all__ = ["SAMPLE", "Calibration", "decoded", "sample_images", "sample_raw"]

SAMPLE = 512
"""How many images the mean is taken over: their own variation leaves 1/512 of the residual's variance in it."""


@dataclass(frozen=True)
class Calibration:
    """Where an array lies that was taken of a sample for features of one recipe: a denoiser's artifact (H, W, C), by its
    digest.

    For another method, ``kind`` says what it is, and ``denoiser`` is a digest of what else decided it.
    """

    root: Path
    denoiser: str
    backbone: dict[str, Any]
    kind: str = ""

    @property
    def path(self) -> Path:
        """Return the file's place."""
        own = Recipe.of({"backbone": self.backbone}).digest
        kind = f"{self.kind}-" if self.kind else ""
        return self.root / ".calibrations" / f"{kind}{self.denoiser[:12]}-{own[:12]}.npy"

    def load(self) -> NDArray[np.float32] | None:
        """Return the array, None where it is not taken yet. Raises CorruptError."""
        if not self.path.is_file():
            return None
        try:
            values: NDArray[np.float32] = np.load(BytesIO(self.path.read_bytes()), allow_pickle=False)
        except RemoteError:
            raise
        except (OSError, ValueError, EOFError) as error:
            raise CorruptError(f"{self.path} is damaged: remove it, and it is made again") from error
        return values

    def save(self, values: NDArray[np.float32]) -> None:
        """Keep the array; raises StoreError."""
        with storing(self.path):
            self.path.parent.mkdir(parents=True, exist_ok=True)
            write_bytes(self.path, npy(values))


def npy(values: NDArray[np.float32]) -> bytes:
    """Return the bytes of a .npy file."""
    buffer = BytesIO()
    np.save(buffer, values.astype("<f4"), allow_pickle=False)
    return buffer.getvalue()


def sample_images(root: Path, dataset: str, count: int = SAMPLE) -> list[Planned]:
    """Return ``count`` images of a data set, the first by SHA-256: as good as drawn, and always the same."""
    with viewed(root, dataset) as connection:
        return first_by_sha256(connection, count)


def decoded(images: list[Planned]) -> Iterator[NDArray[np.uint8]]:
    """Yield the images (h, w, 3) that can be read and are what was indexed; the build itself tells of the others."""
    for image in images:
        try:
            data = read_bytes(image.path)
            if hashlib.sha256(data).hexdigest() == image.sha256:
                yield decode(data)
        except RemoteError:
            raise
        except (OSError, DecodeError, ValueError):
            continue


def sample_raw(
    root: Path, dataset: str, backbone: str, version: str, count: int = SAMPLE
) -> Iterator[NDArray[np.float16]]:
    """Yield the raw maps (H, W, C) that a version stores of the images that ``sample_images`` takes first.

    What is damaged is left out: the build itself tells of it.
    """
    chosen = select_samples(root, dataset, backbone, ("raw",), version, None, False)
    with viewed(root, dataset) as connection:
        shas = dict(connection.execute("SELECT image_id, sha256 FROM images").fetchall())
    pool = ShardPool(chosen.shards, verify=True)
    for place in sorted(range(len(chosen.row)), key=lambda place: str(shas[str(chosen.image_ids[place])]))[:count]:
        with suppress(CorruptError):
            yield pool[int(chosen.shard[place])].read("raw", int(chosen.row[place]))
