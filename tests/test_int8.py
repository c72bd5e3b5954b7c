"""Features in one byte: the bound, against plain numpy in float64, on features as ViTs give them and on spoilt ones."""

import hashlib
import json
import shlex
import shutil
import subprocess
import sys
from dataclasses import replace
from importlib.resources import files
from pathlib import Path

import h5py
import jsonschema
import numpy as np
import pytest
from fakes import GRID, WIDTH, FakeDecomposer, make_folder
from numpy.typing import NDArray
from tinystore import MODEL, STAGE1, call, done, make_trained, photographs

from featstore import halves, int8
from featstore.build import build_version
from featstore.dataset import FeatureDataset
from featstore.errors import CorruptError, InputError
from featstore.index import index_dataset
from featstore.plan import Request, make_plan
from featstore.quantise import residual_of
from featstore.reading import ShardReader
from featstore.verify import verify_store
from featstore.versions import describe_version

REQUEST = Request("pets", "fake", store="int8")
HALF = 2.0**-11
"""Half a unit in the last place of a float16, relative."""


def like_a_vit(seed: int, outliers: int = 0, shape: tuple[int, int, int] = (6, 7, 32)) -> NDArray[np.float16]:
    """Tokens of few dimensions with unequal channels; some of them forty times as long and in a direction of their own."""
    drawn = np.random.default_rng(seed)
    tokens = drawn.normal(0, 1, (shape[0] * shape[1], 8)) @ drawn.normal(0, 1, (8, shape[2])) + drawn.normal(
        0, 2, shape[2]
    )
    tokens *= np.exp(drawn.normal(0, 1, shape[2]))
    for place in range(outliers):
        tokens[place * 5] = 40 * np.linalg.norm(tokens[20]) / shape[2] ** 0.5 * drawn.normal(0, 1, shape[2])
    return tokens.reshape(shape).astype(np.float16)


def constant() -> NDArray[np.float16]:
    values = like_a_vit(3)
    values[..., 4] = 0.0
    return values


def spoilt() -> dict[str, NDArray[np.float16]]:
    largest = np.full((3, 3, 4), 65504, np.float16)
    largest[::2] *= -1
    tiny = np.random.default_rng(5).integers(0, 2, (3, 4, 8)).astype(np.float16) * np.float16(2.0**-24)
    nothing = like_a_vit(4)
    nothing[2, 3] = 0
    return {
        "ordinary": like_a_vit(1),
        "outliers": like_a_vit(2, 4),
        "channel of zeros": constant(),
        "one value": np.full((5, 4, 8), 1.7, np.float16),
        "zeros": np.zeros((2, 2, 3), np.float16),
        "a token of zeros": nothing,
        "largest": largest,
        "smallest": tiny,
        "one token": like_a_vit(6, shape=(1, 1, 16)),
        "one channel": like_a_vit(7, shape=(4, 4, 1)),
        "no token": np.zeros((0, 4, 8), np.float16),
    }


def decoded(codes: NDArray[np.int8], affine: NDArray[np.float32]) -> NDArray[np.float16]:
    """The formula of the schema in plain numpy."""
    height, width, channels = codes.shape
    scale, offset = affine[:channels], affine[channels : 2 * channels]
    norm = affine[2 * channels :].reshape(height, width, 1)
    return np.clip(norm * (scale * codes.astype(np.float32) + offset), -65504, 65504).astype(np.float16)


def cosines(a: NDArray[np.float16], b: NDArray[np.float16]) -> NDArray[np.float64]:
    x, y = (m.reshape(-1, m.shape[-1]).astype(np.float64) for m in (a, b))
    return (x * y).sum(axis=1) / (np.linalg.norm(x, axis=1) * np.linalg.norm(y, axis=1))


