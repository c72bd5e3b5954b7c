"""The viewer in a real Chromium: what the pointer shows is what numpy makes of the features that are stored."""

import threading
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import parse_qs

import duckdb
import h5py
import numpy as np
import pytest
from browser import Browser, browsing, missing
from matplotlib import colormaps
from numpy.typing import NDArray

from featstore.viewer.server import Viewer, listening

pytestmark = pytest.mark.skipif(missing() is not None, reason=str(missing()))
IMAGE = "cats/003.png"
SHOWN = "return document.querySelector(`.map[data-side=${arguments[0]}]`)?.shown?.values?.length"


@pytest.fixture(scope="module")
def viewer(readable: Path) -> Iterator[Viewer]:
    with listening(readable, 0) as found:
        thread = threading.Thread(target=found.server.serve_forever, daemon=True)
        thread.start()
        yield found
        found.server.shutdown()
        thread.join()


@pytest.fixture(scope="module")
def session(tmp_path_factory: pytest.TempPathFactory, viewer: Viewer) -> Iterator[Browser]:
    with browsing(tmp_path_factory.mktemp("profile")) as found:
        found.open(viewer.url)
        found.until("return document.querySelectorAll('#grid img').length")
        yield found


@pytest.fixture
def page(session: Browser, viewer: Viewer) -> Browser:
    """The page with one image open, raw beside clean."""
    return visit(session, viewer, f"dataset=pets&version=fake/v1&image={IMAGE}")


def visit(session: Browser, viewer: Viewer, state: str) -> Browser:
    session.open("about:blank")
    session.open(f"http://127.0.0.1:{viewer.port}/#{state}")
    session.until(SHOWN, "b")
    return session


def features(root: Path, variant: str, version: str = "fake") -> NDArray[np.float64]:
    with duckdb.connect(str(root / "manifest.duckdb"), read_only=True) as connection:
        sql = "SELECT shard, shard_row FROM stored WHERE dataset = 'pets' AND image_id = ? AND backbone = ?"
        shard, row = connection.execute(sql, [IMAGE, version]).fetchall()[0]
    with h5py.File(root / shard) as file:
        return file[variant][row].astype(np.float64)


def cosines(values: NDArray[np.float64], row: int, column: int) -> NDArray[np.float64]:
    unit = values / np.linalg.norm(values, axis=-1, keepdims=True)
    return np.einsum("hwc,c->hw", unit, unit[row, column])


def values(page: Browser, side: str) -> NDArray[np.float64]:
    """What a map says it shows, once the browser has drawn it."""
    found = page.run(
        "const e = document.querySelector(`.map[data-side=${arguments[0]}]`);"
        "return new Promise((done) => requestAnimationFrame(() => setTimeout(() =>"
        " done([e.shown.height, e.shown.width, Array.from(e.shown.values)]), 0)))",
        side,
    )
    return np.array(found[2]).reshape(found[0], found[1], -1).squeeze(-1)


def pixels(page: Browser, side: str) -> NDArray[np.uint8]:
    found = page.run(
        "const c = document.querySelector(`.map[data-side=${arguments[0]}] canvas`);"
        "return [c.height, c.width, Array.from(c.getContext('2d').getImageData(0, 0, c.width, c.height).data)]",
        side,
    )
    return np.array(found[2], np.uint8).reshape(found[0], found[1], 4)


def state_of(page: Browser) -> dict[str, str]:
    return {name: value[0] for name, value in parse_qs(page.run("return location.hash.slice(1)")).items()}


@pytest.mark.parametrize(("over", "row", "column"), [("photo", 0, 0), ("a", 3, 1), ("b", 2, 4)])
def test_every_map_shows_the_cosines_with_the_patch_under_the_pointer(
    page: Browser, readable: Path, over: str, row: int, column: int
) -> None:
    page.hover(f".map[data-side={over}]", (column + 0.5) / 5, (row + 0.5) / 4)
    for side, variant in (("a", "raw"), ("b", "clean")):
        expected = cosines(features(readable, variant), row, column)
        np.testing.assert_allclose(values(page, side), expected, atol=2e-6)
        shades = colormaps["viridis"](np.clip(expected, 0, 1), bytes=True)
        assert np.abs(pixels(page, side).astype(int) - shades).max() <= 3
    assert "patch" not in state_of(page), "nothing is held by pointing"


def test_a_click_holds_the_patch_and_pointing_then_reads_values(page: Browser, readable: Path) -> None:
    expected = cosines(features(readable, "clean"), 1, 2)
    page.hover(".map[data-side=photo]", 2.5 / 5, 1.5 / 4, click=True)
    page.hover(".map[data-side=a]", 0.5 / 5, 3.5 / 4)
    np.testing.assert_allclose(values(page, "b"), expected, atol=2e-6)
    assert state_of(page)["patch"] == "1,2"
    said = page.until("return document.querySelector('.panel.b .value').textContent")
    assert float(said) == pytest.approx(expected[3, 0], abs=6e-4)
    page.hover(".map[data-side=b]", 2.5 / 5, 1.5 / 4, click=True)
    assert "patch" not in state_of(page), "a second click lets it go"


