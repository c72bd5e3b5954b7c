"""A decomposer in plain numpy, whose every feature a test can compute again, and small data to give it."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

GRID, WIDTH = (4, 5), 8


@dataclass(frozen=True)
class Maps:
    raw: NDArray[np.float32]
    clean: NDArray[np.float32] | None
    artifact: NDArray[np.float32] | None
    prefix: NDArray[np.float32] | None
    stats: Mapping[str, float]
    clean_fine: NDArray[np.float32] | None = None


def expected_clean(image: NDArray[np.uint8], scale: float = 1.0) -> NDArray[np.float32]:
    """Mean colour of the image times a fixed direction, varying by row: enough to tell images apart."""
    mean = image.reshape(-1, 3).mean(axis=0).astype(np.float32)
    rows = np.arange(GRID[0], dtype=np.float32)[:, None, None]
    base = np.zeros((*GRID, WIDTH), np.float32) + rows
    base[..., :3] += mean / 64
    return base * np.float32(scale)


def expected_fine(image: NDArray[np.uint8], grid: tuple[int, int], scale: float = 1.0) -> NDArray[np.float32]:
    """Another map (*grid, WIDTH) of the same image, every place of which differs."""
    places = np.arange(grid[0] * grid[1] * WIDTH, dtype=np.float32).reshape(*grid, WIDTH)
    return (places / 16 + np.float32(image.mean() / 64)) * np.float32(scale)


def expected_artifact() -> NDArray[np.float32]:
    position = np.arange(GRID[0] * GRID[1], dtype=np.float32).reshape(*GRID, 1)
    return (position - position.mean()) * np.linspace(0.1, 0.2, WIDTH, dtype=np.float32)


class FakeDecomposer:
    grid, width, prefix_tokens = GRID, WIDTH, 1
    method = "stage1/fake"
    forwards_per_image = 64

    def __init__(
        self,
        scale: float = 1.0,
        batch_size: int = 2,
        pause: float = 0.0,
        poison: str = "",
        fine_grid: tuple[int, int] | None = None,
    ) -> None:
        self.scale, self.batch_size, self.pause, self.poison = scale, batch_size, pause, poison
        self.fine_grid = fine_grid
        self.variants = ("raw", "clean", "artifact", "residual", *(("clean_fine",) if fine_grid else ()))
        self.calls: list[int] = []

    def recipe(self) -> dict[str, Any]:
        fine = {"clean_grid": list(self.fine_grid)} if self.fine_grid else {}
        return {"backbone": {"id": "fake"}, "method": {"name": "stage1", "scale": self.scale} | fine}

    def prepare(self, image: NDArray[np.uint8], key: str) -> tuple[NDArray[np.uint8], str]:
        return image, key

    def decompose(self, prepared: Sequence[tuple[NDArray[np.uint8], str]]) -> list[Maps]:
        self.calls.append(len(prepared))
        time.sleep(self.pause)
        if self.poison and any(key == self.poison for _, key in prepared):
            raise ValueError("the views do not determine the solution")
        return [self.one(image) for image, _ in prepared]

    def one(self, image: NDArray[np.uint8]) -> Maps:
        clean, artifact = expected_clean(image, self.scale), expected_artifact()
        residual = np.full_like(clean, 0.25)
        stats = {"norm_max": float(image.max()), "heldout_r2": 0.5, "seconds": time.monotonic() % 1}
        fine = expected_fine(image, self.fine_grid, self.scale) if self.fine_grid else None
        return Maps(clean + artifact + residual, clean, artifact, np.ones((1, WIDTH), np.float32), stats, fine)


def make_folder(folder: Path, count: int = 6, seed: int = 0) -> Path:
    """Write ``count`` small PNG files of random colours, half in ``cats``, half in ``dogs``."""
    generator = np.random.default_rng(seed)
    for number in range(count):
        path = folder / ("cats" if number % 2 else "dogs") / f"{number:03d}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(generator.integers(0, 256, (6, 8, 3), dtype=np.uint8)).save(path)
    return folder
