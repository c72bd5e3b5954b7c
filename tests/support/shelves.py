"""Small images and the containers that data sets come in: tar, Parquet, MATLAB."""

import io
import json
import tarfile
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray
from PIL import Image


def picture(number: int, size: tuple[int, int] = (6, 8)) -> NDArray[np.uint8]:
    return np.random.default_rng(number).integers(0, 256, (*size, 3), dtype=np.uint8)


def encoded(values: NDArray[Any], form: str = "PNG") -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(values).save(buffer, form)
    return buffer.getvalue()


def make_tar(path: Path, files: dict[str, bytes], form: int = tarfile.PAX_FORMAT) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w", format=form) as tar:
        for name, data in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return path


def make_parquet(path: Path, columns: dict[str, Any], group: int = 7, names: list[str] | None = None) -> Path:
    """Write columns as pyarrow infers them; ``names`` are the classes of ``label``, noted as the library datasets does."""
    import pyarrow
    import pyarrow.parquet

    path.parent.mkdir(parents=True, exist_ok=True)
    table = pyarrow.table(columns)
    if names is not None:
        features = {"info": {"features": {"label": {"names": names, "_type": "ClassLabel"}}}}
        table = table.replace_schema_metadata({"huggingface": json.dumps(features)})
    pyarrow.parquet.write_table(table, path, row_group_size=group)
    return path


def as_files(values: list[bytes]) -> list[dict[str, Any]]:
    """Return files as Hugging Face's data sets hold them."""
    return [{"bytes": value, "path": f"{number}.jpg"} for number, value in enumerate(values)]


def make_mat(path: Path, count: int = 3) -> dict[str, NDArray[Any]]:
    """Write a labelled NYU file as MATLAB does, where (H, W, 3, N) is (N, 3, W, H) in the file; returns (H, W, …, N)."""
    drawn = np.random.default_rng(2)
    arrays: dict[str, NDArray[Any]] = {
        "images": drawn.integers(0, 256, (6, 8, 3, count), dtype=np.uint8),
        "labels": drawn.integers(0, 895, (6, 8, count), dtype=np.uint16),
        "instances": drawn.integers(0, 9, (6, 8, count), dtype=np.uint8),
        "depths": (drawn.random((6, 8, count)) * 10).astype(np.float32),
    }
    words = {
        "names": ["wall", "floor"],
        "scenes": [f"kitchen_000{n}" for n in range(count)],
        "sceneTypes": ["kitchen"] * count,
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    with h5py.File(path, "w", userblock_size=512) as file:
        for name, values in arrays.items():
            file.create_dataset(name, data=values.T, compression="gzip", chunks=(1, *values.T.shape[1:]))
        for name, texts in words.items():
            cells = file.create_dataset(name, (1, len(texts)), h5py.ref_dtype)
            for number, text in enumerate(texts):
                codes = np.frombuffer(text.encode("utf-16-le"), np.uint16)[:, None]
                cells[0, number] = file.create_dataset(f"#refs#/{name}{number}", data=codes).ref
    with path.open("r+b") as raw:
        raw.write(b"MATLAB 7.3 MAT-file, Platform: GLNXA64, HDF5 schema 1.00 .".ljust(124) + b"\0\2IM")
    return arrays
