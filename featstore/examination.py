"""Look into one shard: is it what the manifest lists, and is every stored sample what was written?"""

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from .contents import ShardContents, read_contents
from .errors import CorruptError, InputError
from .findings import Finding
from .layout import PREFIX
from .listed import ListedShard, stored_images, sum_column
from .quantise import DERIVABLE, residual_of
from .reading import ShardReader
from .versions import STATISTICS

__all__ = ["examine", "stored_sums"]

KEPT = tuple(name for name in STATISTICS if name != "seconds")
"""The statistics that a shard holds: what depends on the clock is in the manifest alone."""
Row = Mapping[str, Any]
"""One row of ``features``."""


def examine(
    root: Path, listed: ListedShard, rows: Sequence[Row], advance: Callable[[int], None], samples: bool = True
) -> list[Finding]:
    """Hold a shard's tables against the manifest's rows of it and, with ``samples``, every map against its checksum."""
    path = root / listed.path
    try:
        contents = read_contents(path, sealed=False)
    except CorruptError as error:
        return [Finding("unreadable", listed.path, str(error))]
    found = list(check_header(contents, listed))
    if any(finding.kind == "foreign" for finding in found):
        return found
    found += check_rows(root, contents, listed, rows)
    if samples:
        found += check_samples(path, contents, listed, advance)
    return found


def check_header(contents: ShardContents, listed: ListedShard) -> Iterator[Finding]:
    """Yield in what a shard's own description differs from its version's."""
    header = contents.header
    if header.digest != listed.digest:
        told = f"it belongs to recipe {header.digest[:12]} of {header.dataset}/{header.backbone}"
        yield Finding("foreign", listed.path, f"{told}, not to {listed.digest[:12]}")
    elif hashlib.sha256(header.recipe.encode()).hexdigest() != header.digest:
        yield Finding("table", listed.path, "the recipe inside is not that of its digest")
    pairs: list[tuple[str, object, object]]
    pairs = [("data set", header.dataset, listed.dataset), ("backbone", header.backbone, listed.backbone)]
    pairs += [("variants", header.variants, listed.variants), ("samples", len(contents.image_ids), listed.samples)]
    if listed.grid is not None:
        pairs += [("grid", header.grid, listed.grid), ("channels", header.channels, listed.channels)]
        pairs += [("prefix tokens", header.prefix_tokens, listed.prefix_tokens)]
    if listed.own_grid is not None:
        pairs.append(("grid of its own row", header.grid, listed.own_grid))
    for name, inside, said in pairs:
        if inside != said:
            yield Finding("table", listed.path, f"{name}: the shard says {inside}, the manifest {said}")


def check_rows(root: Path, contents: ShardContents, listed: ListedShard, rows: Sequence[Row]) -> Iterator[Finding]:
    """Yield in what the manifest's rows differ from the shard's tables, and samples that no row points to."""
    count, sums = len(contents.sha256s), stored_sums(contents)
    seen = set()
    for row in rows:
        number = row["shard_row"]
        seen.add(number)
        if not 0 <= number < count:
            yield Finding("table", listed.path, f"the manifest has row {number}, the shard only {count} samples")
            continue
        wrong = [] if row["sha256"] == contents.sha256s[number] else ["sha256"]
        wrong += [name for name, values in sums.items() if row[sum_column(name)] != int(values[number])]
        for name in KEPT:
            inside = contents.stats[name][number] if name in contents.stats else np.nan
            if np.isfinite(inside) if row[name] is None else np.float32(row[name]) != inside:
                wrong.append(name)
        if wrong:
            text = f"{', '.join(wrong)} of row {number} ({contents.image_ids[number]}): the manifest has others"
            yield Finding("table", listed.path, text, (number,))
    missing = sorted(set(range(count)) - seen)
    if missing and not listed.removed:
        yield from unlisted_rows(root, contents, listed, missing)


def unlisted_rows(root: Path, contents: ShardContents, listed: ListedShard, rows: Sequence[int]) -> Iterator[Finding]:
    """Yield samples to which no row of the manifest points: lost ones, and those that a newer shard holds instead."""
    known = stored_images(root, listed.digest, [contents.sha256s[row] for row in rows])
    lost = tuple(row for row in rows if contents.sha256s[row] not in known)
    if lost:
        first = contents.image_ids[lost[0]]
        yield Finding("table", listed.path, f"{len(lost)} samples that the manifest does not list, first {first}", lost)
    if len(lost) < len(rows):
        told = tuple(sorted({*rows} - {*lost}))
        yield Finding("superseded", listed.path, f"{len(told)} of {listed.samples} samples", told)


def stored_sums(contents: ShardContents) -> dict[str, Any]:
    """Return the shard's checksums (N,) by data set."""
    sums = dict(zip(contents.header.variants, contents.checksums.T, strict=True))
    return sums if contents.prefix_checksums is None else sums | {PREFIX: contents.prefix_checksums}


def check_samples(
    path: Path, contents: ShardContents, listed: ListedShard, advance: Callable[[int], None]
) -> Iterator[Finding]:
    """Yield samples whose checksum or whose sum of parts does not hold; one sample is in memory at a time."""
    try:
        reader = ShardReader(path)
    except CorruptError as error:
        yield Finding("unreadable", listed.path, str(error))
        return
    sums = stored_sums(contents)
    for row, image_id in enumerate(contents.image_ids):
        wrong, parts = [], {}
        for name in reader.shapes:
            try:
                parts[name] = reader.read(name, row, int(sums[name][row]) if name in sums else None)
            except CorruptError:
                wrong.append(name)
        if wrong:
            yield Finding("sample", listed.path, f"{', '.join(wrong)} of row {row} ({image_id})", (row,))
        elif "residual" in parts and parts.keys() >= set(DERIVABLE) and not adds_up(parts):
            yield Finding("residual", listed.path, f"row {row} ({image_id})", (row,))
        advance(1)


def adds_up(parts: Mapping[str, Any]) -> bool:
    """Whether the stored residual is what the other three leave over."""
    try:
        return bool(np.array_equal(parts["residual"], residual_of(*(parts[name] for name in DERIVABLE))))
    except InputError:
        return False
