"""One build in a process of its own, for the test that kills it."""

import sys
from pathlib import Path

from fakes import FakeDecomposer

from featstore.build import build_version
from featstore.plan import Request

if __name__ == "__main__":
    print("started", flush=True)
    build_version(Path(sys.argv[1]), Request("pets", "fake", shard_size=3), FakeDecomposer(pause=0.03))
