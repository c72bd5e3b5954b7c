"""One import in a process of its own, slowed down, for the test that kills it."""

import sys
import time
from pathlib import Path

import featstore.build
from featstore.exchange.imports import ImportRequest, import_version

if __name__ == "__main__":
    commit = featstore.build.commit_shard

    def slow(*arguments: object, **options: object) -> None:
        commit(*arguments, **options)  # type: ignore[arg-type]
        print("sealed", flush=True)
        time.sleep(0.3)

    featstore.build.commit_shard = slow  # type: ignore[assignment]
    import_version(Path(sys.argv[1]), ImportRequest(Path(sys.argv[2]), "pets", "b", shard_size=1))
