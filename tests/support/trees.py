"""Data sets made for tests of layouts: files of the right shape, and what a layout reads of them."""

from pathlib import Path

from bad_images import encoded, photo
from PIL import Image

from featstore import sources
from featstore.places import listed, path_of
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


def put(folder: Path, url: str) -> None:
    """Copy a folder to a bucket with boto3."""
    import boto3

    bucket, _, key = url.removeprefix("s3://").partition("/")
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            boto3.client("s3").upload_file(str(path), bucket, f"{key}/{path.relative_to(folder).as_posix()}")


def same_behind_url(layout: str, folder: Path, url: str) -> None:
    """Assert that a layout is detected behind a URL, and tells the same of it as of the folder that was copied there."""
    put(folder, url)
    remote = listed(path_of(url))
    assert sources.detect(remote).layout == layout
    assert list(sources.get(layout).read(remote)) == list(sources.get(layout).read(folder))
    assert sources.get(layout).meaning(remote) == sources.get(layout).meaning(folder)
