"""Layout list: tables that name images wherever they lie."""

import uuid
from pathlib import Path

import pytest
from fakes import FakeDecomposer
from servers import Log, http_server
from shelves import encoded, make_parquet, make_tar, picture

from featstore import sources
from featstore.build import build_version
from featstore.errors import SourceError
from featstore.index import index_dataset
from featstore.places import path_of
from featstore.plan import Request
from featstore.query import restricted
from featstore.records import ImageRecord, Problem


def read(source: Path) -> tuple[list[ImageRecord], list[Problem]]:
    found = list(sources.get("list").read(source))
    return [r for r in found if isinstance(r, ImageRecord)], [p for p in found if isinstance(p, Problem)]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for number in range(4):
        path = tmp_path / "data" / "images" / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(encoded(picture(number)))
        path.with_name(f"{number}_mask.png").write_bytes(encoded(picture(number)[..., 0]))
    return tmp_path / "data"


def write(path: Path, text: str) -> Path:
    path.write_text(text, encoding="utf-8")
    return path


TABLES = {
    "a.txt": "images/0.png\n\n images/1.png\r\n",
    "b.txt": "images/0.png\tcat\nimages/1.png\tdog\n",
    "c.txt": "images/0.png 7\nimages/1.png -1\n",
    "d.csv": "images/0.png,cat\nimages/1.png,dog\n",
    "e.csv": "\ufefflabel,Path\ncat,images/0.png\ndog,images/1.png\n",
    "f.csv": 'URI;Split;image_id\n"images/0.png";training;x\nimages/1.png;holdout;y\n',
    "g.tsv": "filename\tmask\tclass\nimages/0.png\timages/0_mask.png\tcat\nimages/1.png\t\tdog\n",
}


@pytest.mark.parametrize("name", TABLES)
def test_every_form_of_table(folder: Path, name: str) -> None:
    table = write(folder / name, TABLES[name])
    assert sources.detect(table).layout == "list"
    found, problems = read(table)
    assert problems == []
    assert [record.path for record in found] == ["images/0.png", "images/1.png"]
    labels = {"a": [None, None], "c": ["7", "-1"], "f": [None, None]}.get(name[0], ["cat", "dog"])
    assert [record.label for record in found] == labels
    if name[0] == "f":
        assert [(record.image_id, record.split) for record in found] == [("x", "train"), ("y", "holdout")]
    else:
        assert [record.image_id for record in found] == ["images/0.png", "images/1.png"]
    if name[0] == "g":
        assert [record.mask_path for record in found] == ["images/0_mask.png", None]


def test_a_parquet_table(folder: Path) -> None:
    pytest.importorskip("pyarrow")
    table = make_parquet(folder / "a.parquet", {"image_path": ["images/0.png", "images/1.png"], "label": [3, None]})
    assert sources.detect(table).layout == "list"
    found, problems = read(table)
    assert ([(r.path, r.label) for r in found], problems) == ([("images/0.png", "3"), ("images/1.png", None)], [])


def test_indexed_again_the_table_is_found_and_builds_are_those_of_the_files(folder: Path, tmp_path: Path) -> None:
    make_tar(folder / "more.tar", {"3.png": (folder / "images" / "3.png").read_bytes()})
    absolute = folder / "images" / "1.png"
    table = write(folder / "some.csv", f"path,mask\nimages/0.png,images/0_mask.png\n{absolute},\nmore.tar::3.png,\n")
    root = tmp_path / "store"
    report = index_dataset(root, "some", table)
    assert (report.layout, report.images, report.problems, report.source) == ("list", 3, (), str(table))
    assert build_version(root, Request("some", "fake"), FakeDecomposer()).failed == 0
    write(table, f"path,mask\nimages/0.png,images/0_mask.png\n{absolute},\nmore.tar::3.png,\n../data/images/2.png,\n")
    again = index_dataset(root, "some", None)
    assert (again.images, again.added, again.changed, again.removed, again.hashed) == (4, 1, 0, 0, 1)
    assert build_version(root, Request("some", "fake"), FakeDecomposer()).computed == 1
    for name in ("1_mask.png", "0_mask.png", "2_mask.png", "3_mask.png"):
        (folder / "images" / name).unlink()
    index_dataset(root, "plain", folder / "images")
    # The same bytes in another data set are not computed again.
    assert build_version(root, Request("plain", "fake"), FakeDecomposer()).computed == 0


