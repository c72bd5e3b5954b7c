"""Figures and videos of planted features: what a colour, a norm or a similarity says, at the pixel where it says it."""

import json
import shutil
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fakes import Maps
from mean_patches import decomposer
from numpy.typing import NDArray
from PIL import Image
from sklearn.cluster import KMeans
from sklearn.decomposition import PCA
from tinystore import call, done

from featstore.build import build_version
from featstore.clustering import cluster, nearest
from featstore.components import basis, fit_colours, sampled
from featstore.errors import InputError
from featstore.figure import Style, save_panel
from featstore.index import index_dataset
from featstore.panel import COLUMNS, cosine, make_panel
from featstore.plan import Request
from featstore.shown import Shown, choose_images, choose_sequence, smaller
from featstore.video import SAMPLED, frames_of, save_video

SIDE, WIDTH = 6, 16
KINDS = np.random.default_rng(5).normal(0, 3, (4, WIDTH)).astype(np.float32)
"""Four features that the planted images are made of."""
VARIANTS = ("raw", "clean", "artifact", "residual")


def truth(number: int, variant: str) -> NDArray[np.float32]:
    """Quarters of four features, turned by the image's number; raw has another feature in one patch."""
    kinds = np.roll(np.arange(4), number).reshape(2, 2).repeat(3, axis=0).repeat(3, axis=1)
    clean = KINDS[kinds]
    artifact = np.zeros_like(clean)
    artifact[0, 0, 0], artifact[0, 1, 0] = 3, -3
    residual = np.zeros_like(clean)
    residual[5, 5, 1] = 4
    return {"clean": clean, "artifact": artifact, "residual": residual, "raw": clean + artifact + residual}[variant]