@pytest.mark.parametrize("name", spoilt())
def test_no_value_is_off_by_more_than_half_a_step_and_float16(name: str) -> None:
    values = spoilt()[name]
    codes, affine = int8.encode(values)
    assert codes.dtype == np.int8
    assert affine.dtype == np.float32
    assert np.isfinite(affine).all()
    assert affine.shape == (int8.affine_length(values.shape),)
    back = int8.decode(codes, affine)
    np.testing.assert_array_equal(back, decoded(codes, affine))
    assert np.isfinite(back).all()
    channels = values.shape[-1]
    scale, norm = affine[:channels].astype(np.float64), affine[2 * channels :].reshape(*values.shape[:2], 1)
    steps = norm * scale / 2
    error = np.abs(back.astype(np.float64) - values.astype(np.float64))
    # Beside float16's rounding (2^-25 where numbers are below its normal ones), float32 rounds four times on the way.
    assert (error <= steps + (HALF + 2.0**-21) * (np.abs(values.astype(np.float64)) + steps) + 2.0**-25).all()
    with np.errstate(invalid="ignore", divide="ignore"):
        directions = values.astype(np.float64) / np.linalg.norm(values.astype(np.float64), axis=-1, keepdims=True)
    if values.size:
        spans = np.nanmax(directions, axis=(0, 1), initial=-1) - np.nanmin(directions, axis=(0, 1), initial=1)
        np.testing.assert_allclose(scale, np.maximum(spans, 0) / 255, rtol=1e-4, atol=1e-9)  # nothing is clipped off


def test_zeros_and_constants_are_exact() -> None:
    for name in ("zeros", "a token of zeros", "one value"):
        values = spoilt()[name]
        back = int8.decode(*int8.encode(values))
        still = (values == 0).all(axis=-1) if name != "one value" else np.ones(values.shape[:2], bool)
        np.testing.assert_array_equal(back[still], values[still])


def test_long_tokens_do_not_take_the_direction_of_the_others() -> None:
    values = like_a_vit(2, 4)
    norms = np.linalg.norm(values.astype(np.float64), axis=-1)
    assert norms.max() > 20 * np.median(norms)
    assert cosines(values, int8.decode(*int8.encode(values))).min() > 0.9995
    low, high = values.astype(np.float64).min(axis=(0, 1)), values.astype(np.float64).max(axis=(0, 1))
    plain = low + np.rint((values - low) / (high - low) * 255) * (high - low) / 255  # one range a channel, no norm
    assert cosines(values, plain.astype(np.float16)).min() < 0.999


def test_a_window_is_that_part_of_the_whole() -> None:
    codes, affine = int8.encode(like_a_vit(1, 2))
    window = (slice(1, 4), slice(2, 7))
    np.testing.assert_array_equal(int8.decode(codes, affine, window), int8.decode(codes, affine)[window])


def test_numpy_alone_decodes_to_the_same_bits(tmp_path: Path) -> None:
    """PyTorch rounds where a program has it loaded; a program without it reads the same features."""
    codes, affine = int8.encode(like_a_vit(8, 3, (37, 37, 48)))
    import torch  # noqa: F401 - so that it is loaded

    with_torch = int8.decode(codes, affine)
    np.savez(tmp_path / "x.npz", codes=codes, affine=affine, back=with_torch)
    script = (
        "import sys, numpy as np\nfrom featstore import int8\nx = np.load(sys.argv[1])\n"
        "assert 'torch' not in sys.modules\n"
        "print(int8.decode(x['codes'], x['affine']).tobytes() == x['back'].tobytes())"
    )
    run = [sys.executable, "-c", script, str(tmp_path / "x.npz")]
    assert subprocess.run(run, check=True, capture_output=True, text=True).stdout.split() == ["True"]
    every = np.arange(2**16, dtype=np.uint16).view(np.float16)
    exact = every[np.isfinite(every)].astype(np.float32)
    between = (exact[1:].astype(np.float64) + exact[:-1]) / 2  # ties, of neighbours in order of their bits
    values = np.concatenate([exact, between, np.nextafter(between, 0), np.nextafter(between, 1e9)]).astype(np.float32)
    out = np.empty(values.shape, np.float16)
    halves.narrow_into(out, values)
    np.testing.assert_array_equal(out.view(np.uint16), values.astype(np.float16).view(np.uint16))


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("int8")
    index_dataset(folder / "store", "pets", make_folder(folder / "pets"))
    build_version(folder / "store", REQUEST, FakeDecomposer(fine_grid=(3, 7)))
    build_version(folder / "store", replace(REQUEST, store="float16"), FakeDecomposer(fine_grid=(3, 7)))
    return folder / "store"