def test_the_keyboard_moves_the_patch_holds_it_and_turns_to_the_next_image(page: Browser, readable: Path) -> None:
    page.hover(".map[data-side=photo]", 0.5 / 5, 0.5 / 4)
    page.press("down", "right", "right", "up", "down", "enter")
    assert state_of(page)["patch"] == "1,2"
    np.testing.assert_allclose(values(page, "a"), cosines(features(readable, "raw"), 1, 2), atol=2e-6)
    page.press("right", "right", "right", "right")
    assert state_of(page)["patch"] == "1,4", "the grid ends there"
    page.press("4")
    page.until("return document.querySelector('.map[data-side=b]').shown?.kind === 'norm'")
    np.testing.assert_allclose(values(page, "b"), np.linalg.norm(features(readable, "clean"), axis=-1), rtol=1e-6)
    page.press("1", "j")
    page.until("return document.getElementById('name').textContent === 'cats/005.png'")
    page.press("page up")
    page.until("return document.getElementById('name').textContent === 'cats/003.png'")
    page.press("escape", "escape")
    assert "image" not in state_of(page)
    page.press("?")
    assert page.until("return document.getElementById('keys').open")


def test_an_address_brings_back_all_that_was_shown(session: Browser, viewer: Viewer, readable: Path) -> None:
    state = (
        f"dataset=pets&version=fake/v1&where=label='cats'&sort=-image_id&image={IMAGE}"
        "&a=other/v1:raw&b=fake/v1:clean_fine&patch=b5,3&range=fitted"
    )
    page = visit(session, viewer, state)
    assert page.run("return document.getElementById('where').value") == "label='cats'"
    assert page.run("return document.querySelector('#grid a').dataset.image") == "cats/009.png"
    np.testing.assert_allclose(values(page, "b"), cosines(features(readable, "clean_fine"), 5, 3), atol=2e-6)
    other = features(readable, "raw", "other")
    np.testing.assert_allclose(values(page, "a"), cosines(other, 2, 1), atol=2e-6)
    page.call("refresh", {})
    page.until(SHOWN, "b")
    np.testing.assert_allclose(values(page, "a"), cosines(other, 2, 1), atol=2e-6)
    page.press("2")
    page.until("return document.querySelector('.map[data-side=a]').shown?.kind === 'pca'")
    page.run("history.back()")


def test_artifact_and_clusters_are_drawn_as_the_server_gives_them(page: Browser, readable: Path) -> None:
    page.press("5")
    page.until("return document.querySelectorAll('.map[data-kind=norm]').length === 1")
    found = page.run("return Array.from(document.querySelector('.map[data-kind=norm]').shown.values)")
    np.testing.assert_allclose(found, np.linalg.norm(features(readable, "artifact"), axis=-1).ravel(), rtol=1e-6)
    page.press("3")
    page.until("return document.querySelector('.map[data-side=b]')?.shown?.kind === 'kmeans'")
    labels = values(page, "b").astype(int)
    shades = pixels(page, "b")[..., :3]
    assert len(np.unique(shades.reshape(-1, 3), axis=0)) == len(np.unique(labels))


def test_wrong_sql_is_a_line_on_the_page_and_the_next_filter_works(page: Browser) -> None:
    for text, shown in (("nobody = 1", "nobody"), ("label = 'dogs'", "")):
        page.run("const w = document.getElementById('where'); w.value = arguments[0]; w.form.requestSubmit()", text)
        page.until("return document.getElementById('error').textContent.includes(arguments[0])", shown)
    page.until("return document.getElementById('count').textContent === '5 images'")
    assert page.run("return document.getElementById('error').hidden")


def test_the_page_asks_nobody_else_and_says_nothing_to_the_console(page: Browser, viewer: Viewer) -> None:
    asked = page.run("return performance.getEntriesByType('resource').map((each) => each.name)")
    assert asked
    assert all(name.startswith((f"http://127.0.0.1:{viewer.port}/", "blob:")) for name in asked)
    said = [entry["message"] for entry in page.call("se/log", {"type": "browser"})]
    # A wrong filter was asked for on purpose (400), and the next image before it was known whether both versions hold it (404).
    assert [line for line in said if "status of 40" not in line] == []


def test_without_the_token_there_is_no_page(session: Browser, viewer: Viewer) -> None:
    cookies = session.call("cookie", None, "GET")
    assert [(cookie["httpOnly"], cookie["sameSite"]) for cookie in cookies] == [(True, "Strict")]
    session.call("cookie", None, "DELETE")
    session.open("about:blank")
    session.open(f"http://127.0.0.1:{viewer.port}/#dataset=pets")
    assert "needs its token" in session.run("return document.body.innerText")
