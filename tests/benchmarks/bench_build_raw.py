"""How close `build --method raw` comes to the model alone.

Peer, in the same run: timm's own forward over the same images, already decoded and resized, same model, dtype and batch.
The two take turns, so that a machine whose speed drifts does not favour one. Limit: at least 0.9 of the peer's images/s.

    python tests/benchmarks/bench_build_raw.py FOLDER [--images 24] [--batch 4] [--rounds 3] [--input 518]
"""

import argparse
import statistics
import tempfile
import time
from pathlib import Path

import torch

from dvt import Backbone, RawDecomposer
from dvt.preprocess import normalise
from featstore.build import build_version
from featstore.images import decode
from featstore.index import index_dataset
from featstore.plan import Request
from featstore.query import restricted


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--images", type=int, default=24)
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--input", type=int, default=518)
    options = parser.parse_args()
    backbone = Backbone.create("dinov2_s", weights="random", input_size=(options.input, options.input))
    decomposer = RawDecomposer(backbone, options.batch)
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        index_dataset(root, "bench", options.folder)
        with restricted(root, "bench") as connection:
            found = connection.execute("SELECT path FROM images ORDER BY image_id LIMIT ?", [options.images]).fetchall()
        pixels = [decomposer.prepare(decode((options.folder / row[0]).read_bytes()), "") for row in found]
        batches = [torch.stack(pixels[i : i + options.batch]) for i in range(0, len(pixels), options.batch)]
        inputs = [normalise(batch, backbone.mean, backbone.std, backbone.device) for batch in batches]
        rates: dict[str, list[float]] = {"bare": [], "build": []}
        for number in range(options.rounds + 1):
            started = time.perf_counter()
            with torch.inference_mode():
                for batch in inputs:
                    backbone.model.forward_features(batch)  # type: ignore[operator]
            bare = len(pixels) / (time.perf_counter() - started)
            build_root = root / f"store-{number}"
            index_dataset(build_root, "bench", options.folder)
            started = time.perf_counter()
            report = build_version(build_root, Request("bench", backbone.id, limit=len(pixels)), decomposer)
            built = report.computed / (time.perf_counter() - started)
            if number:  # the first round warms up
                rates["bare"].append(bare)
                rates["build"].append(built)
                print(f"round {number}: bare {bare:.3f} images/s, build {built:.3f}, ratio {built / bare:.3f}")
    ratios = [b / a for a, b in zip(rates["bare"], rates["build"], strict=True)]
    print(
        f"device {backbone.device}, input {options.input}, batch {options.batch}, {len(pixels)} images, {backbone.dtype}"
    )
    print(f"median ratio {statistics.median(ratios):.3f} (limit 0.9)")


if __name__ == "__main__":
    main()
