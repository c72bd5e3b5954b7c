"""One export in a process of its own, slowed down, for the test that kills it."""

import json
import sys
import time
from pathlib import Path

from featstore.exchange.export import ExportRequest, export_version
from featstore.exchange.source import Sample, Source, Wanted

if __name__ == "__main__":
    given = json.loads(sys.argv[2])
    read = Source.read

    def slow(self: Source, number: int) -> Sample:
        if number == 2:
            print("started", flush=True)
        time.sleep(0.1)
        return read(self, number)

    Source.read = slow  # type: ignore[method-assign]
    wanted = Wanted(**{k: tuple(v) if isinstance(v, list) else v for k, v in given.pop("wanted").items()})
    export_version(Path(sys.argv[1]), ExportRequest(wanted, **given | {"output": Path(given["output"])}))
