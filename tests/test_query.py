import json
from pathlib import Path

import pytest

from featstore import manifest
from featstore.errors import NotInStoreError, QueryError
from featstore.query import check_condition, check_select, document, restricted, select


@pytest.fixture
def root(tmp_path: Path) -> Path:
    image = {"path": "p", "bytes": 1, "mtime_ns": 1, "width": 1, "height": 1, "mode": "RGB", "splits": []}
    with manifest.writing(tmp_path) as connection:
        for name in ("one", "two"):
            manifest.insert(
                connection, "datasets", [{"dataset": name, "layout": "folder", "source": "/", "revision": 2}]
            )
            rows = [
                image | {"dataset": name, "image_id": f"{name}-{n}", "sha256": f"{name}{n}", "first_revision": 1}
                for n in range(3)
            ]
            rows[0]["last_revision"] = 1
            manifest.insert(connection, "images", rows)
    return tmp_path


def test_a_data_set_is_seen_alone_and_at_its_newest_revision(root: Path) -> None:
    with restricted(root, "one") as connection:
        assert select(connection, "SELECT image_id FROM images ORDER BY 1").fetchall() == [("one-1",), ("one-2",)]
        assert select(connection, "SELECT count(*) FROM manifest.images").fetchall() == [(6,)]
    with restricted(root) as connection:
        assert select(connection, "SELECT count(*) FROM images").fetchall() == [(4,)]


@pytest.mark.parametrize(
    "sql",
    [
        "DROP TABLE images",
        "DROP VIEW images",
        "COPY images TO '/tmp/x.csv'",
        "INSERT INTO manifest.datasets VALUES ('x', 'x', 'x', 1)",
        "DELETE FROM manifest.images",
        "UPDATE manifest.images SET width = 2",
        "ATTACH '/tmp/x.duckdb' AS x",
        "SET enable_external_access = true",
        "PRAGMA database_list",
        "CREATE TABLE t AS SELECT 1",
        "INSTALL httpfs",
        "SELECT 1; DROP TABLE images",
        "",
        "SELEKT 1",
        "SELECT * FROM nowhere",
        "SELECT * FROM read_csv('/etc/passwd')",
        "SELECT * FROM read_text('/etc/hostname')",
        "SELECT * FROM glob('/*')",
        "EXPLAIN ANALYZE COPY images TO '/tmp/x.csv'",
    ],
)
def test_all_but_reading_the_manifest_is_refused_in_one_line(root: Path, sql: str) -> None:
    before = (root / "manifest.duckdb").read_bytes()
    with restricted(root, "one") as connection, pytest.raises(QueryError) as caught:
        select(connection, sql).fetchall()
    assert "\n" not in str(caught.value)
    assert (root / "manifest.duckdb").read_bytes() == before


@pytest.mark.parametrize(
    "sql", ["SELECT 1", "FROM images;", "DESCRIBE images", "WITH a AS (SELECT 1) FROM a", "SUMMARIZE images"]
)
def test_what_reads_is_taken(root: Path, sql: str) -> None:
    with restricted(root, "one") as connection:
        assert select(connection, sql).fetchall()


def test_a_condition_may_end_in_a_comment_but_not_in_a_second_statement() -> None:
    assert check_condition("split = 'train' -- only those") == "split = 'train' -- only those"
    with pytest.raises(QueryError, match="3 statements"):
        check_condition("true); DROP TABLE images; SELECT (1")
    with pytest.raises(QueryError, match="parsed"):
        check_condition("true) UNION ALL (SELECT 2")


def test_a_wrong_name_is_told_with_what_may_have_been_meant(root: Path) -> None:
    with restricted(root, "one") as connection, pytest.raises(QueryError, match=r'"imageid" not found.*"image_id"'):
        select(connection, "SELECT imageid FROM images")


def test_trailing_semicolon_and_space_are_no_second_statement() -> None:
    assert check_select(" SELECT 1 ; ").strip() == "SELECT 1"


def test_an_unknown_data_set_names_those_there_are(root: Path) -> None:
    with pytest.raises(NotInStoreError, match="one, two"), restricted(root, "three"):
        pass


def test_every_table_and_view_is_documented(root: Path) -> None:
    wholes = {table: text for table, column, _, text in document(root) if not column}
    assert {"images", "objects", "stored", "coverage", "latest", "features"} <= set(wholes)
    assert all(wholes.values()), json.dumps(wholes)
    columns = {(table, column): text for table, column, _, text in document(root) if column}
    assert [name for name, text in columns.items() if not text] == []
    assert columns["stored", "path"] == columns["images", "path"] != columns["shards", "path"]
