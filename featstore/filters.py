"""Lossless HDF5 filters, run outside HDF5: its one lock would have the threads of a build, or of a loader, stand in line."""

import zlib
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import lru_cache
from importlib import import_module
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from .errors import InputError, NotInStoreError

__all__ = ["CODECS", "NONE", "decodable", "decode", "encoder", "filters_of", "need_plugins", "options", "require"]

NONE = "none"
CODECS = (NONE, "gzip", "lz4", "zstd")
"""What shards may be filtered by. No number changes by any of them."""

DEFLATE, SHUFFLE, BLOSC, ZSTD = 1, 2, 32001, 32015  # as the HDF Group registered them
PLUGINS = {BLOSC: "numcodecs.blosc", ZSTD: "numcodecs.zstd"}
EXTRA = 'pip install "featstore-dvt[compress]"'
GZIP_LEVEL, ZSTD_LEVEL, LZ4_LEVEL = 4, 3, 9
BITSHUFFLE = 2  # as Blosc numbers it

Buffer = bytes | memoryview


def options(codec: str) -> dict[str, Any]:
    """Return what ``h5py.create_dataset`` is to be told, so that any HDF5 that has the filter reads the chunks.

    gzip and zstd follow HDF5's byte shuffle, lz4 is a Blosc frame with its bit shuffle. Raises InputError for an unknown
    codec, or where its package is not installed.
    """
    if codec not in CODECS:
        raise InputError(f"there is no filter {codec!r}: choose from {', '.join(CODECS)}")
    if codec == NONE:
        return {}
    if codec == "gzip":
        return {"compression": "gzip", "compression_opts": GZIP_LEVEL, "shuffle": True}
    plugin = package("hdf5plugin", codec)
    if codec == "zstd":
        return {**plugin.Zstd(clevel=ZSTD_LEVEL), "shuffle": True}
    return dict(plugin.Blosc(cname="lz4", clevel=LZ4_LEVEL, shuffle=plugin.Blosc.BITSHUFFLE))


def require(codec: str) -> None:
    """Raise InputError where a codec is unknown or its packages are not installed."""
    options(codec)
    encoder(codec)


def package(name: str, codec: str) -> Any:
    """Import what a codec needs; raises InputError, naming the extra, where it is not installed."""
    try:
        return import_module(name)
    except ImportError as error:
        raise InputError(f"{codec} needs the packages of an extra: {EXTRA}; gzip needs none") from error


def encoder(codec: str) -> Callable[[NDArray[Any]], bytes] | None:
    """Return what makes a chunk of values, the same bytes for the same values; None for ``none``.

    Several threads may call it at once. Raises InputError where the codec's package is not installed.
    """
    if codec == "gzip":
        return lambda values: zlib.compress(shuffled(values).data, GZIP_LEVEL)
    if codec == "zstd":
        zstd = package(PLUGINS[ZSTD], codec)
        return lambda values: bytes(zstd.compress(shuffled(values), ZSTD_LEVEL))
    if codec == "lz4":
        blosc = package(PLUGINS[BLOSC], codec)
        return lambda values: lz4_frame(blosc, values)
    return None


def lz4_frame(blosc: Any, values: NDArray[Any]) -> bytes:
    """Return a Blosc frame of LZ4 over planes of bits.

    It is one block: of several, Blosc's own threads would write first what they finish first.
    """
    flat = np.ascontiguousarray(values).reshape(-1)
    return bytes(blosc.compress(flat, b"lz4", LZ4_LEVEL, BITSHUFFLE, flat.nbytes, typesize=flat.itemsize))


def shuffled(values: NDArray[Any]) -> NDArray[np.uint8]:
    """Return the first bytes of all values, then the second ones and so on, as HDF5's shuffle filter does."""
    return np.ascontiguousarray(np.ascontiguousarray(values).reshape(-1, 1).view("u1").T)


def unshuffled(data: NDArray[np.uint8], dtype: np.dtype[Any]) -> NDArray[Any]:
    """Return the values whose bytes lie as ``shuffled`` leaves them."""
    planes = data.reshape(dtype.itemsize, -1)
    whole = planes[-1].astype(f"<u{dtype.itemsize}")
    for plane in planes[-2::-1]:  # four times as fast as turning the bytes round
        whole <<= np.uint8(8)
        whole |= plane
    values: NDArray[Any] = whole.view(dtype)
    return values


def filters_of(data: h5py.Dataset) -> tuple[int, ...]:
    """Return the numbers of the filters of a data set, in the order in which they were applied."""
    plan = data.id.get_create_plist()
    return tuple(plan.get_filter(place)[0] for place in range(plan.get_nfilters()))


def decodable(filters: Sequence[int]) -> bool:
    """Whether ``decode`` undoes these filters with what is installed; else HDF5 has to, through a plugin perhaps."""
    return all(number in (DEFLATE, SHUFFLE) or plugin(number) is not None for number in filters)


def decode(filters: Sequence[int], chunk: Buffer, dtype: np.dtype[Any], count: int) -> NDArray[Any]:
    """Return the ``count`` values of a chunk (flat, its own memory).

    Raises ValueError where the chunk is not what such filters leave.
    """
    data = np.frombuffer(chunk, "u1")
    for number in reversed(filters):
        undo = number == SHUFFLE
        data = unshuffled(data, dtype).view("u1") if undo else inflated(number, data, count * dtype.itemsize)
    return data.view(dtype)


def inflated(number: int, data: NDArray[np.uint8], size: int) -> NDArray[np.uint8]:
    """Undo one filter that compresses; raises ValueError where that does not give ``size`` bytes."""
    out = np.empty(size, "u1")
    try:
        if number == DEFLATE:
            out[:] = np.frombuffer(zlib.decompress(data.data, bufsize=size), "u1")
        elif len(plugin(number).decompress(data, out)) != size:
            raise ValueError("it holds fewer bytes than a sample has")
    except (zlib.error, RuntimeError, ValueError) as error:
        raise ValueError(f"a chunk cannot be decoded: {error}") from error
    return out


def need_plugins(filters: Sequence[int], path: Path) -> None:
    """Let HDF5 have its plugins for these filters; raises NotInStoreError, naming the extra, where there is none."""
    with suppress(ImportError):
        import_module("hdf5plugin")
    missing = [number for number in filters if not h5py.h5z.filter_avail(number)]
    if missing:
        raise NotInStoreError(f"{path} has chunks with HDF5 filter {missing[0]}, which is not installed: {EXTRA}")


@lru_cache
def plugin(number: int) -> Any:
    """Return the module that undoes a filter of an extra, None where there is none."""
    try:
        return import_module(PLUGINS[number])
    except (KeyError, ImportError):
        return None
