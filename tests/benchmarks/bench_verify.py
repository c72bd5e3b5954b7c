"""How fast `featstore verify` reads a store, beside reading the same files and taking one BLAKE2b of each.

A shard is read once for the checksum of the whole file and, sample by sample, for those of its samples: twice the hashing of
the peer, in as many threads as there are cores.

    python tests/benchmarks/bench_verify.py [--images 512] [--rounds 3]
"""

import argparse
import hashlib
import statistics
import tempfile
import time
from pathlib import Path

from bench_read import make_samples, make_store

from featstore.verify import verify_store


def hashed(root: Path) -> int:
    """Read every shard and hash it; returns bytes."""
    size = 0
    for path in sorted(root.rglob("*.h5")):
        digest = hashlib.blake2b()
        with path.open("rb") as file:
            while part := file.read(2**20):
                digest.update(part)
                size += len(part)
    return size


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=512)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder) / "store"
        make_store(root, make_samples(options.images, None))
        rates: dict[str, list[float]] = {"hash": [], "verify": [], "verify --quick": []}
        for _ in range(options.rounds):
            started = time.perf_counter()
            size = hashed(root)
            rates["hash"].append(size / (time.perf_counter() - started))
            for name in ("verify", "verify --quick"):
                started = time.perf_counter()
                report = verify_store(root, quick=name != "verify")
                rates[name].append(size / (time.perf_counter() - started))
                wrong = [finding for finding in report.damage if finding.kind in ("missing", "changed", "sample")]
                if wrong:  # the made-up recipe has not its digest: that finding is right
                    raise SystemExit(f"{name} found damage where there is none: {wrong[0]}")
    for name, values in rates.items():
        ratio = statistics.median(value / peer for value, peer in zip(values, rates["hash"], strict=True))
        print(f"{name:16} {statistics.median(values) / 1e6:9.0f} MB/s  {ratio:.2f} of hashing the files")


if __name__ == "__main__":
    main()
