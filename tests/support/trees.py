"""Data sets made for tests of layouts: files of the right shape, and what a layout reads of them."""

from pathlib import Path

from bad_images import encoded, photo
from PIL import Image

from featstore import sources
from featstore.records import ImageRecord, Problem


def read(layout: str, folder: Path) -> tuple[dict[str, ImageRecord], list[Problem]]:
    """Return the images by name, in their order, and the problems."""
    found = list(sources.get(layout).read(folder))
    records = [item for item in found if isinstance(item, ImageRecord)]
    assert len({record.image_id for record in records}) == len(records)
    return {record.image_id: record for record in records}, [item for item in found if isinstance(item, Problem)]


def write(path: Path, data: bytes | str) -> Path:
    """Write a file and the folders above it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data.encode() if isinstance(data, str) else data)
    return path


def write_photo(path: Path, width: int = 8, height: int = 6, seed: int = 0) -> Path:
    """Write a photograph."""
    return write(path, encoded(photo(width, height, seed), "JPEG"))


def write_mask(path: Path, value: int = 1, width: int = 8, height: int = 6) -> Path:
    """Write a grey mask of one label."""
    return write(path, encoded(Image.new("L", (width, height), value), "PNG"))
