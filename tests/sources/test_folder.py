import os
import unicodedata
from importlib.util import find_spec
from pathlib import Path

import pytest
from PIL import Image

from featstore import sources
from featstore.errors import InputError, SourceError
from featstore.records import ImageRecord, Problem
from featstore.sources import demo


def touch(folder: Path, *names: str) -> Path:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(b"x")
    return folder


def read(folder: Path) -> dict[str, ImageRecord]:
    return {r.image_id: r for r in sources.get("folder").read(folder) if isinstance(r, ImageRecord)}


def test_every_image_once_with_its_class(tmp_path: Path) -> None:
    names = ("top.JPG", "cats/a.png", "cats/deep/b.webp", "dogs/a.png", ".hidden/c.png", "dogs/.d.png", "notes.txt")
    found = read(touch(tmp_path, *names))
    assert {key: record.label for key, record in found.items()} == {
        "top.JPG": None,
        "cats/a.png": "cats",
        "cats/deep/b.webp": "cats",
        "dogs/a.png": "dogs",
    }
    assert {record.split for record in found.values()} == {None}


def test_split_folders_are_splits_and_the_class_is_below(tmp_path: Path) -> None:
    found = read(touch(tmp_path, "train/cats/a.png", "Validation/dogs/b.png", "test/c.png", "trainer/d.png"))
    told = {key: (record.split, record.label) for key, record in found.items()}
    assert told == {
        "train/cats/a.png": ("train", "cats"),
        "Validation/dogs/b.png": ("val", "dogs"),
        "test/c.png": ("test", None),
        "trainer/d.png": (None, "trainer"),
    }


def test_names_of_every_kind(tmp_path: Path) -> None:
    composed, decomposed = (unicodedata.normalize(form, "Bär ü.png") for form in ("NFC", "NFD"))
    names = (composed, decomposed, "two  spaces.png", "it's.png", 'a "b".png', "line\nbreak.png", "100%.png")
    assert set(read(touch(tmp_path, *names))) == set(names)


def test_a_name_that_is_not_utf8_is_a_problem(tmp_path: Path) -> None:
    Path(os.fsdecode(os.fsencode(tmp_path) + b"/\xff\xfe.png")).write_bytes(b"x")
    touch(tmp_path, "good.png")
    problems = [item for item in sources.get("folder").read(tmp_path) if isinstance(item, Problem)]
    assert len(problems) == 1
    assert "UTF-8" in problems[0].error
    assert problems[0].path.isascii()
    assert set(read(tmp_path)) == {"good.png"}


def test_images_come_in_the_order_of_their_paths(tmp_path: Path) -> None:
    touch(tmp_path, "z.png", "b/a.png", "a.png", "B/c.png", "b.png", "b/0/z.png")
    paths = [item.path for item in sources.get("folder").read(tmp_path)]
    assert paths == ["B/c.png", "a.png", "b.png", "b/0/z.png", "b/a.png", "z.png"]


def test_a_sub_folder_that_cannot_be_listed_is_a_problem(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    touch(tmp_path, "open/a.png", "shut/b.png")
    scandir = os.scandir

    def guarded(path: str) -> object:
        if Path(path).name == "shut":
            raise PermissionError(13, "Permission denied", path)
        return scandir(path)

    monkeypatch.setattr(os, "scandir", guarded)
    problems = [item for item in sources.get("folder").read(tmp_path) if isinstance(item, Problem)]
    assert [(problem.path, problem.step) for problem in problems] == [("shut", "image")]
    assert "Permission denied" in problems[0].error
    assert set(read(tmp_path)) == {"open/a.png"}


def test_links_in_a_circle_end(tmp_path: Path) -> None:
    touch(tmp_path, "a/b.png")
    (tmp_path / "a" / "loop").symlink_to(tmp_path)
    assert set(read(tmp_path)) == {"a/b.png"}


def test_wrong_folders_say_what_is_wrong(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(SourceError, match="there is no folder"):
        sources.detect(tmp_path / "nowhere")
    with pytest.raises(SourceError, match="is a file"):
        sources.detect(touch(tmp_path, "a.png") / "a.png")
    (tmp_path / "empty").mkdir()
    with pytest.raises(SourceError, match=r"no image found in .*/empty; layout folder expects image files"):
        read(tmp_path / "empty")
    with monkeypatch.context() as patched, pytest.raises(SourceError, match="may not be read"):
        patched.setattr(os, "access", lambda *_: False)
        sources.detect(tmp_path)
    with pytest.raises(InputError, match=r"voc, .*folder, demo"):
        sources.get("martian")


@pytest.mark.skipif(
    find_spec("skimage") is None or find_spec("sklearn") is None, reason="the demo extra is not installed"
)
def test_demo_photographs_are_there() -> None:
    found = [item for item in sources.get("demo").read(Path()) if isinstance(item, ImageRecord)]
    sizes = {}
    for record in found:
        assert Path(record.path).is_absolute()
        assert (record.label, record.splits) == (None, ())
        with Image.open(record.path) as image:
            sizes[record.image_id] = image.size
    assert sizes == {
        "astronaut": (512, 512),
        "cat": (451, 300),
        "coffee": (600, 400),
        "flower": (640, 427),
        "rocket": (640, 427),
        "temple": (640, 427),
    }


def test_demo_photographs_that_are_not_installed_say_how_to_install_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(demo, "find_spec", lambda name: None)
    with pytest.raises(SourceError, match=r'not installed: python -m pip install -e "\.\[demo\]"$'):
        next(sources.get("demo").read(Path()))


def test_real_folders_of_photographs(shared: Path) -> None:
    flat = read(shared / "data" / "bsds-train")
    assert len(flat) == 200
    assert {record.label for record in flat.values()} == {None}
    nested = read(shared / "data" / "dvt-demo")
    assert len(nested) == len([p for p in (shared / "data" / "dvt-demo").rglob("*.*") if p.suffix in (".jpg", ".png")])
    assert nested["mallard-water/00008.jpg"].label == "mallard-water"
