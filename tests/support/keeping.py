"""What a store holds, read without featstore's own readers, and held against what the decomposer gives."""

from pathlib import Path

import h5py
import numpy as np
from fakes import FakeDecomposer, expected_clean
from tinystore import rows

from featstore.images import decode


def check_store(root: Path) -> int:
    """See that every map which a version lists, in every revision, is there as it was computed; returns how many there are."""
    listed = rows(
        root,
        "SELECT DISTINCT d.source || '/' || i.path, i.sha256, i.last_revision IS NULL, s.path, f.shard_row, s.variants, "
        "v.recipe->>'$.method.scale' FROM images i JOIN datasets d USING (dataset) JOIN versions v USING (dataset) "
        "JOIN features f ON f.digest = v.digest AND f.sha256 = i.sha256 JOIN shards s USING (shard_id)",
    )
    for path, sha256, current, shard, row, variants, scale in listed:
        with h5py.File(root / shard) as file:
            assert file["sha256"].asstr()[row] == sha256
            if not current:
                continue
            maps = FakeDecomposer(scale=float(scale)).one(decode(Path(path).read_bytes()))
            for name in set(variants) & {"raw", "clean", "artifact"}:
                np.testing.assert_array_equal(file[name][row], getattr(maps, name).astype(np.float16))
    return len(listed)


def shard_files(root: Path) -> set[str]:
    """Return the shards on the disk, below the root."""
    return {path.relative_to(root).as_posix() for path in root.rglob("shard-*.h5")}


def clean_of(path: Path, scale: float = 1.0) -> np.ndarray:
    """Return what ``clean`` of a photograph is."""
    return expected_clean(decode(path.read_bytes()), scale).astype(np.float16)
