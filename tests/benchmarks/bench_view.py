"""The viewer: pages of a hundred thousand images, thumbnails, opening an image, and the map under the pointer.

    python tests/benchmarks/bench_view.py

Pages are asked of the application itself, of a manifest made by SQL without pixels; the peer asks the manifest anew for each
page (LIMIT and OFFSET). Thumbnails: the peer decodes the whole file. Maps: Chromium without a window on a store of random
features; the peer is numpy in the same minute, float32, one thread. Each figure is the fastest of several, in milliseconds:
what else the machine does only adds to it.
"""

import argparse
import io
import sys
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
from bench_million import make_manifest
from PIL import Image
from werkzeug.test import Client

from featstore.build import build_version
from featstore.images import decode
from featstore.index import index_dataset
from featstore.panel import cosine
from featstore.plan import Request
from featstore.query import restricted
from featstore.viewer.application import THUMBNAIL, Application
from featstore.viewer.pictures import jpeg_of
from featstore.viewer.server import listening

sys.path.insert(0, str(Path(__file__).parents[1] / "support"))
from browser import Browser, browsing, missing

TOKEN = "0123456789abcdef"
PAGE = (
    "SELECT image_id, path, sha256 FROM (SELECT * FROM stored WHERE backbone = 'vit' AND version = 'v1') AS stored "
    "ORDER BY image_id LIMIT 60 OFFSET ?"
)
HOVER = """
const [own, hover] = await Promise.all([import('/assets/numbers.js'), import('/assets/colours.js')]);
await hover.load();
const answers = await Promise.all(['raw', 'clean'].map((variant) =>
  fetch(`/api/features?dataset=noise&version=${arguments[0]}&image=0.png&variant=${variant}`)));
const stored = await Promise.all(answers.map(async (answer) =>
  ({ shape: answer.headers.get('X-Shape').split(',').map(Number), bytes: await answer.arrayBuffer() })));
let before = performance.now();
const maps = stored.map(own.decode);
const opened = performance.now() - before;
const canvases = maps.map(() => document.createElement('canvas'));
const colours = hover.table('similarity');
const taken = [];
for (let n = 0; n < 60; n++) {
  before = performance.now();
  const place = (n * 7919) % maps[0].norms.length;
  maps.forEach((each, k) => hover.drawNumbers(canvases[k], each, own.cosines(each, place), colours, [0, 1]));
  taken.push(performance.now() - before);
}
return [opened, Math.min(...taken)];
"""


class Noise:
    """Random features of a size."""

    prefix_tokens, method, forwards_per_image, batch_size = 0, "noise", 1, 1
    variants: tuple[str, ...] = ("raw", "clean")

    def __init__(self, side: int, width: int) -> None:
        self.grid, self.width = (side, side), width

    def recipe(self) -> dict[str, Any]:
        return {
            "backbone": {"id": "noise", "input": [64, 64]},
            "method": {"name": "noise", "grid": [*self.grid, self.width]},
        }

    def prepare(self, image: Any, key: str) -> Any:
        return None

    def decompose(self, prepared: Sequence[Any]) -> list[Any]:
        drawn = np.random.default_rng(0)
        shape = (*self.grid, self.width)
        one = {name: drawn.normal(0, 1, shape).astype(np.float32) for name in self.variants}
        return [type("Maps", (), {**one, "artifact": None, "prefix": None, "stats": {}})() for _ in prepared]


def fastest(act: Callable[[], Any], times: int = 9) -> float:
    """Return the milliseconds of the fastest of some calls."""
    taken = []
    for _ in range(times):
        started = time.perf_counter()
        act()
        taken.append((time.perf_counter() - started) * 1000)
    return min(taken)


