"""What the viewer's server answers, and whom it does not answer; held against h5py, duckdb, Pillow and scikit-learn."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tomllib
from collections.abc import Callable
from fnmatch import fnmatch
from functools import lru_cache
from importlib.resources import files
from io import BytesIO
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from urllib.request import urlopen

import duckdb
import h5py
import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image
from sklearn.cluster import KMeans
from sklearn.decomposition import PCA
from tinystore import call
from werkzeug.test import Client, TestResponse

from featstore.viewer import listings
from featstore.viewer.application import Application
from featstore.viewer.catalogue import place_of
from featstore.viewer.server import listening

TOKEN = "a-token-of-this-test"
Ask = Callable[..., TestResponse]


@pytest.fixture(scope="module")
def application(readable: Path) -> Application:
    return Application(readable, TOKEN)


@pytest.fixture
def ask(application: Application) -> Ask:
    """Ask the server as one who has the token."""
    client = Client(application)
    return lambda path, **given: client.get(path, query_string={"token": TOKEN, **given})


def known(root: Path, sql: str) -> list[tuple[Any, ...]]:
    with duckdb.connect(str(root / "manifest.duckdb"), read_only=True) as connection:
        return connection.execute(sql).fetchall()


@lru_cache
def places(root: Path) -> dict[str, tuple[str, int]]:
    """Where the features of version fake/v1 of pets lie, in the order of the images' digests."""
    sql = "SELECT image_id, shard, shard_row FROM stored WHERE dataset = 'pets' AND backbone = 'fake' ORDER BY sha256"
    return {image: (shard, row) for image, shard, row in known(root, sql)}


def stored(root: Path, image: str, variant: str) -> NDArray[np.float16]:
    shard, row = places(root)[image]
    with h5py.File(root / shard) as file:
        return file[variant][row]


def array(answer: TestResponse, kind: str) -> NDArray[Any]:
    assert answer.status_code == 200, answer.text
    return np.frombuffer(answer.data, kind).reshape([int(n) for n in answer.headers["X-Shape"].split(",")])


PETS = {"dataset": "pets", "version": "fake/v1"}


@pytest.mark.parametrize(
    "given", [{}, {"token": "wrong"}, {"token": ""}, {"token": TOKEN[:-1]}, {"token": "ä"}], ids=str
)
@pytest.mark.parametrize("path", ["/", "/assets/main.js", "/api/store", "/nowhere"])
def test_nothing_is_told_without_the_token(application: Application, path: str, given: dict[str, str]) -> None:
    answer = Client(application).get(path, query_string=given)
    assert answer.status_code == 403
    assert "featstore view" in answer.text
    assert "default-src 'none'" in answer.headers["Content-Security-Policy"]


@pytest.mark.parametrize(
    "host", ["evil.example", "127.0.0.1.evil.example:80", "", "localhost.evil", "[::2]", "[", "0.0.0.0:9"]
)
def test_other_names_of_this_server_are_refused(application: Application, host: str) -> None:
    answer = Client(application).get("/api/store", query_string={"token": TOKEN}, headers={"Host": host})
    assert answer.status_code == 403


@pytest.mark.parametrize("host", ["127.0.0.1:8757", "localhost:1", "LOCALHOST", "[::1]:80"])
def test_the_end_of_a_tunnel_may_have_any_port(application: Application, host: str) -> None:
    answer = Client(application).get("/api/store", query_string={"token": TOKEN}, headers={"Host": host})
    assert answer.status_code == 200


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH", "OPTIONS", "TRACE"])
def test_it_only_reads(application: Application, method: str) -> None:
    assert Client(application).open("/api/store", method=method, query_string={"token": TOKEN}).status_code == 405


def test_the_token_becomes_a_cookie_that_no_script_and_no_other_site_gets(application: Application) -> None:
    client = Client(application)
    answer = client.get("/", query_string={"token": TOKEN})
    assert (answer.status_code, answer.headers["Location"]) == (303, "/")
    cookie = answer.headers["Set-Cookie"]
    assert "HttpOnly" in cookie
    assert "SameSite=Strict" in cookie
    page = client.get("/")
    assert page.status_code == 200
    assert "assets/main.js" in page.text
    assert client.get("/api/store").json["datasets"][0]["dataset"] == "pets"


@pytest.mark.parametrize(
    "name", ["../server.py", "..%2fserver.py", "%2e%2e/__init__.py", "/etc/passwd", "nothing.js", "..\\x"]
)
def test_only_the_pages_own_files_are_served(ask: Ask, name: str) -> None:
    assert ask(f"/assets/{name}").status_code == 404


