import subprocess
import sys
from datetime import datetime
from pathlib import Path

import duckdb
import pytest
from fakes import FakeDecomposer, make_folder
from older import make_older

from featstore import manifest
from featstore.build import build_version
from featstore.errors import CorruptError, LockedError, NotInStoreError, StoreError
from featstore.index import index_dataset
from featstore.plan import Request
from featstore.query import restricted

DATASET = {"dataset": "it's", "layout": "folder", "source": "/a b", "revision": 1}


def test_a_new_manifest_has_every_table_documented(tmp_path: Path) -> None:
    with manifest.writing(tmp_path):
        pass
    with duckdb.connect(str(tmp_path / "manifest.duckdb"), read_only=True) as plain:
        tables = {row[0] for row in plain.execute("SELECT table_name FROM duckdb_tables()").fetchall()}
        silent = plain.execute("SELECT table_name FROM duckdb_tables() WHERE comment IS NULL").fetchall()
    assert {"datasets", "revisions", "images", "objects", "versions", "shards", "features", "failures"} <= tables
    assert silent == []


def test_bulk_insert_returns_what_went_in(tmp_path: Path) -> None:
    rows = [
        {"dataset": "a", "image_id": "q\"uo'te ü\n", "path": "p", "step": "image", "error": "x", "sha256": None}
        | {"failed_at": datetime(2026, 1, 2, 3, 4, 5, 678)}
    ]
    feature = {"digest": "d", "sha256": "s", "shard_id": 1, "shard_row": 0, "checksum_raw": 2**64 - 1}
    with manifest.writing(tmp_path) as connection:
        assert manifest.insert(connection, "failures", rows) == 1
        assert manifest.insert(connection, "features", [feature | {"norm_min": float("nan"), "norm_max": 1.5}]) == 1
        assert manifest.insert(connection, "failures", []) == 0
    with manifest.reading(tmp_path) as connection:
        assert connection.execute("SELECT image_id, failed_at FROM failures").fetchall() == [
            ("q\"uo'te ü\n", datetime(2026, 1, 2, 3, 4, 5, 678))
        ]
        assert connection.execute("SELECT checksum_raw, norm_min, norm_max FROM features").fetchall() == [
            (2**64 - 1, None, 1.5)
        ]


def test_a_block_that_raises_writes_nothing(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match="stop"), manifest.writing(tmp_path) as connection:
        manifest.insert(connection, "datasets", [DATASET])
        raise RuntimeError("stop")
    with manifest.reading(tmp_path) as connection:
        assert connection.execute("SELECT count(*) FROM datasets").fetchall() == [(0,)]


def test_a_newer_manifest_is_refused_politely(tmp_path: Path) -> None:
    with manifest.writing(tmp_path) as connection:
        connection.execute("INSERT INTO schema_migrations VALUES (9999, 'from the future', now())")
    with pytest.raises(StoreError, match="upgrade featstore"), manifest.writing(tmp_path):
        pass


def test_no_store_and_no_manifest_are_told_apart_from_garbage(tmp_path: Path) -> None:
    with pytest.raises(NotInStoreError, match="featstore index"), manifest.reading(tmp_path):
        pass
    (tmp_path / "manifest.duckdb").write_bytes(b"x" * 20_000)
    with pytest.raises((CorruptError, StoreError), match=r"manifest\.duckdb"), manifest.reading(tmp_path):
        pass


def test_who_holds_the_manifest_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with manifest.writing(tmp_path):
        pass
    script = "import duckdb, sys; c = duckdb.connect(sys.argv[1]); print('held', flush=True); sys.stdin.read()"
    path = str(tmp_path / "manifest.duckdb")
    with subprocess.Popen(
        [sys.executable, "-c", script, path], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as other:
        assert other.stdout is not None
        assert other.stdin is not None
        assert other.stdout.readline() == "held\n"
        monkeypatch.setattr(manifest.patiently, "__defaults__", (0.2,))
        with pytest.raises(LockedError, match=f"PID {other.pid}"), manifest.reading(tmp_path):
            pass
        other.stdin.close()
    with manifest.reading(tmp_path) as connection:
        assert connection.execute("SELECT count(*) FROM datasets").fetchall() == [(0,)]


@pytest.mark.parametrize("number", [1, 2, 3, 4])
def test_a_manifest_of_an_older_schema_is_brought_up_to_date_and_keeps_what_is_there(
    tmp_path: Path, number: int
) -> None:
    index_dataset(tmp_path / "store", "pets", make_folder(tmp_path / "pets", 3))
    build_version(tmp_path / "store", Request("pets", "fake"), FakeDecomposer())
    tables = ("images", "versions", "features", "stored", "revisions")
    newer = {"features": "* EXCLUDE (checksum_prefix)", "stored": "* EXCLUDE (checksum_prefix)"}  # since schema 5
    with manifest.reading(tmp_path / "store") as connection:
        before = [
            connection.execute(f"SELECT {newer.get(name, '*')} FROM {name} ORDER BY ALL").fetchall() for name in tables
        ]
        shards = connection.execute("SELECT * EXCLUDE (checksum) FROM shards").fetchall()
    make_older(tmp_path / "store", number)
    with manifest.reading(tmp_path / "store") as connection:
        assert connection.execute("SELECT max(number) FROM schema_migrations").fetchall() == [(newest(),)]
        after = [
            connection.execute(f"SELECT {newer.get(name, '*')} FROM {name} ORDER BY ALL").fetchall() for name in tables
        ]
        assert connection.execute("SELECT * EXCLUDE (checksum) FROM shards").fetchall() == shards
    for name, was, now in zip(tables, before, after, strict=True):
        assert [[value for value in row if value is not None] for row in now] == [
            [value for value in row if value is not None] for row in was
        ], name
    assert build_version(tmp_path / "store", Request("pets", "fake"), FakeDecomposer()).present == 3


def test_queries_too_bring_an_older_manifest_up_to_date(tmp_path: Path) -> None:
    index_dataset(tmp_path / "store", "pets", make_folder(tmp_path / "pets", 3))
    make_older(tmp_path / "store", 1)
    with restricted(tmp_path / "store", "pets") as connection:
        assert connection.execute("SELECT count(*) FROM images").fetchall() == [(3,)]
        assert connection.execute("SELECT count(*) FROM builds").fetchall() == [(0,)]


def newest() -> int:
    return manifest.migrations()[-1][0]
