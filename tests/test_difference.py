"""Two versions held against each other: what the manifest says, and distances against plain numpy on planted maps."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from fakes import Maps, make_folder
from numpy.typing import NDArray
from tinystore import call, done, rows

from featstore.build import build_version
from featstore.compute import PARTS
from featstore.difference import ABSENT, compare_versions
from featstore.errors import CorruptError, NotInStoreError
from featstore.index import index_dataset
from featstore.plan import Request


@dataclass
class Planted:
    """Maps drawn for each image and each part, on any grid; clean is raw, a little off."""

    grid: tuple[int, int] = (4, 5)
    width: int = 8
    seed: int = 0
    backbone: Mapping[str, Any] | None = None
    variants: tuple[str, ...] = PARTS
    prefix_tokens: int = 2
    method, forwards_per_image, batch_size = "stage1/planted", 64, 4

    def recipe(self) -> dict[str, Any]:
        backbone = {"id": "planted", "size": list(self.grid), "width": self.width, **(self.backbone or {})}
        return {"backbone": backbone, "method": {"name": "stage1", "seed": self.seed, "tokens": self.prefix_tokens}}

    def prepare(self, image: NDArray[np.uint8], key: str) -> str:
        return key

    def decompose(self, prepared: Sequence[str]) -> list[Maps]:
        return [self.one(key) for key in prepared]

    def one(self, key: str) -> Maps:
        drawn = np.random.default_rng([int(key[:8], 16), self.seed])
        raw, clean, artifact = drawn.normal(0, 1, (3, *self.grid, self.width)).astype(np.float32)
        prefix = drawn.normal(0, 1, (self.prefix_tokens, self.width)).astype(np.float32)
        return Maps(raw, clean if "clean" in self.variants else None, artifact, prefix, {})


@pytest.fixture
def root(tmp_path: Path) -> Path:
    index_dataset(tmp_path / "store", "pets", make_folder(tmp_path / "pets", count=10))
    return tmp_path / "store"


def build(root: Path, decomposer: Planted, name: str = "pets", **options: Any) -> str:
    report = build_version(root, Request(name, "planted", shard_size=3, **options), decomposer)
    return f"{name}/planted/{report.version}"


def shas(root: Path, name: str = "pets") -> list[str]:
    return sorted({row[0] for row in rows(root, f"SELECT sha256 FROM current_images WHERE dataset = '{name}'")})


def half(values: NDArray[Any]) -> NDArray[np.float64]:
    return values.astype(np.float16).astype(np.float64)


def plain(pairs: list[tuple[NDArray[np.float64], NDArray[np.float64]]]) -> tuple[float, float, float]:
    """Cosine, relative L2 and largest difference, the slow way: everything in one array."""
    one, two = (np.concatenate([pair[side].reshape(-1, pair[0].shape[-1]) for pair in pairs]) for side in (0, 1))
    cosines = [float(a @ b / np.linalg.norm(a) / np.linalg.norm(b)) for a, b in zip(one, two, strict=True)]
    return (
        float(np.mean(cosines)),
        float(np.sqrt(((two - one) ** 2).mean() / (one**2).mean())),
        float(abs(two - one).max()),
    )


def test_distances_are_those_of_plain_numpy(root: Path) -> None:
    first, second = Planted(seed=1), Planted(seed=2)
    found = compare_versions(root, build(root, first), build(root, second))
    assert (found.both, found.sampled, found.same_recipe) == (10, 10, False)
    assert [distance.variant for distance in found.distances] == [*PARTS, "prefix_tokens"]
    for distance in found.distances:
        pairs = []
        for key in shas(root):
            maps = [
                half(getattr(side.one(key), distance.variant.replace("_tokens", ""), None))
                if distance.variant != "residual"
                else residual(side.one(key))
                for side in (first, second)
            ]
            pairs.append((maps[0], maps[1]))
        expected = plain(pairs)
        assert (distance.cosine, distance.relative_l2, distance.largest) == pytest.approx(expected, rel=1e-9)
        assert (distance.images, distance.note) == (10, "")


def residual(maps: Maps) -> NDArray[np.float64]:
    assert maps.clean is not None
    assert maps.artifact is not None
    return half(half(maps.raw) - half(maps.clean) - half(maps.artifact))


@pytest.mark.parametrize("count", [1, 4])
def test_the_sample_is_the_first_images_by_their_bytes(root: Path, count: int) -> None:
    first, second = Planted(seed=1), Planted(seed=2)
    found = compare_versions(root, build(root, first), build(root, second), images=count)
    pairs = [(half(first.one(key).raw), half(second.one(key).raw)) for key in shas(root)[:count]]
    raw = found.distances[0]
    assert (raw.variant, raw.images) == ("raw", count)
    assert (raw.cosine, raw.relative_l2, raw.largest) == pytest.approx(plain(pairs), rel=1e-9)


def bilinear(values: NDArray[np.float64], rows: list[float], columns: list[float], centres: Any) -> NDArray[np.float64]:
    """Read a map off at places one by one, its own places being ``centres`` (rows, columns)."""
    out = np.zeros((len(rows), len(columns), values.shape[2]))
    for i, y in enumerate(rows):
        for j, x in enumerate(columns):
            line = [
                np.interp(x, centres[1], values[k, :, c]) for c in range(values.shape[2]) for k in range(len(values))
            ]
            table = np.array(line).reshape(values.shape[2], len(values))
            out[i, j] = [np.interp(y, centres[0], table[c]) for c in range(values.shape[2])]
    return out


def test_the_second_is_resampled_where_grids_differ(root: Path) -> None:
    first, second = Planted(seed=1), Planted(grid=(7, 3), seed=2)
    found = compare_versions(root, build(root, first), build(root, second), images=3)
    cells = [[(k + 0.5) / n for k in range(n)] for n in (4, 5, 7, 3)]
    pairs = [
        (half(first.one(key).raw), bilinear(half(second.one(key).raw), cells[0], cells[1], cells[2:]))
        for key in shas(root)[:3]
    ]
    raw = found.distances[0]
    assert (raw.cosine, raw.relative_l2, raw.largest) == pytest.approx(plain(pairs), rel=1e-9)
    assert raw.note == "the second (7×3) is resampled bilinearly at the first's patch centres (4×5)"
    assert found.distances[-1].variant == "prefix_tokens"
    assert found.distances[-1].note == ""


def test_overlapping_patches_lie_where_their_stride_puts_them(root: Path) -> None:
    """Patches of 14 pixels at stride 14 and at stride 7 over 56 x 70: the 7 x 9 grid has centres at 7, 14, … pixels."""
    sides = {"input": [56, 70]}
    first, second = (
        Planted(seed=1, backbone=sides | {"stride": 14}),
        Planted((7, 9), seed=2, backbone=sides | {"stride": 7}),
    )
    found = compare_versions(root, build(root, first), build(root, second), images=2)
    # Every centre of the first grid is one of the second's: 7 + 14 i = 7 + 7 (2 i).
    pairs = [(half(first.one(key).raw), half(second.one(key).raw)[::2, ::2]) for key in shas(root)[:2]]
    raw = found.distances[0]
    assert (raw.cosine, raw.relative_l2, raw.largest) == pytest.approx(plain(pairs), rel=1e-9)


def test_a_smooth_field_is_the_same_on_both_grids() -> None:
    from featstore.resampling import Resampler, centres_of

    def plane(grid: tuple[int, int]) -> NDArray[np.float64]:
        rows, columns = centres_of("raw", grid, {"input": [140, 140], "stride": 140 // grid[0]})
        return np.stack([np.add.outer(3 * rows, -2 * columns), np.add.outer(rows, columns)], axis=-1)

    fine, coarse = (20, 20), (5, 5)
    places = [centres_of("raw", grid, {"input": [140, 140], "stride": 140 // grid[0]}) for grid in (fine, coarse)]
    np.testing.assert_allclose(Resampler(*places)(plane(fine)), plane(coarse), atol=1e-12)


def test_other_widths_and_tokens_have_no_distance_and_a_reason(root: Path) -> None:
    first = build(root, Planted())
    wide = compare_versions(root, first, build(root, Planted(width=6)))
    assert {(d.cosine, d.note) for d in wide.distances} == {(None, "8 and 6 channels cannot be compared")}
    tokens = compare_versions(root, first, build(root, Planted(prefix_tokens=1, seed=3)))
    assert tokens.distances[-1].note == "2 and 1 tokens cannot be compared"
    assert tokens.distances[0].cosine is not None


def test_parameters_provenance_images_and_variants(root: Path, tmp_path: Path) -> None:
    one = build(root, Planted(seed=1), environment={"torch": "2.4", "device": "cpu"}, limit=7)
    two = build(
        root,
        Planted(seed=2, backbone={"stride": 14}),
        variants=("raw",),
        environment={"torch": "2.5", "device": "cpu"},
        where="label = 'cats'",
    )
    found = compare_versions(root, one, two, images=None)
    entries = {entry.name: (entry.first, entry.second) for entry in found.parameters}
    assert entries == {"method.seed": (1, 2), "backbone.stride": (ABSENT, 14)}
    assert {entry.name: (entry.first, entry.second) for entry in found.provenance} == {"torch": ("2.4", "2.5")}
    ids = [{row[0] for row in rows(root, f"SELECT image_id FROM stored WHERE version = '{v}'")} for v in ("v1", "v2")]
    assert found.images == (len(ids[0]), len(ids[1])) == (7, 5)
    assert found.both == len(ids[0] & ids[1])
    assert found.only == (tuple(sorted(ids[0] - ids[1])), tuple(sorted(ids[1] - ids[0])))
    assert found.variants == (dict.fromkeys([*PARTS, "prefix_tokens"], 7), {"raw": 5, "prefix_tokens": 5})
    assert [distance.variant for distance in found.distances] == ["raw", "prefix_tokens"]
    assert {distance.images for distance in found.distances} == {found.both}


def test_a_data_set_that_shares_files_has_the_same_features(root: Path, tmp_path: Path) -> None:
    make_folder(tmp_path / "others", count=6)
    index_dataset(root, "others", tmp_path / "others")
    found = compare_versions(root, build(root, Planted()), build(root, Planted(), "others"))
    shared = len(set(shas(root)) & set(shas(root, "others")))
    assert shared
    assert (found.both, found.same_recipe) == (shared, True)
    assert {(round(d.cosine or 0, 12), d.relative_l2, d.largest) for d in found.distances} == {(1.0, 0.0, 0.0)}


def test_damage_is_told_and_unknown_versions_are(root: Path) -> None:
    first, second = build(root, Planted(seed=1)), build(root, Planted(seed=2))
    with pytest.raises(NotInStoreError, match="no version 'v9'"):
        compare_versions(root, first, "v9")
    path = root / str(rows(root, "SELECT min(path) FROM shards")[0][0])
    with h5py.File(path) as file:
        place = file["raw"].id.get_chunk_info(0).byte_offset
    with path.open("r+b") as raw:
        raw.seek(place + 40)
        raw.write(b"\x55\x55")
    with pytest.raises(CorruptError, match="not what was written"):
        compare_versions(root, first, second)


def test_the_command_tells_it_in_words_and_in_json(root: Path) -> None:
    build(root, Planted(seed=1), environment={"torch": "2.4"}, limit=7)
    build(root, Planted((7, 3), seed=2), environment={"torch": "2.5"})
    said = done("diff", "pets/planted/v1", "v2", "--images", 3, "--root", root)
    for words in ("method.seed", "torch", "7 in both", "3 only in pets/planted/v2", "over 3 images", "resampled"):
        assert words in said.out
    facts = json.loads(done("diff", "v1", "v2", "--images", "all", "--json", "--root", root).out)
    assert (facts["both"], facts["sampled"], len(facts["distances"])) == (7, 7, 5)
    facts = json.loads(done("diff", "v1", "v1", "--images", 0, "--json", "--root", root).out)
    assert (facts["same_recipe"], facts["distances"]) == (True, [])
    assert call("diff", "v1", "v2", "--images", "some", "--root", root).code == 2
    assert call("diff", "v1", "v8", "--root", root).code == 1
