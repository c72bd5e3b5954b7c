"""The folder of an export: who may write into it, and what it says of itself."""

import json
import shutil
from collections.abc import Iterable, Sequence
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

from featstore.errors import CorruptError, InputError, StoreError
from featstore.sealing import discard, flush, publish, storing, sweep, temporary_for, write_text

__all__ = ["ABOUT", "BEGUN", "Folder", "about_of"]

ABOUT = "featstore.json"
BEGUN = ".featstore-export.json"
"""Stands in an export that is not finished: what is being exported, so that another is not mixed into it."""

PASSING = ("owns", "read", "provenance", "source", "software")
RESERVE = 64 * 2**20
"""Bytes left free on the disk."""


class Folder:
    """The folder that one export writes, file by file: each is whole under its name, or not there."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.about: dict[str, Any] = {}

    def claim(self, about: dict[str, Any], owns: Sequence[str], resume: bool, overwrite: bool) -> bool:
        """Make the folder this export's; returns whether that export lies there already, finished.

        ``about`` is all that decides its bytes, ``owns`` are patterns of the names it makes. Raises InputError where the
        folder holds anything else and neither is allowed: to go on with the same export, or to replace an export.
        """
        self.about = about
        with storing(self.path):
            self.path.mkdir(parents=True, exist_ok=True)
            sweep(self.path)
        found = sorted(entry.name for entry in self.path.iterdir())
        if not found:
            self.begin()
            return False
        finished, begun = read_json(self.path / ABOUT), read_json(self.path / BEGUN)
        if overwrite:
            self.empty(found, finished or begun)
            self.begin()
            return False
        mine = finished or begun
        if not mine:
            raise InputError(f"{self.path} is not empty, and no export of featstore: give a folder of its own")
        if identity(mine) != identity(about):
            raise InputError(
                f"{self.path} holds another export ({told(mine)}): give another folder, or --overwrite to replace it"
            )
        if not resume:
            state = "lies there already" if finished else "was begun there"
            raise InputError(f"this export {state}, in {self.path}: --resume goes on with it, --overwrite starts anew")
        return bool(finished)

    def begin(self) -> None:
        """Say whose the folder is from now on."""
        with storing(self.path):
            write_text(self.path / BEGUN, text_of(self.about))

    def end(self) -> None:
        """Say that everything is there."""
        with storing(self.path):
            write_text(self.path / ABOUT, text_of(self.about))
            (self.path / BEGUN).unlink(missing_ok=True)

    def empty(self, found: Iterable[str], mine: dict[str, Any] | None) -> None:
        """Remove an earlier export and nothing else; raises InputError where there is anything else."""
        owns = [ABOUT, BEGUN, *(mine or {}).get("owns", ())]
        foreign = [name for name in found if not any(fnmatch(name, pattern) for pattern in owns)]
        if foreign:
            more = f" and {len(foreign) - 1} more" if len(foreign) > 1 else ""
            raise InputError(
                f"{self.path} holds {foreign[0]}{more}, which no export wrote: --overwrite leaves it alone"
            )
        with storing(self.path):
            for name in sorted(found, key=lambda name: name in (ABOUT, BEGUN)):  # the marks last, if this is cut short
                place = self.path / name
                shutil.rmtree(place) if place.is_dir() and not place.is_symlink() else place.unlink()

    def move(self, old: str, new: str) -> None:
        """Give a folder that is whole its name."""
        with storing(self.path):
            (self.path / old).replace(self.path / new)
            flush(self.path)

    def put(self, name: str) -> "Pending":
        """Return what a file or folder is written through before it gets its name; a context manager."""
        return Pending(self.path, name)

    def write(self, name: str, data: bytes | str) -> None:
        """Write one whole file or nothing; raises StoreError where the disk refuses."""
        with self.put(name) as temporary:
            temporary.write_bytes(data if isinstance(data, bytes) else data.encode())

    def require_room(self, size: int) -> None:
        """Raise StoreError where the disk has not ``size`` bytes free."""
        free = shutil.disk_usage(self.path).free
        if free < size + RESERVE:
            raise StoreError(
                f"{self.path} has {free / 1e9:.1f} GB free and the export takes {size / 1e9:.1f} GB: "
                "make room, choose another --output, or take less with --variants, --where or --limit"
            )


class Pending:
    """One file on its way: a temporary path on entering, its name on leaving, nothing where the block raises."""

    def __init__(self, folder: Path, name: str) -> None:
        self.path = folder / name
        self.temporary = folder / name
        self.folder = folder

    def __enter__(self) -> Path:
        # Temporary files lie in the top folder, whatever folder the file goes to: there they are swept.
        self.temporary = temporary_for(self.folder / self.path.name)
        return self.temporary

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> None:
        if kind is None:
            try:
                with storing(self.path):
                    self.path.parent.mkdir(parents=True, exist_ok=True)
                    publish(self.temporary, self.path)
            except BaseException:
                discard(self.temporary)
                raise
            return
        discard(self.temporary)
        if isinstance(error, (OSError, RuntimeError)) and not isinstance(error, (StoreError, NotImplementedError)):
            with storing(self.path):
                raise error


def about_of(folder: Path) -> dict[str, Any] | None:
    """Return what a finished export says of itself, None where the folder is none.

    Raises InputError for an export that is not finished, CorruptError for one whose words cannot be read.
    """
    found = read_json(folder / ABOUT)
    if found is None and (folder / BEGUN).exists():
        raise InputError(f"the export in {folder} is not finished: run it again with --resume first")
    return found


def read_json(path: Path) -> dict[str, Any] | None:
    """Return a JSON object, None where there is no such file; raises CorruptError where it is none of ours."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        raise CorruptError(f"{path} cannot be read ({error}): move it away") from error
    if not isinstance(found, dict) or "featstore_export" not in found:
        raise CorruptError(f"{path} was not written by featstore: move it away")
    return found


def identity(about: dict[str, Any]) -> dict[str, Any]:
    """Return what tells one export from another: not where it lies, nor what later builds of the version added."""
    return {key: value for key, value in about.items() if key not in PASSING}


def text_of(about: dict[str, Any]) -> str:
    """Return what an export says of itself, as it is written."""
    return json.dumps(about, indent=1, ensure_ascii=False, sort_keys=True) + "\n"


def told(about: dict[str, Any]) -> str:
    """Say in words what an export is."""
    what = f"{about.get('version')} as {about.get('format')}, {about.get('images')} images"
    return f"{what}, {', '.join(about.get('arrays', ()))}"
