"""The DuckDB that a process keeps: lent to one at a time, clean again afterwards, and a forked process has its own."""

import os
from pathlib import Path

import duckdb
import pytest
from fakes import make_folder

from featstore import instances
from featstore.index import index_dataset
from featstore.manifest import reading
from featstore.query import VIEWS, restricted, viewed


@pytest.fixture(autouse=True)
def _none_idle() -> None:
    instances.end()


@pytest.fixture(scope="module")
def roots(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Two stores of two data sets each, whose names differ in case alone."""
    folder = tmp_path_factory.mktemp("instances")
    for count, root in enumerate(("one", "two"), 2):
        for more, name in enumerate(("pets", "Pets")):
            source = make_folder(folder / root / "images" / str(more), count + 2 * more)
            index_dataset(folder / root / "store", name, source)
    return folder / "one" / "store", folder / "two" / "store"


def test_own_sql_sees_what_sql_from_outside_sees(roots: tuple[Path, Path]) -> None:
    for root in (*roots, *roots):
        for dataset in ("pets", "Pets", None):
            with viewed(root, dataset) as mine, restricted(root, dataset) as theirs:
                for name in VIEWS:
                    sql = f"SELECT * FROM {name} ORDER BY ALL"
                    assert mine.execute(sql).fetchall() == theirs.execute(sql).fetchall()
    assert len(instances.IDLE) == 1


def test_an_idle_one_has_no_manifest_and_one_that_failed_is_ended(roots: tuple[Path, Path]) -> None:
    with reading(roots[0]) as first, reading(roots[1]) as second:
        counts = [each.execute("SELECT count(*) FROM images").fetchall() for each in (first, second)]
    assert counts == [[(6,)], [(8,)]]
    assert len(instances.IDLE) == 2
    for instance in instances.IDLE:
        names = {row[0] for row in instance.execute("SELECT database_name FROM duckdb_databases()").fetchall()}
        assert "manifest" not in names
        assert instance.execute("SELECT current_setting('threads')").fetchall() == [(1,)]
    with pytest.raises(duckdb.BinderException), reading(roots[0]) as connection:
        connection.execute("SELECT nowhere")
    assert len(instances.IDLE) == 1


def test_a_forked_process_begins_with_its_own(roots: tuple[Path, Path]) -> None:
    with reading(roots[0]):
        pass
    child = os.fork()
    if not child:
        code = 1
        try:
            if not instances.IDLE:
                with viewed(roots[0], "pets") as connection:
                    code = 0 if connection.execute("SELECT count(*) FROM images").fetchall() == [(2,)] else 2
        finally:
            os._exit(code)
    assert os.waitpid(child, 0)[1] == 0
    with reading(roots[1]) as connection:
        assert connection.execute("SELECT count(*) FROM images").fetchall() == [(8,)]
