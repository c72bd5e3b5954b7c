"""One build in a process of its own, for the test that kills it."""

import sys

from fakes import FakeDecomposer

from featstore.build import build_version
from featstore.plan import Request
from featstore.root import resolve_root

if __name__ == "__main__":
    print("started", flush=True)
    build_version(resolve_root(sys.argv[1]), Request("pets", "fake", shard_size=3), FakeDecomposer(pause=0.03))
