"""What a verification finds: one record a finding, and the report of all of them."""

from collections import Counter
from dataclasses import dataclass, field

from .contents import Failure

__all__ = ["KINDS", "Action", "Finding", "VerifyReport"]

KINDS = {
    "missing": "files that are gone",
    "size": "shards of another length than was sealed",
    "changed": "shards whose bytes are not those that were sealed",
    "swapped": "whole shards that lie under another's name",
    "foreign": "files that are no shard of their version",
    "unreadable": "shards that HDF5 cannot read",
    "sample": "stored maps that are not what was written",
    "residual": "stored residuals that are not raw - clean - artifact",
    "table": "shards and manifest that disagree",
    "manifest": "rows of the manifest that contradict each other",
    "recipe": "recipes that are not those of their digest",
    "denoiser": "denoisers that are not what was trained",
    "format 1": "shards without a digest of the whole file: their maps and tables are verified, gaps between them cannot be",
    "superseded": "samples that newer shards hold, too",
    "removed": "shards that were removed and wait for featstore gc",
    "unlisted": "files that the manifest does not list",
    "leftover": "what killed processes left",
}
"""Every kind of finding, and in words what it means; the last five are notes, not damage."""

NOTES = frozenset({"format 1", "superseded", "removed", "unlisted", "leftover"})


@dataclass(frozen=True)
class Finding:
    """One thing found. ``path`` is below the root, ``rows`` are the damaged samples of a shard where they are known."""

    kind: str
    path: str
    text: str
    rows: tuple[int, ...] = ()

    @property
    def damage(self) -> bool:
        """Whether it is damage, and not a note."""
        return self.kind not in NOTES


@dataclass(frozen=True)
class Action:
    """What was done, or would be, with one file: ``moved``, ``rewritten``, ``listed`` or ``restored``.

    Counts are samples; ``lost`` are images that cannot be read or computed any more. ``same`` tells whether the file now has
    the bytes that were sealed, None where that is not known.
    """

    deed: str
    path: str
    text: str
    copied: int = 0
    recomputed: int = 0
    lost: tuple[Failure, ...] = ()
    same: bool | None = None


@dataclass(frozen=True)
class VerifyReport:
    """What was looked at and what was found; ``bytes`` were read, with ``quick`` none."""

    root: str
    scope: str
    quick: bool
    versions: int
    shards: int
    samples: int
    bytes: int
    seconds: float
    findings: tuple[Finding, ...] = field(default=())

    @property
    def damage(self) -> list[Finding]:
        """Return what is damaged."""
        return [finding for finding in self.findings if finding.damage]

    @property
    def counts(self) -> dict[str, int]:
        """Return how many findings there are of each kind, in the order of ``KINDS``."""
        found = Counter(finding.kind for finding in self.findings)
        return {kind: found[kind] for kind in KINDS if found[kind]}
