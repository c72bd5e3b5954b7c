"""Tags: names of a version's own, one within a data set and backbone."""

import re
from dataclasses import dataclass
from pathlib import Path

from . import manifest
from .errors import InputError, NotInStoreError
from .notes import keep_notes
from .query import viewed
from .versions import Version, find_version, list_versions

__all__ = ["Tagged", "check_tag", "tag_version"]

TAG = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
NUMBER = re.compile(r"v?\d+", re.IGNORECASE)
DIGITS = re.compile(r"[0-9a-f]{4,}", re.IGNORECASE)


@dataclass(frozen=True)
class Tagged:
    """What became of a tag: ``before`` is the version's tag so far, ``taken_from`` the version that bore the new one."""

    version: str
    tag: str | None
    before: str | None
    taken_from: str | None


def check_tag(tag: str) -> str:
    """Return a tag that cannot be taken for anything else; raises InputError otherwise."""
    if "/" in tag or not TAG.fullmatch(tag):
        raise InputError(
            f"{tag!r} cannot be a tag: use letters, digits, '.', '_' and '-', beginning with a letter or digit"
        )
    if NUMBER.fullmatch(tag):
        raise InputError(f"{tag!r} looks like a version's number: choose another tag")
    if DIGITS.fullmatch(tag):
        raise InputError(f"{tag!r} looks like the first digits of a digest: choose another tag, with a letter beyond f")
    return tag


def tag_version(
    root: Path, scope: str, name: str, tag: str | None, force: bool = False, dry_run: bool = False
) -> Tagged:
    """Give the version ``name`` of ``scope`` (dataset/backbone) a tag; None takes it off.

    ``force`` takes the tag from another version, or replaces the version's own. Raises InputError for a tag that could be taken
    for something else or, without ``force``, is in use, and NotInStoreError for an unknown version.
    """
    if tag is not None:
        check_tag(tag)
    with viewed(root) as connection:
        version = find_version(connection, f"{scope.strip('/')}/{name}" if scope else name)
        others = [one for one in list_versions(connection) if beside(one, version) and tag and one.tag == tag]
    if tag is None and version.tag is None:
        raise NotInStoreError(f"{version.name} has no tag to take off")
    taken = others[0] if others else None
    if not force:
        if taken:
            raise InputError(f"{taken.name} is tagged {tag!r} already: --force moves the tag to {version.name}")
        if tag and version.tag not in (None, tag):
            raise InputError(f"{version.name} is tagged {version.tag!r} already: --force replaces that")
    if not dry_run:
        with manifest.writing(root) as writer:
            for one, value in ((taken, None), (version, tag)):
                if one is not None:
                    writer.execute("UPDATE versions SET tag = ? WHERE version_id = ?", [value, one.version_id])
        keep_notes(root, version.dataset)
    return Tagged(version.name, tag, version.tag, taken.name if taken else None)


def beside(one: Version, other: Version) -> bool:
    """Whether two versions are of one data set and backbone, and not the same."""
    return (one.dataset, one.backbone) == (other.dataset, other.backbone) and one.version_id != other.version_id
