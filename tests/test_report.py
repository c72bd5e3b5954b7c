"""The report tells what the manifest and the shards hold, loads nothing, and lets no name become markup."""

import base64
import io
import json
import re
import shutil
import tomllib
from datetime import UTC, datetime
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from fakes import FakeDecomposer, Maps, make_folder
from numpy.typing import NDArray
from PIL import Image
from tinystore import call, done, rows

from featstore import manifest
from featstore.build import build_version
from featstore.evaluations import Figure, keep_evaluations
from featstore.index import index_dataset
from featstore.plan import Request
from featstore.query import restricted
from featstore.report.evaluated import make_tables
from featstore.report.histogram import make_histogram
from featstore.report.page import write_report
from featstore.report.wording import METHODS, recipe_words
from featstore.versions import find_version

REPOSITORY = Path(__file__).parents[1]
VOID = {"meta", "img", "link", "br", "hr", "input"}
OURS = {
    *(
        "html",
        "head",
        "meta",
        "title",
        "style",
        "body",
        "header",
        "main",
        "section",
        "footer",
        "nav",
        "time",
        "article",
    ),
    *(
        "h1",
        "h2",
        "h3",
        "h4",
        "p",
        "a",
        "dl",
        "dt",
        "dd",
        "div",
        "span",
        "strong",
        "code",
        "pre",
        "ul",
        "li",
        "details",
    ),
    *("summary", "table", "caption", "thead", "tbody", "tr", "th", "td", "figure", "figcaption", "img"),
    *("svg", "line", "rect", "text"),
}
HOSTILE = """<img src=x onerror=alert(1)> & "b" 'c' {{ 7 * 7 }}.png"""
ERROR = "<script>alert('no')</script> & \"so on\""
NOW = datetime(2026, 1, 2, 3, 4, tzinfo=UTC)


class Graded(FakeDecomposer):
    """The fake, with a quality that differs from image to image and is the same every time; one image fails."""

    def decompose(self, prepared: Any) -> list[Maps]:
        found = []
        for image, key in prepared:
            if key == self.poison:
                raise ValueError(ERROR)
            maps = self.one(image)
            quality = float(image.mean()) / 255
            stats = {"norm_max": float(image.max()), "heldout_r2": quality, "seconds": 2.0}
            found.append(Maps(maps.raw, maps.clean, maps.artifact, maps.prefix, stats))
        return found


class Every(Graded):
    """Fails on all images."""

    def decompose(self, prepared: Any) -> list[Maps]:
        raise ValueError(ERROR)


class Plain(FakeDecomposer):
    method = "raw"
    variants: tuple[str, ...] = ("raw",)

    def recipe(self) -> dict[str, Any]:
        return {"backbone": {"id": "fake"}, "method": {"name": "raw"}}

    def one(self, image: NDArray[np.uint8]) -> Maps:
        maps = super().one(image)
        return Maps(maps.raw, None, None, maps.prefix, {"norm_max": float(image.max())})