def shards(root: Path, version: int) -> list[Path]:
    return sorted(Path(describe_version(root, f"pets/fake/v{version}")["folder"]).glob("shard-*.h5"))


def test_it_is_another_version_and_half_the_size(root: Path) -> None:
    fine = FakeDecomposer(fine_grid=(3, 7))
    eight, sixteen = (make_plan(root, replace(REQUEST, store=store), fine) for store in ("int8", "float16"))
    assert (eight.present, sixteen.present) == (6, 6)
    assert eight.recipe.digest != sixteen.recipe.digest
    assert eight.recipe.parameters() == sixteen.recipe.parameters() | {"store": int8.RECIPE}
    schema = json.loads((files("featstore.schemas") / "recipe.schema.json").read_text(encoding="utf-8"))
    jsonschema.validate(eight.recipe.parameters()["store"], schema["properties"]["store"])
    assert eight.variants == ("raw", "clean", "artifact", "clean_fine")
    todo = replace(eight, todo=make_plan(root, REQUEST, FakeDecomposer(scale=2.0)).todo)
    written = 0
    for path in shards(root, 1):
        with h5py.File(path) as file:
            written += sum(file[name].nbytes for name in eight.variants)
            written += sum(file[f"affine/{name}"].nbytes for name in eight.variants) + file["prefix_tokens"].nbytes
    assert todo.bytes_to_write == written


def test_the_residual_is_what_the_decoded_parts_leave(root: Path) -> None:
    data = FeatureDataset(
        root, "pets", backbone="fake", version="v1", variants=("raw", "clean", "artifact", "residual")
    )
    whole = FeatureDataset(
        root, "pets", backbone="fake", version="v2", variants=("raw", "clean", "artifact", "residual")
    )
    for item, exact in zip(data, whole, strict=True):
        raw, clean, artifact, residual = (item[name].numpy() for name in ("raw", "clean", "artifact", "residual"))
        np.testing.assert_array_equal(residual, residual_of(raw, clean, artifact))
        total = clean.astype(np.float64) + artifact + residual
        assert (np.abs(total - raw) <= HALF * np.abs(residual) + 2.0**-25).all()
        np.testing.assert_allclose(raw, exact["raw"].numpy(), atol=0.1)
    with pytest.raises(InputError, match="int8 stores no residual"):
        make_plan(root, replace(REQUEST, variants=("raw", "residual")), FakeDecomposer())


def test_checksums_are_of_what_is_stored(root: Path) -> None:
    path = shards(root, 1)[0]
    with h5py.File(path) as file:
        variants = json.loads(file.attrs["variants"])
        for column, name in enumerate(variants):
            data = file[name][1].tobytes() + file[f"affine/{name}"][1].tobytes()
            assert file["checksum"][1, column] == int.from_bytes(
                hashlib.blake2b(data, digest_size=8).digest(), "little"
            )
    reader = ShardReader(path)
    for part in ("clean", "affine/clean"):
        place = reader.chunks[part].place(1)
        assert place is not None
        data = bytearray(path.read_bytes())
        data[place[0] + 3] ^= 1
        damaged = path.with_name("damaged.h5")
        damaged.write_bytes(data)
        with pytest.raises(CorruptError, match="clean of row 1 is not what was written"):
            ShardReader(damaged, verify=True).read("clean", 1)
        ShardReader(damaged, verify=True).read("clean", 0)
        damaged.unlink()


def test_verify_holds_codes_and_their_rows_against_the_checksums(root: Path, tmp_path: Path) -> None:
    store = tmp_path / "store"
    shutil.copytree(root, store)
    assert verify_store(store).findings == ()
    path = shards(store, 1)[0]
    place = ShardReader(path).chunks["affine/artifact"].place(0)
    assert place is not None
    data = bytearray(path.read_bytes())
    data[place[0]] ^= 1
    path.write_bytes(data)
    assert any("artifact of row 0" in finding.text for finding in verify_store(store).findings)


