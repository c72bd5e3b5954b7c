"""The tables beside a Croissant file: one row an image, one row a shard, both Parquet written by DuckDB."""

import hashlib
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import duckdb

from . import manifest
from .compute import VARIANTS
from .errors import CorruptError
from .places import as_remote
from .query import document
from .sealing import sealed, storing
from .versions import STATISTICS, Version

__all__ = ["IMAGES", "SHARDS", "Column", "Listed", "copy_images", "image_columns", "listed_shards", "write_shards"]

IMAGES, SHARDS = "croissant-images.parquet", "croissant-shards.parquet"
PLAIN = ("image_id", "sha256", "width", "height", "split", "splits", "label", "shard")
KINDS = {"INTEGER": "sc:Integer", "FLOAT": "sc:Float", "VARCHAR": "sc:Text", "VARCHAR[]": "sc:Text"}
THREADS, CHUNK = 4, 1 << 20
SUMS = {f"checksum_{name}": name for name in (*VARIANTS, "prefix")}
MEANT = {
    name: f"first 8 bytes of BLAKE2b over the stored bytes of {variant}, read as little-endian and written as hex"
    for name, variant in SUMS.items()
} | {"shard": "which file holds its maps: `path` of the record set `shards`", "shard_row": "which row of it, from 0"}
MINE = "(SELECT * FROM stored WHERE dataset = ? AND backbone = ? AND version = ?)"


@dataclass(frozen=True)
class Column:
    """One column as Croissant describes it; ``kind`` is a schema.org data type."""

    name: str
    kind: str
    description: str
    repeated: bool = False


@dataclass(frozen=True)
class Listed:
    """One shard; ``path`` below the root, ``blake2b`` the manifest's checksum or None, ``sha256`` '' until it is known."""

    path: str
    samples: int
    variants: tuple[str, ...]
    bytes: int
    blake2b: str | None
    sha256: str = ""


def scope(version: Version) -> list[str]:
    """Return what ``MINE`` is asked for."""
    return [version.dataset, version.backbone, f"v{version.number}"]


def image_columns(connection: duckdb.DuckDBPyConnection, root: Path, version: Version) -> tuple[list[Column], int]:
    """Return the columns of the table of images that are not empty, and how many images there are."""
    meant = {column: text for table, column, _, text in document(root) if table == "stored"} | MEANT
    types = {row[0]: row[1] for row in connection.execute("DESCRIBE stored").fetchall()}
    names = [name for name in (*PLAIN, "shard_row", *SUMS, *STATISTICS) if name in types]
    filled = ", ".join(f"count({name})" if name != "splits" else "count_if(len(splits) > 0)" for name in names)
    counted = connection.execute(f"SELECT count(*), {filled} FROM {MINE}", scope(version)).fetchall()[0]
    columns = []
    for name, count in zip(names, counted[1:], strict=True):
        # A data frame keeps whole numbers beside NULL as float64, which has 53 bits: checksums are written as digits.
        kind = "sc:Text" if name in SUMS else KINDS[types[name]]
        if count:
            columns.append(
                Column(name.replace("shard_row", "row"), kind, meant.get(name, ""), types[name].endswith("[]"))
            )
    return columns, counted[0]


def copy_images(connection: duckdb.DuckDBPyConnection, version: Version, columns: Sequence[Column], path: Path) -> None:
    """Have DuckDB write the table of images to ``path``, which the connection must allow."""
    chosen = []
    for column in columns:
        if column.name.startswith("checksum_"):
            chosen.append(f"format('{{:016x}}', {column.name}) AS {column.name}")
        else:
            chosen.append("shard_row AS row" if column.name == "row" else column.name)
    literal = str(path).replace("'", "''")
    connection.execute(
        f"COPY (SELECT {', '.join(chosen)} FROM {MINE} ORDER BY image_id) TO '{literal}' (FORMAT parquet, COMPRESSION zstd)",
        scope(version),
    )


def listed_shards(connection: duckdb.DuckDBPyConnection, version: Version) -> list[Listed]:
    """Return the shards that hold a version's images, whosesoever folder they are in, ordered by path."""
    known = {row[0] for row in connection.execute("DESCRIBE manifest.shards").fetchall()}
    checksum = "checksum" if "checksum" in known else "NULL"
    rows = connection.execute(
        f"SELECT path, samples, variants, bytes, {checksum} FROM manifest.shards WHERE path IN (SELECT shard FROM {MINE}) "
        "ORDER BY path",
        scope(version),
    ).fetchall()
    return [Listed(path, samples, tuple(variants), size, digest) for path, samples, variants, size, digest in rows]


def write_shards(root: Path, shards: Sequence[Listed], path: Path, advanced: Callable[[int], None]) -> list[Listed]:
    """Write the table of shards and return them with their SHA-256; ``advanced`` is told of bytes hashed.

    A shard is never changed, so what the table of an earlier export says of the same checksum holds. Raises CorruptError for a
    shard that is gone or cut short.
    """
    known = earlier(path)

    def hashed(shard: Listed) -> Listed:
        digest = known.get((shard.path, shard.bytes, shard.blake2b)) if shard.blake2b else None
        if digest is None:
            return replace(shard, sha256=sha256_of(root / shard.path, shard.bytes, advanced))
        advanced(shard.bytes)
        return replace(shard, sha256=digest)

    with ThreadPoolExecutor(THREADS) as pool:
        found = list(pool.map(hashed, shards))
    with storing(path), sealed(path) as temporary, duckdb.connect() as connection:
        connection.execute(
            "CREATE TABLE shards "
            "(path VARCHAR, samples INTEGER, variants VARCHAR[], bytes BIGINT, blake2b VARCHAR, sha256 VARCHAR)"
        )
        manifest.insert(connection, "shards", (asdict(shard) for shard in found))
        literal = str(temporary).replace("'", "''")
        connection.execute(f"COPY (FROM shards ORDER BY path) TO '{literal}' (FORMAT parquet, COMPRESSION zstd)")
    return found


def earlier(path: Path) -> dict[tuple[str, int, str | None], str]:
    """Return what an earlier table says: SHA-256 by path, size and checksum; nothing where none can be read."""
    if as_remote(path) is not None or not path.is_file():
        return {}
    try:
        with duckdb.connect() as connection:
            rows = connection.execute(
                "SELECT path, bytes, blake2b, sha256 FROM read_parquet(?)", [str(path)]
            ).fetchall()
    except duckdb.Error:
        return {}
    return {(row[0], row[1], row[2]): row[3] for row in rows}


def sha256_of(path: Path, size: int, advanced: Callable[[int], None]) -> str:
    """Return the SHA-256 of a file, read piece by piece; raises CorruptError where it is not ``size`` bytes."""
    digest, seen = hashlib.sha256(), 0
    try:
        with path.open("rb") as file:
            while data := file.read(CHUNK):
                digest.update(data)
                seen += len(data)
                advanced(len(data))
    except OSError as error:
        raise CorruptError(f"{path} cannot be read ({error.strerror}): build again to make it") from error
    if seen != size:
        raise CorruptError(f"{path} has {seen} bytes, not {size}: build again to make it")
    return digest.hexdigest()