def pages(folder: Path, count: int) -> None:
    """Print what pages take."""
    make_manifest(folder / "made", count)

    def fresh() -> Client:
        return Client(Application(folder / "made", TOKEN))

    def ask(client: Client, **given: Any) -> None:
        answer = client.get(
            "/api/images", query_string={"token": TOKEN, "dataset": "made", "version": "vit/v1", **given}
        )
        assert answer.status_code == 200, answer.text

    def anew(offset: int) -> None:
        with restricted(folder / "made", "made") as connection:
            connection.execute(PAGE, [offset]).fetchall()

    client = fresh()
    ask(client)
    numbers = iter(range(2, 1000))
    print(f"| {count:,} images, a page of 60 | ms | the manifest asked anew, ms |\n|---|---|---|")
    print(f"| first page, nothing known | {fastest(lambda: ask(fresh()), 5):.0f} | {fastest(lambda: anew(0), 5):.0f} |")
    print(
        f"| another page | {fastest(lambda: ask(client, page=next(numbers))):.1f} | {fastest(lambda: anew(600)):.0f} |"
    )
    print(f"| page 1,000 | {fastest(lambda: ask(client, page=1000)):.1f} | {fastest(lambda: anew(59940)):.0f} |")
    limits = iter(np.linspace(0.3, 0.6, 9))
    print(f"| a new condition | {fastest(lambda: ask(client, where=f'heldout_r2 < {next(limits)}'), 5):.0f} | |")
    ask(client, where="heldout_r2 < 0.5")
    print(f"| page 500 of 50,000 left | {fastest(lambda: ask(client, where='heldout_r2 < 0.5', page=500)):.1f} | |\n")


def thumbnails(folder: Path) -> None:
    """Print what thumbnails take."""
    print("| JPEG | thumbnail, ms | whole decoded and made smaller, ms | ratio |\n|---|---|---|---|")
    for width, height in ((500, 375), (4000, 3000)):
        coarse = np.random.default_rng(0).integers(0, 256, (height // 20, width // 20, 3), dtype=np.uint8)
        path = folder / f"{width}.jpg"
        Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC).save(path, quality=90)

        def whole(path: Path = path) -> None:
            picture = Image.fromarray(decode(path.read_bytes()))
            picture.thumbnail((THUMBNAIL, THUMBNAIL), Image.Resampling.LANCZOS)
            picture.save(io.BytesIO(), "JPEG", quality=85)

        own, peer = fastest(lambda path=path: jpeg_of(path, THUMBNAIL)), fastest(whole)  # type: ignore[misc]
        print(f"| {width} × {height} | {own:.1f} | {peer:.1f} | {own / peer:.2f} |")
    print()


def noisy(folder: Path, sizes: Sequence[tuple[int, int]]) -> Path:
    """Build a store of one image and random features of several sizes."""
    (folder / "images").mkdir()
    Image.new("RGB", (64, 64)).save(folder / "images" / "0.png")
    index_dataset(folder / "store", "noise", folder / "images")
    for side, width in sizes:
        build_version(folder / "store", Request("noise", f"n{side}x{width}"), Noise(side, width))
    return folder / "store"


def opened(browser: Browser, url: str, version: str) -> float:
    """Open an image from its address and return the milliseconds until both maps are drawn."""
    browser.open("about:blank")
    started = time.perf_counter()
    browser.open(f"{url}#version={version}&image=0.png")
    browser.until("return document.querySelector('.map[data-side=b]')?.shown?.values?.length")
    return (time.perf_counter() - started) * 1000


def maps(folder: Path) -> None:
    """Print what maps take in the browser."""
    sizes = ((16, 384), (37, 384), (37, 768), (64, 768))
    root = noisy(folder, sizes)
    print(
        "| two maps of | open the address | decode, once | pointer moved | numpy | against numpy | a frame of 16.7 ms |"
    )
    print("|---|---|---|---|---|---|---|")
    with listening(root, 0) as viewer, browsing(folder / "profile") as browser:
        threading.Thread(target=viewer.server.serve_forever, daemon=True).start()
        browser.open(viewer.url)
        for side, width in sizes:
            version = f"n{side}x{width}/v1"
            whole = min(opened(browser, viewer.url.split("?")[0], version) for _ in range(3))
            decoded, moved = browser.run(f"return (async (...arguments) => {{{HOVER}}})(...arguments)", version)
            values = np.random.default_rng(0).normal(0, 1, (side, side, width)).astype(np.float32)
            peer = 2 * fastest(lambda values=values: cosine(values, 3, 4), 15)  # type: ignore[misc]
            row = [f"{side}×{side}×{width}", f"{whole:.0f}", f"{decoded:.0f}", f"{moved:.1f}", f"{peer:.1f}"]
            print("|", " | ".join([*row, f"{moved / peer:.2f}", "met" if moved < 16.7 else "missed"]), "|")
        viewer.server.shutdown()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=int, default=100_000)
    given = parser.parse_args()
    with TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        pages(Path(folder), given.images)
        thumbnails(Path(folder))
        if missing():
            print(f"no browser: {missing()}")
        else:
            maps(Path(folder))


if __name__ == "__main__":
    main()
