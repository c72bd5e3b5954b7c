"""Layouts of other packages: the example of the page on how, installed and run; and packages that are broken in every way."""

import json
import re
import subprocess
import sys
from pathlib import Path

import click
import pytest
import trees
from trees import write, write_photo

from featstore import sources
from featstore.cli.main import cli, main
from featstore.errors import InputError, SourceError
from featstore.records import ImageRecord, Problem

PAGE = (Path(__file__).parents[2] / "docs" / "adding-a-data-set.md").read_text(encoding="utf-8")


def block(language: str) -> str:
    found = re.search(rf"```{language}\n(.*?)```", PAGE, re.DOTALL)
    assert found
    return found[1]


def install(place: Path, package: str, entries: str, code: str | None, module: str | None = None) -> Path:
    """Put a distribution with entry points, and its module, where Python looks for packages."""
    if code is not None:
        write(place / f"{module or package}.py", code)
    about = place / f"{package}-1.0.dist-info"
    write(about / "METADATA", f"Metadata-Version: 2.1\nName: {package}\nVersion: 1.0\n")
    write(about / "entry_points.txt", f"[featstore.sources]\n{entries}\n")
    return place


@pytest.fixture
def packages(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder that Python searches for packages; what is imported from it is forgotten."""
    place = tmp_path / "site"
    place.mkdir()
    monkeypatch.syspath_prepend(place)
    before = set(sys.modules)
    yield place  # type: ignore[misc]
    for name in set(sys.modules) - before:
        if str(place) in str(getattr(sys.modules[name], "__file__", "")):
            del sys.modules[name]


def make_cub(folder: Path) -> Path:
    names = ["001.Albatross/a.jpg", "002.Auk/b.jpg", "002.Auk/c.jpg"]
    for name in names:
        write_photo(folder / "images" / name, 40, 30)
    write(folder / "images.txt", "".join(f"{n} {name}\n" for n, name in enumerate(names, 1)))
    write(folder / "classes.txt", "1 001.Albatross\n2 002.Auk\n")
    write(folder / "image_class_labels.txt", "1 1\n2 2\n3 2\n")
    write(folder / "train_test_split.txt", "1 1\n2 0\n3 1\n")
    write(folder / "bounding_boxes.txt", "1 10.0 5.0 20.0 15.0\n2 0.0 0.0 40.0 30.0\n")
    return folder


def test_the_example_of_the_page_is_short_and_its_entry_point_leads_to_it(packages: Path) -> None:
    assert len(block("python").splitlines()) <= 40
    assert block("toml").splitlines()[0] == '[project.entry-points."featstore.sources"]'


def test_the_example_of_the_page_indexes_a_data_set(
    packages: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    entry = block("toml").splitlines()[1].replace('"', "")
    install(packages, "cub-layout", entry, block("python"), "cub_layout")
    birds = make_cub(tmp_path / "birds")
    root = ["--root", str(tmp_path / "store")]
    with pytest.raises(SystemExit) as stop:
        main(["index", "birds", "--source", str(birds), "--json", *root])
    report = json.loads(capsys.readouterr().out)
    assert (stop.value.code, report["layout"], report["images"], report["notes"]) == (3, "cub", 3, [])
    assert [(p["step"], p["image_id"]) for p in report["problems"]] == [("annotation", "002.Auk/c.jpg")]
    sql = "SELECT image_id, split, label, xmin, ymin, xmax, ymax FROM images LEFT JOIN objects USING (image_id) ORDER BY 1"
    with pytest.raises(SystemExit):
        main(["query", "birds", sql, "--format", "json", *root])
    rows = [tuple(row.values()) for row in json.loads(capsys.readouterr().out)]
    assert rows == [
        ("001.Albatross/a.jpg", "train", "001.Albatross", 10, 5, 30, 20),
        ("002.Auk/b.jpg", "test", "002.Auk", 0, 0, 40, 30),
        ("002.Auk/c.jpg", "train", "002.Auk", None, None, None, None),
    ]
    with pytest.raises(SystemExit):
        main(["datasets", "--json", *root])
    told = json.loads(capsys.readouterr().out)
    assert told["layouts"][-1] == {
        **{"layout": "cub", "holds": ["split", "label", "boxes"], "package": "cub-layout"},
        "expects": "CUB_200_2011 (images.txt, classes.txt, bounding_boxes.txt, images/ …)",
    }
    assert [(d["dataset"], d["images"], d["splits"], d["boxes"]) for d in told["datasets"]] == [
        ("birds", 3, {"test": 1, "train": 2}, 2),
    ]
    with cli.commands["index"].make_context("index", ["birds"]) as context:
        assert "cub" in context.get_help()


BROKEN = {
    "no_module": ("nowhere = no_such_module:Layout", None, "layout nowhere (no_such_module:Layout) cannot be loaded"),
    "raises": ("bad = raises:Layout", "raise RuntimeError('two\\nlines')", "cannot be loaded: RuntimeError: two lines"),
    "exits": ("gone = exits:Layout", "import sys; sys.exit(5)", "cannot be loaded: SystemExit"),
    "lacks": ("little = lacks:Layout", "class Layout:\n    layout = 'little'", "has no expects, detect, read"),
    "misnamed": (
        *("mine = misnamed:Layout", "class Layout:\n    layout = 'other'; expects = ''; detect = read = None"),
        "the entry point mine leads to a layout that calls itself other",
    ),
    "taken": ("voc = taken:Layout", "", "there is a layout voc already: its package has to rename it"),
}


def test_a_broken_package_is_one_line_and_disturbs_no_other(
    packages: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name, (entry, code, _) in BROKEN.items():
        install(packages, name, entry, code)
    install(packages, "cub-layout", "cub = cub_layout:Cub", block("python"), "cub_layout")
    told: list[str] = []
    assert [source.layout for source in sources.available(told.append)] == [*sources.LAYOUTS, "cub"]
    for name, (_, _, words) in BROKEN.items():
        (line,) = (line for line in told if line.startswith(f"package {name}: "))
        assert words in line
        assert "\n" not in line
    with pytest.raises(InputError, match=r"^package raises: layout bad"):
        sources.get("bad")
    with pytest.raises(InputError, match=r"voc, .*, bad, cub, gone"):
        sources.get("martian")
    assert sources.get("cub").layout == "cub"
    write_photo(tmp_path / "plain" / "a.jpg")
    root = ["--root", str(tmp_path / "store")]
    with pytest.raises(SystemExit) as stop:
        main(["index", "plain", "--source", str(tmp_path / "plain"), *root])
    assert stop.value.code == 0
    streams = capsys.readouterr()
    assert "indexed plain (folder)" in streams.out
    assert streams.err.count("note: package ") == len(BROKEN)
    with cli.commands["index"].make_context("index", ["x"]) as context:
        assert context.get_help().count("Not available: package ") == len(BROKEN)
    assert isinstance(cli.commands["index"], click.Command)


FAILING = """
from featstore.records import ImageRecord, Problem

class Layout:
    layout, expects = "failing", "nothing"

    def detect(self, folder):
        raise KeyError("detect")

    def read(self, folder):
        yield ImageRecord("a", "a.jpg")
        yield ImageRecord("a", "b.jpg")
        if (folder / "junk").exists():
            yield "junk"
        raise ValueError("read")

    def meaning(self, folder):
        return None
"""


def test_a_package_that_fails_at_work_is_named(packages: Path, tmp_path: Path) -> None:
    install(packages, "failing", "failing = failing:Layout", FAILING)
    told: list[str] = []
    assert sources.detect(tmp_path, told.append).layout == "folder"
    assert told == ["layout failing of package failing failed: KeyError: 'detect'"]
    source = sources.get("failing")
    assert (source.holds, source.home) == ((), None)
    with pytest.raises(SourceError, match="package failing failed: ValueError: read"):
        list(source.read(tmp_path))
    found = source.read(tmp_path)
    assert isinstance(next(found), ImageRecord)
    second = next(found)
    assert isinstance(second, Problem)
    assert "has this image_id" in second.error
    (tmp_path / "junk").touch()
    with pytest.raises(SourceError, match=r"read\(\) yields str, neither ImageRecord nor Problem"):
        list(source.read(tmp_path))
    with pytest.raises(SourceError, match=r"meaning\(\) returns NoneType"):
        source.meaning(tmp_path)


def test_commands_start_without_loading_any_package(packages: Path, tmp_path: Path) -> None:
    """Python's own list of what it has imported says so, in a process of its own."""
    marker = tmp_path / "imported"
    install(packages, "slow", "slow = slow:Layout", f"open({str(marker)!r}, 'w')")
    trees.write_photo(tmp_path / "voc" / "JPEGImages" / "a.jpg")
    index = ["index", "a", "--source", str(tmp_path / "voc"), "--root", str(tmp_path / "store"), "--json"]
    for arguments, words in ((["--help"], "Usage: featstore"), (index, '"layout": "voc"')):
        command = [sys.executable, "-m", "featstore.cli", *arguments]
        environment = {"PYTHONPATH": str(packages), "PATH": "", "HOME": str(tmp_path)}
        done = subprocess.run(command, env=environment, check=False, capture_output=True, timeout=120, text=True)
        assert words in done.stdout
        assert not marker.exists()
