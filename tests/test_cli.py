"""The command line as a user meets it: output, exit codes, messages in one line. The model is a plain numpy one."""

import csv
import io
import json
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import click
import duckdb
import pytest
from fakes import FakeDecomposer, make_folder

from featstore.cli import build as build_module
from featstore.cli import main as main_module
from featstore.cli import method as method_module
from featstore.cli.main import cli, main


class Result(SimpleNamespace):
    code: int
    out: str
    err: str


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):  # type: ignore[no-untyped-def]
    """Run ``featstore …`` in a fresh working folder, with a stand-in for the model."""
    monkeypatch.chdir(tmp_path)
    recipe = {"input": [8, 8], "stride": 1, "layer": 0, "dtype": "float32"}
    backbone = SimpleNamespace(
        id="fake", weights_source="none", device=SimpleNamespace(type="cpu"), recipe=lambda: recipe
    )
    monkeypatch.setattr(build_module, "load_backbone", lambda options: backbone)
    monkeypatch.setattr(method_module, "begins_from_artifact", lambda compute: False)  # a fake model has none
    monkeypatch.setattr(build_module, "make_decomposer", lambda *arguments: FakeDecomposer())

    def call(*arguments: str) -> Result:
        with pytest.raises(SystemExit) as stop:
            main(list(arguments))
        captured = capsys.readouterr()
        code = stop.value.code
        assert isinstance(code, int)
        return Result(code=code, out=captured.out, err=captured.err)

    return call


@pytest.fixture
def built(run, tmp_path: Path):  # type: ignore[no-untyped-def]
    make_folder(tmp_path / "pets")
    assert run("build", "pets", "--source", "pets").code == 0
    return run


@pytest.mark.parametrize(
    "code", ["import featstore.cli.main as m", "import featstore as m; m.FeatureDataset, m.collate"]
)
def test_nothing_is_said_at_the_exit(code: str) -> None:
    """DuckDB's bindings complain where something keeps them until after the interpreter has gone."""
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert (ended.stdout, ended.stderr) == ("", "")


def test_a_command_that_computes_nothing_loads_no_torch() -> None:
    code = "import sys, featstore.cli.main; print(sorted({'torch', 'timm', 'ray', 'zarr', 's3fs'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"


def test_help_of_every_command_says_what_it_does() -> None:
    for name, command in cli.commands.items():
        with click.Context(command, info_name=name) as context:
            text = command.get_help(context)
        assert command.help
        for parameter in command.params:
            if isinstance(parameter, click.Option):
                assert parameter.opts[0] in text


def test_index_build_ls_show_query_in_a_row(run, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    make_folder(tmp_path / "pets")
    index = run("index", "pets", "--source", "pets")
    assert index.code == 0
    assert "6 images, revision 1" in index.out
    build = run("build", "pets")
    assert build.code == 0
    assert "pets/fake/v1 (stage1/fake): 6 images computed, 0 there before, 0 failed" in build.out
    assert "0 images computed, 6 there before" in run("build", "pets").out
    assert "pets/fake/v1" in run("ls").out
    show = run("show", "v1")
    assert "6 of 6 stored, 0 failed" in show.out
    assert json.loads(run("show", "pets/fake/v1", "--json").out)["stored"] == 6
    query = run("query", "pets", "SELECT label, count(*) AS n FROM stored GROUP BY 1 ORDER BY 1")
    assert [line.split() for line in query.out.splitlines()[2:]] == [["cats", "3"], ["dogs", "3"]]


def test_every_format_gives_the_same_rows(built, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    sql = "SELECT image_id, width, heldout_r2 FROM stored ORDER BY image_id"
    rows = json.loads(built("query", "pets", sql, "--format", "json").out)
    assert [row["image_id"] for row in rows] == [f"cats/{n:03d}.png" for n in (1, 3, 5)] + [
        f"dogs/{n:03d}.png" for n in (0, 2, 4)
    ]
    assert {row["width"] for row in rows} == {8}
    from_csv = list(csv.DictReader(io.StringIO(built("query", "pets", sql, "--format", "csv").out)))
    assert [row["image_id"] for row in from_csv] == [row["image_id"] for row in rows]
    assert built("query", "pets", sql, "--format", "parquet", "--output", "a.parquet").code == 0
    assert [row[0] for row in duckdb.sql("FROM 'a.parquet'").fetchall()] == [row["image_id"] for row in rows]


def test_parquet_goes_to_a_pipe(built, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    command = [
        sys.executable,
        "-m",
        "featstore.cli",
        "query",
        "pets",
        "SELECT image_id FROM images",
        "--format",
        "parquet",
    ]
    (tmp_path / "piped.parquet").write_bytes(subprocess.run(command, check=True, capture_output=True).stdout)
    assert len(duckdb.sql(f"FROM '{tmp_path / 'piped.parquet'}'").fetchall()) == 6


@pytest.mark.parametrize("sql", ["DROP TABLE images", "COPY images TO 'x.csv'", "SELECT * FROM 'pets/cats/001.png'"])
def test_queries_only_read(built, tmp_path: Path, sql: str) -> None:  # type: ignore[no-untyped-def]
    result = built("query", "pets", sql)
    assert result.code == 1
    assert result.err.startswith("error: ")
    assert result.err.count("\n") == 1
    assert not (tmp_path / "x.csv").exists()


def test_dry_run_writes_nothing_and_tells_what_it_would(run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:  # type: ignore[no-untyped-def]
    monkeypatch.setattr(FakeDecomposer, "seconds_per_image", lambda self: 2.0, raising=False)
    make_folder(tmp_path / "pets")
    run("index", "pets", "--source", "pets")
    before = sorted(path for path in (tmp_path / "feature-store").rglob("*"))
    facts = json.loads(run("build", "pets", "--dry-run", "--json").out)
    assert (facts["to_compute"], facts["seconds"], facts["bytes"]) == (6, 12.0, 6 * 8 * 2 * (4 * 5 * 4 + 1))
    assert sorted(path for path in (tmp_path / "feature-store").rglob("*")) == before


def test_exit_codes(run, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    make_folder(tmp_path / "pets")
    (tmp_path / "pets" / "empty.jpg").touch()
    assert run("index", "pets", "--source", "pets").code == 3
    assert run("build", "pets", "--source", "pets").code == 3
    assert run("build", "nobody").code == 1
    assert run("build").code == 2
    assert run("index", "x", "--source", "nowhere").code == 1
    assert run("show", "v9").code == 1
    assert run("ls", "--root", "elsewhere").code == 1
    assert run("--version").code == 0


def test_errors_are_one_line_that_says_what_to_do(run) -> None:  # type: ignore[no-untyped-def]
    result = run("index", "x", "--source", "nowhere")
    assert result.err.count("\n") == 1
    assert "nowhere" in result.err
    result = run("build", "x")
    assert "featstore index" in result.err
    result = run("ls", "--root", "s3://key:sesame@bucket/store")
    assert "environment" in result.err
    assert "sesame" not in result.err


@pytest.mark.parametrize("error", [KeyboardInterrupt(), RuntimeError("Query interrupted")], ids=["python", "duckdb"])
def test_an_interrupt_says_that_nothing_is_lost(  # type: ignore[no-untyped-def]
    run, monkeypatch: pytest.MonkeyPatch, error: BaseException
) -> None:
    def interrupt(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr(main_module.cli, "main", interrupt)
    result = run("ls")
    assert result.code == 130
    assert "goes on from there" in result.err