FOREIGN = """
import sys, h5py, numpy as np
with h5py.File(sys.argv[1]) as f:
    codes, row = f["clean"], 1
    scale, offset, norm = np.split(f["affine/clean"][row], [f.attrs["channels"], 2 * f.attrs["channels"]])
    clean = (norm.reshape(*codes.shape[1:3], 1) * (scale * codes[row] + offset)).astype("float16")
    print(codes.dtype, codes.attrs["decode"])
np.save(sys.argv[2], clean)
assert not any(name.startswith("featstore") for name in sys.modules)
"""


def test_plain_h5py_decodes_it_as_the_data_set_says(root: Path, tmp_path: Path) -> None:
    path = shards(root, 1)[0]
    run = subprocess.run(
        [sys.executable, "-c", FOREIGN, str(path), str(tmp_path / "x.npy")], capture_output=True, text=True, check=True
    )
    assert run.stdout.startswith(
        f"int8 scale, offset, norm = split(affine/clean[n], [{WIDTH}, {2 * WIDTH}]); norm * (scale"
    )
    np.testing.assert_array_equal(np.load(tmp_path / "x.npy"), ShardReader(path).read("clean", 1))
    assert ShardReader(path).read("clean", 1).shape == (*GRID, WIDTH)
    assert ShardReader(path).read("prefix_tokens", 1).dtype == np.float16
    with h5py.File(path) as file:
        assert file["prefix_tokens"].dtype == np.float16
        assert (file.attrs["store"], file.attrs["codec"]) == ("int8", "none")


def test_the_command_that_a_version_tells_makes_it_again(tmp_path: Path) -> None:
    source, kept = photographs(tmp_path / "pets", range(3)), ("--store", "int8", "--compress", "lz4")
    done("build", "pets", "--source", source, *STAGE1, *kept, "--root", tmp_path / "a")
    told = describe_version(tmp_path / "a", "v1")
    command = shlex.split(told["provenance"]["reproduce"])
    assert command[command.index("--store") + 1] == "int8"
    assert "--compress" not in command
    done("index", "pets", "--source", source, "--root", tmp_path / "b")
    done(*command[1:], "--device", "cpu", "--root", tmp_path / "b")
    again = describe_version(tmp_path / "b", "v1")
    assert again["digest"] == told["digest"]
    assert [version["shards"][0]["codec"] for version in (told, again)] == ["int8+lz4", "int8"]
    said = done("build", "pets", *STAGE1, "--compress", "zstd", "--dry-run", "--root", tmp_path / "b").out
    assert "writing zstd, at most " in said
    assert "int8+lz4" in done("ls", "--root", tmp_path / "a").out
    assert "int8 (height" in done("show", "v1", "--root", tmp_path / "a").out
    refused = call("build", "pets", *STAGE1, "--store", "int8", "--variants", "raw,residual", "--root", tmp_path / "b")
    assert refused.code == 1
    assert "int8 stores no residual: leave it out" in refused.err


@pytest.mark.slow
def test_what_is_cleaned_from_int8_is_another_version_than_from_float16(tmp_path: Path) -> None:
    root = make_trained(tmp_path, 6)
    done("build", "pets", *MODEL, "--method", "raw", "--store", "int8", "--root", root)
    recipes = []
    for version in ("v2", "v3"):
        done("denoise", f"pets/test_vit/{version}", "--denoiser", "d1", "--device", "cpu", "--root", root)
    for version in ("v4", "v5"):
        recipes.append(describe_version(root, version)["recipe"])
    assert recipes[1] == recipes[0] | {"computed_on": int8.RECIPE}
    assert "reproduce" not in describe_version(root, "v5")["provenance"]
    schema = json.loads((files("featstore.schemas") / "recipe.schema.json").read_text(encoding="utf-8"))
    assert "computed_on" in schema["properties"]
