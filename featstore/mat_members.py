"""Images inside a MATLAB v7.3 file: each as the bytes of a small image file, the same on every machine."""

import struct
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from .errors import DecodeError, RemoteError
from .ranges import hdf5_source

__all__ = ["mat_size", "opened_mat", "read_mat"]

SHORT, LONG = 3, 4
TIFF_PIXELS = 136
"""Where a TIFF's pixels begin [bytes]: behind 8 of header, 126 of ten tags, and two of nothing."""


def read_mat(path: Path, member: str) -> bytes:
    """Return image ``NAME/NUMBER`` of a MATLAB file as PPM (colour), PGM of 8 or 16 bits (labels) or float TIFF (depths).

    Pixels are those of the file, upright: MATLAB's arrays lie in HDF5 back to front, (N, 3, W, H) and (N, W, H). Numbers
    count from 0; doubles become single floats. Raises OSError where the file is not there, DecodeError for the rest.
    """
    with opened_mat(path) as file:
        array, number = find(file, path, member)
        values = np.asarray(array[number]).T
    return head_of(values.shape, values.dtype) + np.ascontiguousarray(values, stored_as(values.dtype)).tobytes()


def mat_size(path: Path, member: str) -> int:
    """Return how many bytes ``read_mat`` returns, without reading pixels."""
    with opened_mat(path) as file:
        array, _ = find(file, path, member)
        shape, kind = array.shape[:0:-1], array.dtype
    return len(head_of(shape, kind)) + int(np.prod(shape)) * stored_as(kind).itemsize


@contextmanager
def opened_mat(path: Path) -> Iterator[h5py.File]:
    """Open a MATLAB file; what HDF5 says of damage becomes one line. Raises OSError where the file is not there."""
    try:
        with hdf5_source(path) as place, h5py.File(place, "r") as file:
            yield file
    except (RemoteError, FileNotFoundError, PermissionError):
        raise
    except (OSError, RuntimeError) as error:  # h5py tells of damage with either
        with path.open("rb") as file:
            head = file.read(128)
        if head.startswith(b"MATLAB 5.0"):
            raise DecodeError(
                f"{path.name} is a MATLAB file of version 5: save it with -v7.3, which is HDF5"
            ) from error
        raise DecodeError(f"{path.name} is damaged or cut off, or no MATLAB v7.3 file: fetch it again") from error


def find(file: h5py.File, path: Path, member: str) -> tuple[Any, int]:
    """Return the array and the number that a member's name means; raises DecodeError where there is no such image."""
    name, _, number = member.rpartition("/")
    array = file.get(name) if name else None
    if not isinstance(array, h5py.Dataset) or not number.isdigit() or not array.ndim or int(number) >= len(array):
        raise DecodeError(f"{path.name} holds no image {member}: index the data set again")
    return array, int(number)


def stored_as(kind: np.dtype[Any]) -> np.dtype[Any]:
    """Return the type that an image file holds these numbers as."""
    return np.dtype("<f4" if kind.kind == "f" else ">u2" if kind == np.uint16 else np.uint8)


def head_of(shape: tuple[int, ...], kind: np.dtype[Any]) -> bytes:
    """Return all of an image file before the pixels, of an array (h, w) or (h, w, 3); raises DecodeError for any other."""
    colour = len(shape) == 3 and shape[2] == 3 and kind == np.uint8
    if not colour and (len(shape) != 2 or (kind.kind != "f" and kind not in (np.uint8, np.uint16))):
        raise DecodeError(
            f"an array of {kind} of shape {'×'.join(map(str, shape))} an image is none: "
            "colours are (N, 3, W, H) uint8, labels (N, W, H) of 8 or 16 bits, depths (N, W, H) floats"
        )
    if kind.kind == "f":
        return tiff_head(*shape)
    magic, top = ("P6" if colour else "P5"), (255 if kind == np.uint8 else 65535)
    return f"{magic}\n{shape[1]} {shape[0]}\n{top}\n".encode()


def tiff_head(height: int, width: int) -> bytes:
    """Return the header of a TIFF of one uncompressed strip of 32-bit floats (TIFF 6.0, sections 2 and 19)."""
    tags = (
        *((256, LONG, width), (257, LONG, height), (258, SHORT, 32), (259, SHORT, 1), (262, SHORT, 1)),
        *((273, LONG, TIFF_PIXELS), (277, SHORT, 1), (278, LONG, height), (279, LONG, 4 * height * width)),
        (339, SHORT, 3),
    )
    head = b"II*\0" + struct.pack("<IH", 8, len(tags))
    head += b"".join(struct.pack("<HHII", tag, kind, 1, value) for tag, kind, value in tags)
    return head.ljust(TIFF_PIXELS, b"\0")