def test_every_file_that_the_page_names_is_there_and_in_the_wheel(application: Application) -> None:
    names = set(application.assets)
    for name, data in application.assets.items():
        text = data.decode()
        wanted = {*re.findall(r'from "\./([^"]+)"', text), *re.findall(r'(?:src|href)="assets/([^"]+)"', text)}
        assert wanted <= names, name
        assert text.count("\n") <= 300, name
        assert not re.search(r"https?://(?!www\.w3\.org/2000/svg)", text), "the page asks nobody else"
    project = tomllib.loads((Path(__file__).parents[1] / "pyproject.toml").read_text(encoding="utf-8"))["tool"][
        "setuptools"
    ]
    assert "featstore.viewer" in project["packages"]
    for file in files("featstore.viewer").joinpath("assets").iterdir():
        assert any(fnmatch(f"assets/{file.name}", pattern) for pattern in project["package-data"]["featstore.viewer"])


def test_the_store_is_listed_with_what_versions_hold(ask: Ask, readable: Path) -> None:
    found = ask("/api/store").json
    assert [(d["dataset"], d["images"]) for d in found["datasets"]] == known(
        readable, "SELECT dataset, count(*) FROM current_images GROUP BY ALL ORDER BY 1"
    )
    pets = {version["name"]: version for version in found["datasets"][0]["versions"]}
    assert pets["fake/v1"]["variants"] == ["raw", "clean", "artifact", "residual", "clean_fine"]
    voc = found["datasets"][1]["versions"][0]
    assert voc["variants"] == ["raw", "clean", "artifact", "residual"], "the residual is worked out of the other three"