def test_addresses_of_servers(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FEATSTORE_CACHE", str(tmp_path / "cache"))
    bucket = path_of(f"memory://{uuid.uuid4().hex}")
    for number in (0, 1):
        (bucket / "in" / f"a b{number}.png").write_bytes((folder / "images" / f"{number}.png").read_bytes())
    (folder / "images" / "with blank.png").write_bytes(encoded(picture(9)))
    with http_server(folder, Log()) as address:
        text = f"image\n{bucket}/in/a b0.png\n{address}/images/with%20blank.png\nimages/2.png\n"
        table = write(folder / "mixed.csv", text)
        root = tmp_path / "store"
        report = index_dataset(root, "mixed", table)
        assert (report.images, report.problems) == (3, ())
        assert build_version(root, Request("mixed", "fake"), FakeDecomposer()).failed == 0
        assert index_dataset(root, "mixed", None).images == 3
    # A table on a server: relative paths begin there.
    (bucket / "tables" / "t.csv").write_bytes(b"path\n../in/a b1.png\n")
    (bucket / "in" / "t.txt").write_bytes(b"a b0.png\n")
    for name, place in (("up", bucket / "tables" / "t.csv"), ("beside", bucket / "in" / "t.txt")):
        report = index_dataset(root, name, place)
        assert (report.images, report.problems, report.source) == (1, (), str(place))
        assert build_version(root, Request(name, "fake"), FakeDecomposer()).failed == 0


def test_secrets_are_refused_and_never_repeated(folder: Path, tmp_path: Path) -> None:
    table = write(
        folder / "a.txt", "images/0.png\nhttps://me:hunter2@h/x.jpg\nhttps://h/a.jpg?X-Amz-Signature=hunter2\n"
    )
    report = index_dataset(tmp_path / "store", "a", table)
    assert report.images == 1
    assert [problem.error[:25] for problem in report.problems] == [
        "row 2: the URL of https:/",
        "row 3: the URL of https:/",
    ]
    with restricted(tmp_path / "store", "a") as connection:
        for name in ("images", "failures", "datasets"):
            assert "hunter2" not in str(connection.execute(f"SELECT * FROM {name}").fetchall())


def test_what_is_wrong_with_a_table_is_told(folder: Path, tmp_path: Path) -> None:
    for text, words in {
        "name,colour\na,b\n": "no column of images: it has name, colour; call it one of image, image_path",
        "": "is empty",
        "path\nnowhere/0.png\n": "none of the images that .* names first is there",
        "a.png,a_depth.png\n": "no column of images",
    }.items():
        with pytest.raises(SourceError, match=words):
            read(write(folder / "x.csv", text))
    (folder / "lists").mkdir()
    with pytest.raises(SourceError, match=r"they are below .*/data: put the table there"):
        read(write(folder / "lists" / "x.csv", "path\nimages/0.png\n"))
    with pytest.raises(SourceError, match="no image found"):
        read(write(folder / "x.txt", "\n\n"))
    with pytest.raises(SourceError, match="is a file that no layout reads: give the folder"):
        sources.detect(folder / "images" / "0.png")
    with pytest.raises(SourceError, match="holds no table"):
        read(folder / "images")
    table = write(folder / "y.csv", "path,image_id\nimages/0.png,a\nimages/1.png,a\nimages/gone.png,b\n,c\n")
    report = index_dataset(tmp_path / "store", "y", table)
    told = {problem.path: problem.error for problem in report.problems}
    assert report.images == 1
    assert told["images/1.png"].startswith("another image of the data set has this image_id")
    assert told["images/gone.png"] == "No such file or directory"
    assert told["y.csv"] == "row 4 names no image"
