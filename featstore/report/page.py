"""The page: facts, drawings and pictures put into the template, and the file written."""

import json
import re
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cache
from importlib.metadata import PackageNotFoundError
from importlib.metadata import version as installed
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from featstore.compute import VARIANTS
from featstore.figure import check_format
from featstore.sealing import storing, write_text

from .evaluated import make_tables
from .facts import Facts, read_facts
from .gallery import RANKINGS, make_gallery
from .histogram import Histogram, make_histogram, number
from .norms import measure_norms
from .wording import recipe_words

if TYPE_CHECKING:
    from jinja2 import Template

__all__ = ["Report", "write_report"]

ENDINGS = (".html", ".htm")
TITLES = {
    "norm_min": "smallest raw norm",
    "norm_median": "median raw norm",
    "norm_max": "largest raw norm",
    "cos_raw_clean": "cosine of raw and clean",
    "heldout_r2": "held-out R²",
    "heldout_cos": "held-out cosine",
    "artifact_share": "artifact’s share of variance",
    "residual_share": "residual’s share of variance",
    "smooth": "smoothness λ",
    "seconds": "seconds an image",
}
FEW = 10
"""Images that a histogram is drawn of at least: of fewer the table tells all."""
SOFTWARE = ("featstore-dvt", "python", "torch", "timm", "numpy", "pillow", "h5py", "duckdb")
TOLD = {"git": "Git revision", "device": "Device", "weights_source": "Weights from", "command": "Command"}
"""What of the provenance is software, and what the rest is called."""
LISTED, CLASSES = 200, 30
"""Lines of a long table, and of that of classes."""
Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Report:
    """What was written; ``pictures`` are images shown, ``lost`` those of them whose photographs cannot be read."""

    version: str
    output: str
    bytes: int
    pictures: list[str]
    lost: list[str]


def write_report(
    root: Path, name: str, output: Path | None = None, images: int = 4, now: datetime | None = None
) -> Report:
    """Write the report of a version into one HTML file that loads nothing, with pictures of ``images`` worst and best.

    Without ``output`` it is named after the version, ``voc-dinov2_s-v1.html``. All but ``now`` (UTC) is decided by the store.
    Raises NotInStoreError for an unknown version, InputError where no file can be there, CorruptError for a shard that cannot
    be read, StoreError where the disk refuses.
    """
    if output is not None:
        check_format(output, ENDINGS)
    facts = read_facts(root, name, tuple(RANKINGS), images)
    output = output or Path(facts.version.name.replace("/", "-") + ENDINGS[0])
    norms, sampled = measure_norms(root, facts)
    groups, bars = make_gallery(root, facts, images)
    context = told(facts, now or datetime.now(UTC)) | {
        "norms": norms,
        "sampled": sampled,
        "groups": groups,
        "bars": bars,
    }
    text = template().render(context)
    with storing(output):
        write_text(output, text)
    shown = [picture for group in groups for picture, _ in group.pictures]
    names, lost = ([one.image_id for one in some] for some in (shown, [one for one in shown if one.lost]))
    return Report(facts.version.name, str(output), len(text.encode()), names, lost)


@cache
def template() -> "Template":
    """Return the template; whatever is put in is escaped."""
    from jinja2 import Environment, PackageLoader, StrictUndefined

    environment = Environment(
        loader=PackageLoader(__package__),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"number": number, "duration": duration, "moment": moment}
    environment.globals |= {"LISTED": LISTED, "CLASSES": CLASSES}
    return environment.get_template("report.html")


def told(facts: Facts, now: datetime) -> dict[str, Any]:
    """Return what the template tells besides norms and pictures."""
    variants = [name for name in VARIANTS if any(name in shard["variants"] for shard in facts.shards)]
    provenance = facts.told["provenance"]
    return {
        "facts": facts,
        "version": facts.version,
        "told": facts.told,
        "variants": variants,
        "bytes": sum(shard["bytes"] for shard in facts.shards),
        "grids": grids_of(facts),
        "words": recipe_words(facts.told, variants, facts.denoisers),
        "recipe": json_text(facts.told["recipe"]),
        "software": [(name, provenance[name]) for name in SOFTWARE if name in provenance],
        "provenance": [
            (TOLD.get(key, key), value) for key, value in provenance.items() if key not in (*SOFTWARE, "reproduce")
        ],
        "again": provenance.get("reproduce"),
        "titles": TITLES,
        "heading": RANKINGS[facts.ranking][0] if facts.ranking else "Pictures",
        "charts": charts_of(facts),
        "statistics": [(name, figures_of(values)) for name, values in facts.values.items()],
        "tables": make_tables(facts.evaluations),
        "peers": any(row["peer"] for row in facts.evaluations),
        "program": program(),
        "now": now,
    }


def json_text(value: Any) -> str:
    """Return JSON over several lines, each list of numbers or words on one."""
    text = json.dumps(value, indent=2, ensure_ascii=False, sort_keys=True)
    return re.sub(r"\[\n[^\[\]{}]*\]", lambda found: re.sub(r"\n\s*", " ", found[0]), text)


def grids_of(facts: Facts) -> list[tuple[str, int]]:
    """Return how many samples are on each grid, the most frequent first."""
    counts: dict[str, int] = {}
    for shard in facts.shards:
        grid = f"{shard['grid_height']}×{shard['grid_width']}"
        counts[grid] = counts.get(grid, 0) + shard["samples"]
    return sorted(counts.items(), key=lambda pair: (-pair[1], pair[0]))


def charts_of(facts: Facts) -> list[Histogram]:
    """Return the histogram of each statistic that differs from image to image, what ranks them first."""
    names = sorted(facts.values, key=lambda name: name != facts.ranking)
    drawn = [name for name in names if len(facts.values[name]) >= FEW and np.ptp(facts.values[name]) > 0]
    return [make_histogram(TITLES[name], facts.values[name], "images") for name in drawn]


def figures_of(values: Floats) -> tuple[str, ...]:
    """Return smallest, median, mean and largest of a statistic."""
    return tuple(number(float(f(values))) for f in (np.min, np.median, np.mean, np.max))


def duration(seconds: float) -> str:
    """Return a time in words."""
    for unit, size in (("days", 86400.0), ("hours", 3600.0), ("minutes", 60.0)):
        if seconds >= 2 * size:
            return f"{seconds / size:.1f} {unit}"
    return f"{seconds:.1f} s"


def moment(when: datetime | None) -> str:
    """Return a time (UTC) as a reader wants it."""
    return "" if when is None else f"{when:%Y-%m-%d %H:%M} UTC"


def program() -> str:
    """Return this program's version."""
    try:
        return installed("featstore-dvt")
    except PackageNotFoundError:
        return "unknown"