def test_pages_are_those_of_sql(ask: Ask, readable: Path) -> None:
    condition = "label = 'dogs' OR sha256 < '8'"
    sql = f"SELECT image_id FROM stored WHERE backbone = 'fake' AND dataset = 'pets' AND ({condition}) ORDER BY 1 DESC"
    expected = [row[0] for row in known(readable, sql)]
    found: list[str] = []
    for page in (1, 2, 3):
        answer = ask("/api/images", **PETS, where=condition, sort="-image_id", size=3, page=page).json
        assert (answer["count"], answer["pages"]) == (len(expected), -(-len(expected) // 3))
        found += [each["image_id"] for each in answer["images"]] if page <= answer["pages"] else []
    assert found[: len(expected)] == expected
    around = ask("/api/images", **PETS, where=condition, sort="-image_id", size=2, around=expected[4]).json
    assert around["page"] == 3
    assert around["images"][0]["image_id"] == expected[4]


def test_images_without_features_are_listed_too(ask: Ask) -> None:
    assert ask("/api/images", dataset="pets", version="other/v1").json["count"] == 7
    assert ask("/api/images", dataset="pets", version="none").json["count"] == 10
    assert ask("/api/image", dataset="pets", version="none", image="cats/001.png").json["variants"] == []


@pytest.mark.parametrize(
    ("where", "said"),
    [
        ("1 = 1); DROP TABLE manifest.images; SELECT (1", "statements"),
        ("true) UNION ALL (SELECT 1", "parsed"),
        ("image_id IN (SELECT content FROM read_text('/etc/passwd'))", "disabled"),
        ("image_id IN (SELECT column0 FROM '/etc/passwd.csv')", "disabled"),
        ("nobody = 3", "nobody"),
        ("heldout_r2 <", "parsed"),
    ],
)
def test_sql_that_writes_or_reads_files_or_is_wrong_is_one_line(ask: Ask, where: str, said: str) -> None:
    answer = ask("/api/images", **PETS, where=where)
    assert answer.status_code == 400
    assert said in answer.json["error"]
    assert "\n" not in answer.json["error"]


def test_a_condition_without_end_is_stopped(ask: Ask, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(listings, "LIMIT", 0.3)
    answer = ask(
        "/api/images",
        **PETS,
        where="(SELECT count(*) FROM range(1000000000) a, range(1000) b WHERE a.range % 7 = b.range) > 1",
    )
    assert (answer.status_code, answer.json["error"]) == (400, "stopped after 0.3 s: make the condition simpler")


def test_the_manifest_is_free_for_a_build_while_someone_looks(readable: Path, tmp_path: Path) -> None:
    root = tmp_path / "store"
    shutil.copytree(readable, root)
    client = Client(Application(root, TOKEN))
    assert client.get("/api/images", query_string={"token": TOKEN, **PETS}).json["count"] == 10
    writer = "import sys, duckdb; duckdb.connect(sys.argv[1]).execute(\"UPDATE images SET label = 'seen'\")"
    subprocess.run([sys.executable, "-c", writer, root / "manifest.duckdb"], check=True)
    client.application.listings.looked = -10.0  # as if some seconds had gone by
    assert (
        client.get("/api/images", query_string={"token": TOKEN, **PETS, "where": "label = 'seen'"}).json["count"] == 10
    )


@pytest.mark.parametrize("variant", ["raw", "clean", "artifact", "residual", "clean_fine"])
def test_features_are_the_bytes_that_are_stored(ask: Ask, readable: Path, variant: str) -> None:
    answer = ask("/api/features", **PETS, image="cats/003.png", variant=variant)
    np.testing.assert_array_equal(array(answer, "<f2"), stored(readable, "cats/003.png", variant))


def tokens_of(root: Path, variants: tuple[str, ...]) -> NDArray[np.float64]:
    maps = [stored(root, image, variant) for image in list(places(root))[:8] for variant in variants]
    return np.concatenate([values.reshape(-1, values.shape[-1]) for values in maps]).astype(np.float64)


def test_pca_has_one_basis_for_all_images_and_for_raw_and_clean(ask: Ask, readable: Path) -> None:
    tokens = tokens_of(readable, ("raw", "clean", "clean_fine"))
    fitted = PCA(3).fit(tokens)
    directions = (
        fitted.components_
        * np.sign(fitted.components_[np.arange(3), np.abs(fitted.components_).argmax(axis=1)])[:, None]
    )
    low, high = np.percentile((tokens - fitted.mean_) @ directions.T, [2, 98], axis=0)
    for variant in ("raw", "clean"):
        placed = (stored(readable, "dogs/004.png", variant).astype(np.float64) - fitted.mean_) @ directions.T
        expected = np.clip((placed - low) / (high - low), 0, 1) * 255
        found = array(ask("/api/map", **PETS, image="dogs/004.png", variant=variant, kind="pca"), "u1")
        assert np.abs(found - expected).max() <= 1.5


def test_clusters_are_as_good_as_those_of_scikit_learn(ask: Ask, readable: Path) -> None:
    tokens = tokens_of(readable, ("raw", "clean", "clean_fine"))
    best = KMeans(4, n_init=10, random_state=0).fit(tokens)
    found, features = [], []
    for image in list(places(readable))[:8]:
        for variant in ("raw", "clean", "clean_fine"):
            found.append(
                array(ask("/api/map", **PETS, image=image, variant=variant, kind="kmeans", clusters=4), "u1").ravel()
            )
            features.append(stored(readable, image, variant).reshape(-1, 8).astype(np.float64))
    labels, values = np.concatenate(found), np.concatenate(features)
    apart = sum(np.square(values[labels == n] - values[labels == n].mean(axis=0)).sum() for n in range(4))
    assert apart <= 1.05 * best.inertia_


def test_photographs_and_masks_are_the_files_pixels(ask: Ask, readable: Path) -> None:
    voc = {"dataset": "voc", "version": "fake/v1"}
    folder = Path(known(readable, "SELECT source FROM datasets WHERE dataset = 'voc'")[0][0])
    image, path, mask = known(
        readable,
        "SELECT image_id, path, mask_path FROM stored WHERE dataset = 'voc' AND mask_path IS NOT NULL ORDER BY 1 LIMIT 1",
    )[0]
    with Image.open(folder / path) as photograph:
        expected = np.asarray(photograph.convert("RGB"), np.float64)
    with Image.open(BytesIO(ask("/api/photograph", **voc, image=image).data)) as shown:
        assert shown.format == "JPEG"
        assert np.abs(np.asarray(shown, np.float64) - expected).mean() < 12
    answer = ask("/api/mask", **voc, image=image)
    with Image.open(folder / mask) as file, Image.open(BytesIO(answer.data)) as shown:
        labels, colours = np.asarray(file), np.asarray(shown)
    assert colours.shape == (*labels.shape, 4)
    named = json.loads(answer.headers["X-Labels"])
    assert len(named) == len(set(np.unique(labels)) - {0, 255}), "neither background nor what is ignored"
    assert not colours[np.isin(labels, (0, 255))][:, 3].any()
    for label in np.unique(labels):
        assert len(np.unique(colours[labels == label], axis=0)) == 1


@pytest.mark.parametrize("image", ["../../etc/passwd", "/etc/passwd", "cats/nobody.png", ""])
@pytest.mark.parametrize("path", ["image", "thumbnail", "photograph", "features", "mask", "map"])
def test_an_image_that_is_not_listed_is_not_there(ask: Ask, path: str, image: str) -> None:
    answer = ask(f"/api/{path}", **PETS, image=image)
    assert answer.status_code == 404
    assert "no image" in answer.json["error"]


@pytest.mark.parametrize(
    ("size", "resize", "expected"),
    [
        ((400, 500), "squash", (0.0, 0.0, 1.0, 1.0)),
        ((400, 500), "shortest", (0.1, 0.0, 0.8, 1.0)),
        ((500, 400), "shortest", (0.0, 0.1, 1.0, 0.8)),
    ],
)
def test_maps_lie_on_the_part_of_the_photograph_that_features_show(
    size: tuple[int, int], resize: str, expected: tuple[float, ...]
) -> None:
    recipe = json.dumps({"backbone": {"input": [224, 224], "resize": resize}})
    place = place_of(SimpleNamespace(recipe=recipe), {"height": size[0], "width": size[1]})  # type: ignore[arg-type]
    assert tuple(place[name] for name in ("left", "top", "width", "height")) == pytest.approx(expected)


def test_wrong_names_are_told_in_a_line(ask: Ask) -> None:
    for given, said in (
        ({"dataset": "cars"}, "no data set 'cars'"),
        ({**PETS, "version": "fake/v9"}, "no version"),
        ({**PETS, "sort": "secret"}, "cannot sort by"),
        ({**PETS, "page": "x"}, "no whole number"),
    ):
        answer = ask("/api/images", **given)
        assert 400 <= answer.status_code < 500
        assert said in answer.json["error"]
    for path in ("features", "map"):
        answer = ask(f"/api/{path}", **PETS, image="cats/001.png", variant="prefix_tokens", kind="pca")
        assert (answer.status_code, "is not stored" in answer.json["error"]) == (404, True)


def test_a_photograph_that_has_gone_does_not_end_the_page(readable: Path, tmp_path: Path) -> None:
    root = tmp_path / "store"
    shutil.copytree(readable, root)
    with duckdb.connect(str(root / "manifest.duckdb")) as connection:
        connection.execute("UPDATE datasets SET source = '/nowhere'")
    client = Client(Application(root, TOKEN))
    answer = client.get("/api/thumbnail", query_string={"token": TOKEN, **PETS, "image": "cats/001.png"})
    assert answer.status_code == 400
    assert "has the data set been moved?" in answer.json["error"]


def test_the_command_serves_until_it_is_interrupted(readable: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    environment = os.environ | {"FEATSTORE_VIEW_TOKEN": "0123456789abcdef"}
    # What a shell starts in the background ignores Ctrl-C, and so does what that starts.
    heard = "import signal; signal.signal(signal.SIGINT, signal.default_int_handler)"
    script = f"{heard}; from featstore.cli.main import main; main()"
    command = [sys.executable, "-c", script, "view", str(readable), "--port", "0", "--json"]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment
    ) as process:
        assert process.stdout is not None
        text = ""
        while not text.endswith("}\n"):
            text += process.stdout.readline()
        said = json.loads(text)
        assert said["url"] == f"http://127.0.0.1:{said['port']}/?token=0123456789abcdef"
        with urlopen(said["url"].replace("/?", "/api/store?")) as answer:
            assert json.load(answer)["root"] == str(readable)
        with urlopen(said["url"].replace("/?", "/api/images?dataset=pets&version=fake/v1&")) as answer:
            assert json.load(answer)["count"] == 10
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=20)
    assert (process.returncode, err) == (0, "stopped\n")


def test_what_cannot_be_served_is_told_in_a_line(
    readable: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    said = call("view", tmp_path / "nothing")
    assert (said.code, "there is no store at" in said.err) == (1, True)
    assert call("view", readable, "--root", readable).code == 2
    with listening(readable, 0) as viewer:
        assert viewer.server.server_address[0] == "127.0.0.1"
        said = call("view", readable, "--port", viewer.port)
        assert (said.code, "--port 0 takes a free one" in said.err) == (1, True)
    monkeypatch.setenv("FEATSTORE_VIEW_TOKEN", "short")
    assert "at least 16" in call("view", readable).err