class Page(HTMLParser):
    """Every tag with its attributes, the text of each, and the cells of tables; raises where tags do not match."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str]]] = []
        self.words: list[tuple[str, str]] = []
        self.tables: list[list[list[str]]] = []
        self.source = path.read_text(encoding="utf-8")
        self.feed(self.source)
        self.close()
        assert not self.open

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, {name: value or "" for name, value in attrs}))
        if tag == "table":
            self.tables.append([])
        if tag == "tr":
            self.tables[-1].append([])
        if tag in ("td", "th"):
            self.tables[-1][-1].append("")
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, {name: value or "" for name, value in attrs}))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if not self.open:
            return
        self.words.append((self.open[-1], data))
        if {"td", "th"} & set(self.open):
            self.tables[-1][-1][-1] += data

    def texts(self, tag: str) -> list[str]:
        return [text for name, text in self.words if name == tag]

    def table(self, first: str) -> list[list[str]]:
        """Rows of the table whose first heading is this, without the headings."""
        return next(table[1:] for table in self.tables if table[0][0] == first)


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """v1 of eleven images, one of which fails and one of which bears a hostile name; v2 raw, of five; another of none."""
    folder = tmp_path_factory.mktemp("report")
    source = make_folder(folder / "pets", count=10)
    shutil.copy(source / "cats" / "001.png", source / "dogs" / HOSTILE)
    with Image.open(source / "dogs" / HOSTILE) as image:
        image.transpose(Image.Transpose.ROTATE_180).save(source / "dogs" / HOSTILE, "PNG")
    (source / "cats" / "broken.png").write_bytes(b"no image")
    root = folder / "store"
    index_dataset(root, "pets", source)
    poison = rows(root, "SELECT sha256 FROM images WHERE image_id = 'cats/003.png'")[0][0]
    provenance = {
        "torch": "2.0",
        "command": "featstore build pets",
        "reproduce": f"featstore build pets --note '{ERROR}'",
    }
    build_version(root, Request("pets", "fake", shard_size=4, provenance=provenance), Graded(poison=poison))
    build_version(root, Request("pets", "fake", variants=("raw",), limit=5), Plain())
    build_version(root, Request("pets", "none", limit=2), Every(scale=2.0))
    with restricted(root) as connection:
        version = find_version(connection, "pets/fake/v1")
    figures = [
        Figure("clean", "mIoU", 0.75, 0.7, 0.8, "seeds (t)", 3, "pets/fake/v1 raw", 0.25, -0.01, 0.51),
        Figure("raw", "mIoU", 0.5, 0.4, 0.6, "seeds (t)", 3),
        Figure("raw", "aAcc", 0.9, float("nan"), float("nan"), None),
    ]
    settings = {"steps": 500, "images": "0f"}
    keep_evaluations(root, version, "segmentation", figures, settings, (7, 3))
    with restricted(root) as connection:
        raw = find_version(connection, "pets/fake/v2")
    keep_evaluations(
        root, raw, "segmentation", [Figure("raw", "mIoU", 0.25, 0.2, 0.3, "seeds (t)", 3)], settings, (7, 3)
    )
    other = [Figure("raw", "mIoU", 0.9, 0.8, 1.0, "seeds (t)", 3)]
    keep_evaluations(root, raw, "segmentation", other, settings | {"images": "1e"}, (7, 3))
    keep_evaluations(
        root, version, "depth", [Figure("raw", "RMSE", 0.5, 0.4, 0.6, "seeds (t)", 3)], {"steps": 9}, (7, 3)
    )
    return root


@pytest.fixture(scope="module")
def path(root: Path) -> Path:
    path = root.parent / "report.html"
    write_report(root, "pets/fake/v1", path, images=2, now=NOW)
    return path


@pytest.fixture(scope="module")
def page(path: Path) -> Page:
    return Page(path)


def test_counts_are_those_of_the_manifest(root: Path, page: Page) -> None:
    stored = rows(root, "SELECT count(*) FROM stored WHERE backbone = 'fake' AND version = 'v1'")[0][0]
    images = rows(root, "SELECT count(*) FROM current_images")[0][0]
    size = rows(root, "SELECT sum(bytes) FROM shards WHERE backbone = 'fake' AND 'clean' IN variants")[0][0]
    assert (stored, images) == (10, 11)
    numbers = dict(zip(page.texts("dt"), page.texts("dd"), strict=False))
    assert (numbers["images stored"], numbers["failed"], numbers["not built yet"]) == ("10", "1", "0")
    assert page.table("split") == [["no split", "11", "10", "1", "0"]]
    shards = rows(root, "SELECT path, samples, bytes, checksum FROM shards WHERE 'clean' IN variants ORDER BY path")
    assert page.table("shard") == [[p, str(n), f"{b:,}", c] for p, n, b, c in shards]
    assert numbers["in 3 shards"] == f"{size / 1000:.1f} kB"
    labels = rows(root, "SELECT label, count(*) FROM current_images GROUP BY 1 ORDER BY 2 DESC, 1")
    assert [text for text in page.texts("strong") if text in ("cats", "dogs")] == [label for label, _ in labels]


def test_failures_are_told_with_their_reasons(root: Path, page: Page) -> None:
    ours = "digest = (SELECT digest FROM versions WHERE backbone = 'fake' AND number = 1)"
    built = rows(root, f"SELECT image_id, step, error FROM failures WHERE {ours}")
    indexed = rows(root, "SELECT coalesce(image_id, path), step, error FROM failures WHERE digest IS NULL")
    assert built == [("cats/003.png", "features", ERROR)]
    told = [table[1:] for table in page.tables if table[0][0] == "image"]
    assert told == [[list(row) for row in built], [list(row) for row in indexed]]


def test_names_and_messages_stay_text(root: Path, page: Page) -> None:
    assert {tag for tag, _ in page.tags} - {"title"} <= OURS
    assert not [name for _, attributes in page.tags for name in attributes if name.startswith("on")]
    assert all(tag != "script" for tag, _ in page.tags)
    names = [text for text in page.texts("strong") if HOSTILE in text]
    shown = {row[0] for row in ends(root, 2)}
    assert len(names) == (f"dogs/{HOSTILE}" in shown)
    assert f"--note '{ERROR}'" in " ".join(page.texts("span"))


def test_a_hostile_name_among_the_pictures(root: Path, tmp_path: Path) -> None:
    told = write_report(root, "pets/fake/v1", tmp_path / "all.html", images=6, now=NOW)
    assert f"dogs/{HOSTILE}" in told.pictures
    page = Page(tmp_path / "all.html")
    assert f"dogs/{HOSTILE}" in page.texts("strong")
    assert any(a.get("alt") == f"photograph dogs/{HOSTILE}" for tag, a in page.tags if tag == "img")
    assert {tag for tag, _ in page.tags} <= OURS


def test_nothing_is_loaded_from_elsewhere(page: Page) -> None:
    policies = [a["content"] for _, a in page.tags if a.get("http-equiv") == "Content-Security-Policy"]
    assert len(policies) == 1
    assert "default-src 'none'" in policies[0]
    targets = {a["id"] for _, a in page.tags if "id" in a}
    for tag, attributes in page.tags:
        assert tag not in ("script", "link", "iframe", "object", "embed", "base", "form")
        for name, value in attributes.items():
            if name in ("src", "srcset", "data", "poster", "background"):
                assert value.startswith("data:image/")
            elif name in ("href", "xlink:href", "action"):
                assert value[0] == "#"
                assert value[1:] in targets
            elif name != "alt":
                assert not re.search(r"https?:|url\(|//", value)
    assert not re.search(r"url\(|@import|https?:", "".join(page.texts("style")))


def ends(root: Path, count: int, order: str = "") -> list[tuple[Any, ...]]:
    sql = "SELECT image_id, heldout_r2 FROM stored WHERE backbone = 'fake' AND version = 'v1' ORDER BY heldout_r2"
    return rows(root, f"{sql} {order}")[:count]


def test_the_worst_come_first_and_then_the_best(root: Path, page: Page) -> None:
    assert page.texts("h3")[-4:-2] == ["The worst", "The best"]
    expected = [*ends(root, 2), *ends(root, 2, "DESC")]
    shown = [text for name, text in page.words if name == "strong"][-4:]
    assert shown == [image_id for image_id, _ in expected]
    said = [text for text in page.texts("span") if text.startswith("held-out R² 0.")]
    assert [float(text.split()[2].rstrip(",")) for text in said] == pytest.approx([r for _, r in expected], abs=1e-4)


def test_few_images_are_shown_once(root: Path, tmp_path: Path) -> None:
    told = write_report(root, "pets/fake/v1", tmp_path / "all.html", images=9)
    assert told.pictures == [row[0] for row in ends(root, 20)]
    assert write_report(root, "pets/fake/v1", tmp_path / "none.html", images=0).pictures == []


def test_pictures_are_of_the_features(root: Path, page: Page) -> None:
    image_id = ends(root, 1)[0][0]
    shard, row = rows(root, f"SELECT shard, shard_row FROM stored WHERE image_id = '{image_id}' AND version = 'v1'")[0]
    with h5py.File(root / shard) as file:
        raw = np.linalg.norm(file["raw"][row].astype(np.float64), axis=-1)
    tiles = {a["alt"]: a["src"] for tag, a in page.tags if tag == "img"}
    shades = picture(tiles[f"raw norm of {image_id}"])
    height, width = raw.shape
    times = shades.shape[0] // height
    assert shades.shape[:2] == (height * times, width * times)
    patches = shades[times // 2 :: times, times // 2 :: times].astype(int)
    assert (np.repeat(np.repeat(patches, times, axis=0), times, axis=1) == shades).all()
    light = patches @ [0.299, 0.587, 0.114]
    assert (np.argsort(raw.ravel(), kind="stable")[[0, -1]] == np.argsort(light.ravel(), kind="stable")[[0, -1]]).all()
    with Image.open(root.parent / "pets" / image_id) as original:
        light = picture(tiles[f"photograph {image_id}"]) @ [0.299, 0.587, 0.114]
        assert np.abs(light - np.asarray(original.convert("L"), float)).mean() < 8


def picture(uri: str) -> NDArray[np.uint8]:
    kind, data = uri.split(";base64,")
    with Image.open(io.BytesIO(base64.b64decode(data))) as image:
        assert kind == f"data:image/{str(image.format).lower()}"
        return np.asarray(image.convert("RGB"))


def test_norms_are_those_of_the_shards(root: Path, page: Page) -> None:
    shards = [row[0] for row in rows(root, "SELECT path FROM shards WHERE 'clean' IN variants ORDER BY path")]
    for name, *figures in page.table("variant"):
        lengths = []
        for shard in shards:
            with h5py.File(root / shard) as file:
                lengths.append(np.linalg.norm(file[name][:].astype(np.float64), axis=-1).ravel())
        values = np.concatenate(lengths)
        middle = np.median(values)
        expected = [values.min(), middle, np.quantile(values, 0.99), values.max(), (values > 2 * middle).mean() * 100]
        assert [float(one.rstrip("%")) for one in figures] == pytest.approx(expected, rel=2e-3, abs=6e-3)


@pytest.mark.parametrize("log", [False, True])
@pytest.mark.parametrize("count", [1, 2, 40, 5000])
def test_bars_are_numpys_histogram(count: int, log: bool) -> None:
    values = np.random.default_rng(count).gamma(2, 3, count)
    drawing = make_histogram("t", values, "images", log=log)
    low, high = float(values.min()), float(values.max())
    bins = 12 if count < 217 else 35
    counts, edges = np.histogram(values, bins, (low, high) if high > low else (low - 0.5, high + 0.5))
    drawn = [int(re.search(r": ([\d,]+) images", bar.said)[1].replace(",", "")) for bar in drawing.bars]  # type: ignore[index]
    assert drawn == counts[counts > 0].tolist()
    lefts = [bar.x for bar in drawing.bars]
    inside = drawing.right - drawing.left
    expected = drawing.left + inside * (edges[:-1] - edges[0]) / (edges[-1] - edges[0])
    assert lefts == pytest.approx(expected[counts > 0].tolist(), abs=0.02)
    heights = np.array([bar.height for bar in drawing.bars])
    shares = np.log1p(drawn) / np.log1p(max(drawn)) if log else np.array(drawn) / max(drawn)
    assert heights / heights.max() == pytest.approx(shares, abs=1e-3)
    assert all(bar.y + bar.height == pytest.approx(drawing.floor, abs=0.02) for bar in drawing.bars)


def test_each_chart_counts_every_image(root: Path, page: Page) -> None:
    titles = [text for name, text in page.words if name == "title"][1:]
    values = np.array([row[0] for row in rows(root, "SELECT heldout_r2 FROM stored WHERE version = 'v1'") if row[0]])
    counts, _ = np.histogram(values, 12, (values.min(), values.max()))
    shown = [int(text.split(": ")[1].split()[0].replace(",", "")) for text in titles if text.endswith(" images")]
    assert shown[: np.count_nonzero(counts)] == counts[counts > 0].tolist()
    patches = [int(text.split(": ")[1].split()[0].replace(",", "")) for text in titles if text.endswith(" patches")]
    assert sum(patches) == 4 * len(values) * 20


def test_evaluations_with_intervals_and_differences(page: Page) -> None:
    tables = [table for table in page.tables if table[0][0] == "variant" and "min" not in table[0]]
    assert tables[0] == [["variant", "RMSE ↓"], ["raw", "0.500 [0.400, 0.600]"]]
    assert tables[1][0] == ["variant", "mIoU ↑", "aAcc ↑"]
    assert tables[1][1] == ["raw", "0.500 [0.400, 0.600]", "0.900"]
    assert tables[1][2] == ["clean", "0.750 [0.700, 0.800]", "–"]
    assert tables[1][3:] == [["v2 raw", "0.250 [0.200, 0.300]", "–"], ["clean − raw", "+0.250 [−0.010, +0.510]", "–"]]
    assert len(tables) == 2  # the same task on other images is not beside them
    assert any("7 images to learn from, 3 images to judge by, 3 seeds" in text for text in page.texts("p"))


def test_the_same_store_gives_the_same_bytes_but_for_the_date(root: Path, path: Path, tmp_path: Path) -> None:
    again = tmp_path / "again.html"
    write_report(root, "pets/fake/v1", again, images=2, now=NOW)
    assert again.read_bytes() == path.read_bytes()
    write_report(root, "pets/fake/v1", again, images=2)
    moment = re.compile(r"<time .*?</time>")
    assert moment.sub("", again.read_text()) == moment.sub("", path.read_text()) != path.read_text()


def test_a_fit_that_no_crops_judged_says_so(root: Path, tmp_path: Path) -> None:
    own = Path(shutil.copytree(root, tmp_path / "own"))
    with manifest.writing(own) as connection:
        connection.execute("UPDATE features SET heldout_r2 = NULL")
    write_report(own, "pets/fake/v1", tmp_path / "page.html", images=1, now=NOW)
    assert "recorded: no crops were kept out of the fit to judge it by." in (tmp_path / "page.html").read_text()


def test_raw_features_have_no_worst(root: Path, tmp_path: Path) -> None:
    told = write_report(root, "pets/fake/v2", tmp_path / "raw.html", images=3, now=NOW)
    page = Page(tmp_path / "raw.html")
    assert len(told.pictures) == 3
    assert "The worst" not in page.texts("h3")
    text = " ".join(text for _, text in page.words)
    assert "No measure of quality is recorded: only stage 1 is judged" in text
    tables = [table for table in page.tables if table[0][0] == "variant" and "min" not in table[0]]
    first = sorted(table[1][:2] for table in tables)
    assert first == [["raw", "0.250 [0.200, 0.300]"], ["raw", "0.900 [0.800, 1.000]"]]
    assert [row[0] for table in tables for row in table[2:]] == ["v1 raw", "v1 clean"]
    assert page.table("split") == [["no split", "11", "5", "0", "6"]]


def test_a_version_of_which_every_image_failed(root: Path, tmp_path: Path) -> None:
    told = write_report(root, "pets/none/v1", tmp_path / "none.html", now=NOW)
    page = Page(tmp_path / "none.html")
    assert told.pictures == []
    assert page.table("image")[0][2].endswith(ERROR)
    assert "No image is stored yet." in page.texts("p")
    assert "featstore eval pets/none/v1" in page.texts("code")


def test_photographs_that_are_gone_are_told(root: Path, tmp_path: Path) -> None:
    moved = tmp_path / "moved"
    shutil.copytree(root.parent, moved)
    (root.parent / "pets").rename(root.parent / "away")
    try:
        told = write_report(moved / "store", "pets/fake/v1", tmp_path / "gone.html", images=1, now=NOW)
    finally:
        (root.parent / "away").rename(root.parent / "pets")
    page = Page(tmp_path / "gone.html")
    assert told.lost == told.pictures
    assert len(told.pictures) == 2
    assert sum("the photograph cannot be read" in text for text in page.texts("span")) == 2
    assert sum(a.get("alt", "").startswith("grey:") for _, a in page.tags) == 2


def test_the_command_names_its_file_and_refuses_in_one_line(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    told = json.loads(done("report", "fake/v1", "--images", 1, "--json", "--root", root).out)
    assert told["output"] == "pets-fake-v1.html"
    assert told["bytes"] == Path("pets-fake-v1.html").stat().st_size
    assert "2 pictures of pets/fake/v1" in done("report", "fake/v1", "--images", 1, "-o", "a.htm", "--root", root).out
    for arguments, said in (
        (("fake/v9",), "no version 'fake/v9'"),
        (("fake/v1", "-o", "report.pdf"), "ends in .html or .htm"),
        (("fake/v1", "-o", "absent/report.html"), "there is no folder"),
    ):
        refused = call("report", *arguments, "--root", root)
        assert refused.code == 1
        assert said in refused.err
        assert refused.err.count("\n") == 1


def test_every_method_of_a_recipe_has_its_words() -> None:
    schema = json.loads((REPOSITORY / "schemas" / "recipe.schema.json").read_text())
    names = schema["properties"]["method"]["properties"]["name"]["enum"]
    assert set(METHODS) == set(names)
    for name, words in METHODS.items():
        assert len(words({"name": name})) > 20


def test_a_denoiser_tells_what_it_was_trained_on() -> None:
    row = {"name": "d2", "dataset": "voc", "images": 1200, "trained_on": "v1", "heldout_images": 60}
    told = {"recipe": {"method": {"name": "stage2"}}, "grid": (4, 4), "channels": 8, "fine_grid": None}
    told |= {"prefix_tokens": 0, "provenance": {}}
    words = dict(recipe_words(told, ["raw"], [row | {"cosine": 0.95, "raw_cosine": 0.9}]))
    assert "d2 of voc, trained on 1,200 images of v1" in words["Denoiser"]
    assert "60 images held out" in words["Denoiser"]
    assert "0.950 (raw: 0.900)" in words["Denoiser"]


def luminance(colour: str) -> float:
    """Relative luminance as WCAG 2 defines it."""
    parts = [int(colour[n : n + 2], 16) / 255 for n in (1, 3, 5)]
    linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def test_text_is_told_from_its_ground_by_light_and_by_dark(page: Page) -> None:
    themes = re.findall(r":root \{([^}]*--page[^}]*)\}", "".join(page.texts("style")))
    assert len(themes) == 2
    for theme in themes:
        colours = dict(re.findall(r"--(\w+): (#\w{6})", theme))
        for text in ("text", "muted", "accent", "bad"):
            for ground in ("page", "soft", "alert"):
                low, high = sorted((luminance(colours[text]), luminance(colours[ground])))
                assert (high + 0.05) / (low + 0.05) >= 4.5, (text, ground)


def test_a_wheel_has_every_file_that_is_no_module() -> None:
    tool = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["tool"]["setuptools"]
    patterns = tool["package-data"]
    for package in ("featstore", "featstore.report"):
        folder = REPOSITORY.joinpath(*package.split("."))
        assert package in tool["packages"]
        taken = {path for pattern in patterns[package] for path in folder.glob(pattern)}
        inner = [
            folder / name.removeprefix(f"{package}.") for name in tool["packages"] if name.startswith(f"{package}.")
        ]
        files = {path for path in folder.rglob("*") if path.is_file() and "__pycache__" not in path.parts}
        own = {path for path in files if not any(path.is_relative_to(other) for other in inner)}
        assert {path for path in own if path.suffix != ".py"} == taken


def test_differences_of_clean_alone_are_from_the_same_backbones_raw() -> None:
    row = {"task": "knn", "metric": "mIoU", "low": None, "high": None, "interval": None, "seeds": 1, "settings": {}}
    row |= {"train_images": 5, "val_images": 5, "created_at": NOW}
    clean = row | {"peer": None, "variant": "clean", "value": 0.5}
    foreign = row | {"peer": "clip_b/v1", "variant": "raw", "value": 0.1}
    own = row | {"peer": "v1", "variant": "raw", "value": 0.2}
    (table,) = make_tables([clean, own, foreign])
    assert [name for name, _ in table.rows] == ["clean", "clip_b/v1 raw", "v1 raw"]
    assert [(name, cells[0].value) for name, cells in table.changes] == [("clean − v1 raw", "+0.300")]
    (alone,) = make_tables([clean, foreign])
    assert alone.changes == ()
