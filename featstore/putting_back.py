"""Repair without computing: shards back under their names, recipes back into their folders, sealed shards into the list."""

import hashlib
import os
from collections.abc import Iterator, Sequence
from pathlib import Path

from . import manifest
from .drafts import whole_digest
from .errors import FeatstoreError
from .findings import Action, Finding
from .listed import listed_shards
from .places import as_remote
from .registry import PATTERN, commit_shard
from .sealing import discard, publish, temporary_for, write_text
from .shard import read_contents
from .versions import Version, list_versions

__all__ = ["list_sealed", "move_back", "restore_recipes"]


def move_back(root: Path, findings: Sequence[Finding], dry_run: bool) -> list[Action]:
    """Give whole shards that lie under another's name their own again, also where they have changed places."""
    if as_remote(root) is not None:
        return []  # files cannot be linked there; they are copied as they are written again
    with manifest.reading(root) as connection:
        owners = {shard.checksum: shard.path for shard in listed_shards(connection) if shard.checksum}
    moves: dict[str, str] = {}
    for finding in findings:
        digest = whole_digest(root / finding.path) if finding.kind in ("swapped", "unlisted") else None
        target = owners.get(digest) if digest else None
        if target and target not in (finding.path, *moves.values()) and whole_digest(root / target) != digest:
            moves[finding.path] = target
    if not dry_run:
        exchange(root, moves)
    return [Action("moved", target, f"was {path}", same=True) for path, target in moves.items()]


def exchange(root: Path, moves: dict[str, str]) -> None:
    """Move files to each other's names; killed on the way, it has lost none that nothing else could give back."""
    links = {}
    try:
        for path, target in moves.items():
            links[target] = temporary_for(root / target)
            os.link(root / path, links[target])
        for target, link in links.items():
            publish(link, root / target)
    finally:
        for link in links.values():
            if link.exists():
                link.unlink()
            discard(link)
    for path in moves.keys() - {*moves.values()}:
        (root / path).unlink()


def list_sealed(root: Path, findings: Sequence[Finding], dry_run: bool) -> list[Action]:
    """List whole shards that the manifest does not, as the next build would."""
    with manifest.reading(root) as connection:
        digests = {version.digest for version in list_versions(connection)}
    actions = []
    for path in [root / finding.path for finding in findings if finding.kind == "unlisted"]:
        try:
            contents = read_contents(path)
        except FeatstoreError:
            continue
        header = contents.header
        folder = f"{header.dataset}/{header.backbone}/{header.digest[:12]}"
        name = path.relative_to(root).as_posix()
        if header.digest not in digests or name.rpartition("/")[0] != folder or whole_digest(path) is None:
            continue
        if not dry_run:
            commit_shard(root, path, contents, {})
        actions.append(Action("listed", name, f"{len(contents.image_ids)} samples"))
    return actions


def restore_recipes(root: Path, findings: Sequence[Finding], dry_run: bool) -> list[Action]:
    """Write each recipe that is gone or changed again, from wherever its text is still that of its digest."""
    if not any(finding.kind == "recipe" for finding in findings):
        return []
    with manifest.reading(root) as connection:
        versions = list_versions(connection)
        told = dict(connection.execute("SELECT version_id, recipe FROM versions").fetchall())
    actions = []
    for version in versions:
        path = root / version.dataset / version.backbone / version.digest[:12] / "recipe.json"
        texts = texts_of(path, str(told[version.version_id]))
        text = next((text for text in texts if hashlib.sha256(text.encode()).hexdigest() == version.digest), None)
        if text is None:
            continue
        name = path.relative_to(root).as_posix()
        if any(finding.path == name for finding in findings):
            actions.append(Action("restored", name, f"the recipe of {version.name}", same=True))
            if not dry_run:
                write_text(path, text)
        if told[version.version_id] != text:
            actions.append(Action("restored", manifest.FILE, f"the recipe of {version.name}", same=True))
            if not dry_run:
                keep_recipe(root, version, text)
    return actions


def texts_of(path: Path, told: str) -> Iterator[str]:
    """Yield what may be a version's recipe: the manifest's, the folder's, those inside the shards."""
    yield told
    if path.is_file():
        yield path.read_bytes().decode("utf-8", "replace")
    for shard in sorted(path.parent.glob(PATTERN)):
        try:
            yield read_contents(shard).header.recipe
        except FeatstoreError:
            continue


def keep_recipe(root: Path, version: Version, text: str) -> None:
    """Write a version's recipe into the manifest."""
    with manifest.writing(root) as connection:
        connection.execute("UPDATE versions SET recipe = ? WHERE version_id = ?", [text, version.version_id])
