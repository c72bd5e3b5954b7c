"""One import in a process of its own, slowed down, for the test that kills it."""

import sys
import time
from pathlib import Path

from featstore.exchange.imports import ImportRequest, import_version
from featstore.shard import ShardContents, ShardWriter

if __name__ == "__main__":
    seal = ShardWriter.seal

    def slow(self: ShardWriter) -> ShardContents:
        contents = seal(self)
        print("sealed", flush=True)
        time.sleep(0.3)
        return contents

    ShardWriter.seal = slow  # type: ignore[method-assign]
    import_version(Path(sys.argv[1]), ImportRequest(Path(sys.argv[2]), "pets", "b", shard_size=1))
