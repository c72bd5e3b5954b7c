"""What engines are judged by: the shards of a store, what its manifest lists, and which processes are left."""

import time
from collections.abc import Callable
from pathlib import Path

from featstore.manifest import reading


def rows(root: Path, sql: str) -> list[tuple[object, ...]]:
    with reading(root) as connection:
        return connection.execute(sql).fetchall()


def shards(root: Path) -> dict[str, bytes]:
    return {path.relative_to(root).as_posix(): path.read_bytes() for path in sorted(root.rglob("*.h5"))}


def digest_of(root: Path, image_id: str) -> str:
    return str(rows(root, f"SELECT sha256 FROM images WHERE image_id = '{image_id}'")[0][0])


def is_clean(root: Path) -> bool:
    """Whether every shard on disk is listed, every listed one is there, and nothing half-written lies about."""
    listed = {row[0] for row in rows(root, "SELECT path FROM shards")}
    return listed == set(shards(root)) and not list(root.rglob(".tmp-*"))


def is_whole(root: Path) -> bool:
    """As after a failure: a shard may be sealed and not listed yet, where its worker was stopped before it could tell."""
    listed = {row[0] for row in rows(root, "SELECT path FROM shards")}
    return listed <= set(shards(root)) and not list(root.rglob(".tmp-*"))


def alive(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False
    return state != "Z"


def wait_until(condition: Callable[[], bool], seconds: float) -> bool:
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.02)
    return True
