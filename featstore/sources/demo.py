"""Six photographs that come inside packages: no download, no licence to accept."""

import sys
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

from featstore.errors import SourceError
from featstore.records import ImageRecord, Meaning, Problem

__all__ = ["DemoSource"]

PHOTOGRAPHS = {
    "astronaut": ("skimage", "data/astronaut.png"),
    "cat": ("skimage", "data/chelsea.png"),
    "coffee": ("skimage", "data/coffee.png"),
    "flower": ("sklearn", "datasets/images/flower.jpg"),
    "rocket": ("skimage", "data/rocket.jpg"),
    "temple": ("sklearn", "datasets/images/china.jpg"),
}

INSTALL = 'python -m pip install -e ".[demo]"'


class DemoSource:
    """Photographs of scikit-image and scikit-learn."""

    layout = "demo"
    expects = f"the extra `demo`: {INSTALL}"
    holds: tuple[str, ...] = ()
    home: Path | None = Path(sys.prefix)

    def detect(self, folder: Path) -> bool:
        """Never: it is asked for by name."""
        return False

    def read(self, folder: Path) -> Iterator[ImageRecord | Problem]:
        """Yield the photographs with absolute paths; raises SourceError where a package is missing."""
        for image_id, (package, name) in PHOTOGRAPHS.items():
            spec = find_spec(package)  # does not import the package
            places = list(spec.submodule_search_locations or []) if spec else []
            path = next((Path(place) / name for place in places if (Path(place) / name).is_file()), None)
            if path is None:
                raise SourceError(f"the demo photographs are not installed: {INSTALL}")
            yield ImageRecord(image_id, path.as_posix())

    def meaning(self, folder: Path) -> Meaning:
        """There are no masks."""
        return Meaning()