class Quarters:
    """Gives the planted maps; an image tells its number by its colour."""

    grid, width, prefix_tokens, method, forwards_per_image, batch_size = (SIDE, SIDE), WIDTH, 0, "stage1/planted", 64, 2

    def __init__(self, variants: tuple[str, ...] = VARIANTS, resize: str = "squash") -> None:
        self.variants, self.resize = variants, resize

    def recipe(self) -> dict[str, Any]:
        backbone = {"id": "planted", "input": [60, 60], "resize": self.resize}
        return {"backbone": backbone, "method": {"name": "stage1", "variants": len(self.variants)}}

    def prepare(self, image: NDArray[np.uint8], key: str) -> int:
        return int(image[image.shape[0] // 2, image.shape[1] // 2, 2]) // 10

    def decompose(self, prepared: list[int]) -> list[Maps]:
        return [Maps(*(self.one(n, name) for name in VARIANTS[:3]), None, {"norm_max": 1.0}) for n in prepared]

    def one(self, number: int, name: str) -> NDArray[np.float32] | None:
        return truth(number, name) if name in self.variants else None


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """v1 with all variants, v2 raw alone, v3 the middle square; images upright and wide, red at the left and right ends."""
    folder, store = tmp_path_factory.mktemp("clips"), tmp_path_factory.mktemp("store")
    for number, size in enumerate(((60, 120), (120, 60), (60, 60), (60, 60))):
        pixels = np.full((*size, 3), (0, 200, number * 10), np.uint8)
        pixels[:, : size[1] // 4] = pixels[:, -(size[1] // 4) :] = (255, 0, 0)
        name = folder / ("duck" if number else "$x_1$") / f"{number:05d}.png"
        name.parent.mkdir(exist_ok=True)
        Image.fromarray(pixels).save(name)
    index_dataset(store, "clips", folder, layout="frames")
    for made in (Quarters(), Quarters(("raw",)), Quarters(resize="shortest")):
        build_version(store, Request("clips", "planted"), made)
    return store


def images(root: Path, version: str = "clips/planted/v1", **how: Any) -> list[Shown]:
    return list(choose_images(root, version, how.get("ids", ()), how.get("variants", VARIANTS), how.get("where"), 4))


def test_one_feature_is_one_colour_in_every_image_and_variant(root: Path) -> None:
    panel = make_panel(images(root), ("pca", "kmeans"))
    for title in ("PCA", "k-means"):
        seen: dict[int, set[bytes]] = {}
        for number, row in enumerate(panel.rows):
            for column, tile in zip(panel.columns, row.tiles, strict=True):
                kinds = np.roll(np.arange(4), number)
                for kind, at in zip(kinds, ((1, 1), (1, 4), (4, 1), (4, 4)), strict=True):
                    if column.title == title:
                        seen.setdefault(int(kind), set()).add(tile[at].tobytes())
        assert [len(colours) for colours in seen.values()] == [1] * 4
        assert len(set.union(*seen.values())) == 4


def test_artifact_and_all_that_was_taken_off_share_their_colours() -> None:
    generator = np.random.default_rng(3)
    maps = {"artifact": generator.normal(0, 1, (9, 9, 5)), "residual": np.zeros((9, 9, 5))}
    maps["residual"][4, 2:7] = generator.normal(0, 2, (5, 5))
    one = Shown("one", np.zeros((9, 9, 3), np.uint8), {name: m.astype(np.float32) for name, m in maps.items()})
    artifact, _, _, both = make_panel([one], ("artifact", "residual")).rows[0].tiles
    assert np.argwhere((artifact != both).any(axis=-1)).tolist() == [[4, n] for n in range(2, 7)]


def test_norms_and_similarity_are_numpys(root: Path) -> None:
    panel = make_panel(images(root), COLUMNS, patch=(1, 4))
    for number, row in enumerate(panel.rows):
        for column, tile in zip(panel.columns, row.tiles, strict=True):
            if column.title == "norm":
                expected = np.sqrt((truth(number, column.group).astype(np.float16).astype(float) ** 2).sum(-1))
                np.testing.assert_allclose(tile, expected, atol=2e-2)
                assert column.scale is not None
                assert column.scale[0] <= tile.min() <= tile.max() <= column.scale[1]
            if column.title == "similarity":
                values = truth(number, column.group).astype(float)
                dots = (values * values[1, 4]).sum(-1)
                lengths = np.linalg.norm(values, axis=-1)
                np.testing.assert_allclose(tile, dots / lengths / lengths[1, 4], atol=2e-3)
    names = [f"{column.group} {column.title}".strip() for column in panel.columns]
    four = ("PCA", "k-means", "norm", "similarity")
    assert names[:9] == ["input", *(f"{group} {one}" for group in ("raw", "clean") for one in four)]
    assert names[9:] == ["artifact PCA", "artifact norm", "residual norm", "artifact + residual PCA"]


def test_cosine_of_a_feature_of_zeros_is_zero() -> None:
    values = np.ones((2, 2, 3), np.float32)
    values[0, 0] = 0
    np.testing.assert_allclose(cosine(values, 1, 1), [[0, 1], [1, 1]], atol=1e-6)


def test_the_basis_is_that_of_sklearn_and_its_signs_stay() -> None:
    generator = np.random.default_rng(0)
    mixed = (
        generator.normal(0, 1, (4000, 20))
        @ np.diag([9, 6, 4, *[0.5] * 17])
        @ np.linalg.qr(generator.normal(0, 1, (20, 20)))[0]
    )
    tokens = (mixed + 3).astype(np.float32)
    mean, found = basis(tokens)
    np.testing.assert_allclose(np.abs(found.T @ PCA(3).fit(tokens).components_.T), np.eye(3), atol=1e-4)
    np.testing.assert_allclose(mean, tokens.mean(axis=0), atol=1e-4)
    _, more = basis(np.concatenate([tokens, tokens[:500] + generator.normal(0, 0.1, (500, 20)).astype(np.float32)]))
    assert (np.diag(found.T @ more) > 0.9).all()
    np.testing.assert_array_equal(basis(tokens[::-1].copy())[1].round(4), found.round(4))


def test_components_that_are_rounding_are_not_drawn() -> None:
    line = np.linspace(0, 1, 50, dtype=np.float32)[:, None] * np.ones(8, np.float32)
    picture = fit_colours([line.reshape(5, 10, 8)])(line.reshape(5, 10, 8))
    assert np.ptp(picture[..., 0]) == 255
    assert not picture[..., 1:].any()


@pytest.mark.parametrize("count", [3, 8])
def test_clusters_are_as_tight_as_sklearns(count: int) -> None:
    generator = np.random.default_rng(count)
    centres = generator.normal(0, 4, (8, 12))
    tokens = (centres[generator.integers(0, 8, 1500)] + generator.normal(0, 1, (1500, 12))).astype(np.float32)
    found = cluster(tokens, count)
    inertia = (np.linalg.norm(tokens[:, None] - found, axis=-1) ** 2).min(axis=1).sum()
    assert inertia <= 1.02 * KMeans(count, n_init=10, random_state=0).fit(tokens).inertia_
    sizes = np.bincount(nearest(tokens, found))
    assert (np.diff(sizes) <= 0).all()
    np.testing.assert_array_equal(found, cluster(tokens, count))


def test_of_many_features_as_many_are_taken_evenly() -> None:
    maps = [np.arange(60, dtype=np.float32).reshape(4, 5, 3), np.arange(30, dtype=np.float32).reshape(5, 2, 3)]
    assert sampled(maps, 100)[:, 0].tolist() == [*range(0, 60, 3), *range(0, 30, 3)]
    assert sampled(maps, 10)[:, 0].tolist() == [*range(0, 60, 9), *range(0, 30, 9)]


def test_large_photographs_are_made_smaller() -> None:
    assert smaller(np.zeros((1500, 3000, 3), np.uint8)).shape == (512, 1024, 3)


def test_there_are_no_more_clusters_than_different_tokens() -> None:
    tokens = np.repeat(np.eye(3, dtype=np.float32), 5, axis=0)
    assert len(cluster(tokens, 8)) == 3


def crop_of(picture: NDArray[Any], colour: tuple[int, ...]) -> tuple[int, int]:
    """Height and width of the box of a colour."""
    rows, columns = np.nonzero((np.abs(picture[..., :3].astype(int) - colour) < 3).all(axis=-1))
    return int(np.ptp(rows)) + 1, int(np.ptp(columns)) + 1


def test_tiles_have_the_shape_of_the_photograph_and_the_planted_colours(root: Path, tmp_path: Path) -> None:
    panel = make_panel(images(root, ids=["$x_1$/00000"]), ("input", "pca"))
    save_panel(panel, Style("planted"), tmp_path / "a.png")
    picture = np.array(Image.open(tmp_path / "a.png").convert("RGB"))
    assert (picture[[0, -1]] == 255).all()
    assert (picture[:, [0, -1]] == 255).all()
    for kind, at in enumerate(((1, 1), (1, 4), (4, 1), (4, 4))):
        colour = tuple(int(v) for v in panel.rows[0].tiles[2][at])
        height, width = crop_of(picture[:, picture.shape[1] * 2 // 3 :], colour)
        assert abs(height - 37.5) <= 1.5, kind
        assert abs(width - 75) <= 1.5


def test_a_middle_square_shows_the_middle_of_the_photograph(root: Path) -> None:
    (squashed,), (middle,) = (images(root, f"clips/planted/{version}", ids=["$x_1$/00000"]) for version in ("v1", "v3"))
    assert squashed.photograph.shape == (60, 120, 3)
    assert middle.photograph.shape == (60, 60, 3)
    assert (squashed.photograph[..., 0] == 255).mean() == 0.5
    assert not (middle.photograph[..., 0] == 255).any()


def test_grids_may_differ_and_lie_on_their_photographs(tmp_path: Path) -> None:
    folder, store = tmp_path / "marks", tmp_path / "store"
    folder.mkdir()
    for name, (height, width) in {"tall": (160, 80), "wide": (80, 160)}.items():
        pixels = np.zeros((height, width, 3), np.uint8)
        pixels[: height // 2] = (250, 0, 0)
        Image.fromarray(pixels).save(folder / f"{name}.png")
    index_dataset(store, "marks", folder)
    build_version(store, Request("marks", "mean_patches"), decomposer((64, 64), "keep"))
    panel = make_panel(images(store, "marks/mean_patches/v1", variants=("raw",)), ("input", "norm", "similarity"))
    for row in panel.rows:
        photograph, norms, _ = row.tiles
        assert (norms.shape[0] > norms.shape[1]) == (photograph.shape[0] > photograph.shape[1])
        assert row.aspect == photograph.shape[0] / photograph.shape[1]
        np.testing.assert_allclose(norms[: len(norms) // 2 - 1], 250 / 255, atol=2e-3)
        np.testing.assert_allclose(norms[-(len(norms) // 2 - 1) :], 0, atol=2e-3)
    with pytest.raises(InputError, match=r"--patch 9,0 is outside of the \d×\d+ patches of wide"):
        make_panel(images(store, "marks/mean_patches/v1", variants=("raw",)), ("similarity",), patch=(9, 0))


@pytest.mark.parametrize("ending", ["png", "svg", "pdf"])
def test_the_same_command_writes_the_same_bytes(root: Path, tmp_path: Path, ending: str) -> None:
    made = []
    for name in ("one", "two"):
        path = tmp_path / f"{name}.{ending}"
        said = done("figure", "clips/planted/v1", "--limit", 1, "--output", path, "--dpi", 40, "--root", root)
        assert "1 image of clips/planted/v1" in said.out
        made.append(path.read_bytes())
    assert made[0] == made[1]
    assert made[0].startswith({"png": b"\x89PNG", "svg": b"<?xml", "pdf": b"%PDF"}[ending])
    if ending == "svg":
        text = made[0].decode()
        for word in ("$x_1$/00000", "clips/planted/v1", "similarity", "artifact + residual"):
            assert word in text


def test_what_is_not_stored_is_left_out_and_said(root: Path, tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    said = done("figure", "clips/planted/v2", "--output", path, "--dpi", 40, "--root", root)
    assert said.err == "left out, not stored: clean, artifact, residual\n"
    told = json.loads(done("figure", "clips/planted/v2", "duck/00002", "--json", "--output", path, "--root", root).out)
    assert told["images"] == ["duck/00002"]
    assert told["columns"] == ["input", "raw PCA", "raw k-means", "raw norm", "raw similarity"]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("clips/planted/v1", "duck/00009"), "no image 'duck/00009'; the nearest names: duck/0000"),
        (("clips/planted/v9",), "no version 'clips/planted/v9'"),
        (("clips/planted/v1", "--columns", "pca,nose"), "unknown column 'nose'"),
        (("clips/planted/v1", "--variants", "nose"), "unknown variant 'nose'"),
        (("clips/planted/v1", "--variants", ""), "name a variant at least"),
        (("clips/planted/v1", "--columns", ""), "nothing to show of raw"),
        (("clips/planted/v2", "--variants", "clean"), "does not store clean"),
        (("clips/planted/v1", "--patch", "6,0"), "--patch 6,0 is outside of the 6×6 patches"),
        (("clips/planted/v1", "--where", "nose = 1"), "--where 'nose = 1': Referenced column \"nose\" not found"),
        (("clips/planted/v1", "--where", "false"), "no stored image of clips/planted/v1 is left by --where 'false'"),
        (("clips/planted/v1", "duck/00002", "--where", "true"), "give one or the other"),
        (("clips/planted/v1", "--output", "a.jpg"), "give a name that ends in .png, .svg or .pdf"),
        (("clips/planted/v1", "--output", "nowhere/a.png"), "there is no folder"),
    ],
)
def test_errors_are_one_line(root: Path, tmp_path: Path, words: tuple[str, ...], said: str) -> None:
    path = tmp_path / "a.png"
    found = call("figure", "--output", path, *words, "--root", root)
    assert found.code == 1
    assert said in found.err
    assert found.err.count("\n") == 1
    assert not path.exists()


def test_frames_come_in_order_with_one_basis(root: Path, tmp_path: Path) -> None:
    chosen = choose_sequence(root, "clips/planted/v1", "duck", None, ("raw", "clean"))
    assert [entry.image_id for entry in chosen.entries] == ["duck/00001", "duck/00002", "duck/00003"]
    seen: dict[int, set[bytes]] = {}
    drawn = list(frames_of(chosen, 60))
    assert {frame.size for frame in drawn} == {drawn[0].size}
    assert all(side % 2 == 0 for side in drawn[0].size)
    for number, frame in enumerate(drawn, 1):
        pixels = np.array(frame)
        top, height = (26, 120) if number == 1 else (26 + 30, 60)  # a square frame lies in the middle of an upright one
        assert (pixels[26 : top - 1] == 255).all()
        for left in (8 + 68, 8 + 2 * 68):
            places = ((0.4, 20), (0.4, 50), (0.6, 20), (0.6, 50))
            for kind, (down, across) in zip(np.roll(np.arange(4), number), places, strict=True):
                seen.setdefault(int(kind), set()).add(pixels[top + int(down * height), left + across].tobytes())
    assert [len(colours) for colours in seen.values()] == [1] * 4
    assert len(chosen.evenly(2)) == 2
    assert len(chosen.evenly(SAMPLED)) == 3


@pytest.mark.parametrize("ending", ["webp", "gif"])
def test_videos_play_at_their_rate(root: Path, tmp_path: Path, ending: str) -> None:
    path = tmp_path / f"a.{ending}"
    done("video", "clips/planted/v1", "--part", "duck", "--fps", 5, "--width", 80, "--output", path, "--root", root)
    first = path.read_bytes()
    with Image.open(path) as video:
        assert (video.n_frames, video.info["loop"]) == (3, 0)
        shown = []
        for frame, drawn in enumerate(
            frames_of(choose_sequence(root, "clips/planted/v1", "duck", None, ("raw", "clean")), 80)
        ):
            video.seek(frame)
            video.load()
            assert video.info["duration"] == 200
            shown.append(np.abs(np.array(video.convert("RGB"), int) - np.array(drawn, int)).mean())
        assert max(shown) < 6
    done("video", "clips/planted/v1", "--part", "duck", "--fps", 5, "--width", 80, "--output", path, "--root", root)
    assert path.read_bytes() == first


def test_mp4_is_handed_to_ffmpeg_frame_by_frame(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program = tmp_path / "bin" / "ffmpeg"
    program.parent.mkdir()
    program.write_text(f'#!/bin/sh\necho "$@" > {tmp_path}/said\nfor last; do :; done\ncat > "$last"\n')
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{program.parent}:/usr/bin:/bin")
    frames = [Image.new("RGB", (8, 6), colour) for colour in ("red", "blue")]
    assert save_video(iter(frames), tmp_path / "a.mp4", 12.5) == 2
    assert (tmp_path / "a.mp4").read_bytes() == b"".join(frame.tobytes() for frame in frames)
    assert "-s 8x6 -r 12.5" in (tmp_path / "said").read_text()
    program.write_text("#!/bin/sh\ncat > /dev/null\necho 'Unknown encoder libx264' >&2\nexit 1\n")
    with pytest.raises(InputError, match=r"ffmpeg cannot write it \(Unknown encoder libx264\)"):
        save_video(iter(frames), tmp_path / "b.mp4", 12.5)
    assert not (tmp_path / "b.mp4").exists()


@pytest.fixture
def without_ffmpeg(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "which", lambda name: None)
    monkeypatch.setitem(sys.modules, "imageio_ffmpeg", None)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--output", "a.mp4"), 'MP4 needs ffmpeg: pip install "featstore-dvt[video]"'),
        (("--output", "a.avi"), "give a name that ends in .webp, .gif or .mp4"),
        (("--part", "goose"), "holds no sequence 'goose'; there are: $x_1$, duck"),
        ((), "holds 2 sequences: choose one by --part"),
    ],
)
@pytest.mark.usefixtures("without_ffmpeg")
def test_videos_that_cannot_be_made(root: Path, tmp_path: Path, words: tuple[str, ...], said: str) -> None:
    found = call("video", "clips/planted/v1", "--output", tmp_path / "a.gif", *words, "--root", root)
    assert found.code == 1
    assert said in found.err
    assert found.err.count("\n") == 1
