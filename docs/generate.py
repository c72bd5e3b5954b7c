"""Write the pages of docs/ that are made from the code: ``python docs/generate.py``."""

from collections.abc import Callable
from pathlib import Path

from api_page import api_page
from commands_page import commands_page
from manifest_page import manifest_page

__all__ = ["COMMAND", "PAGES", "main"]

COMMAND = "python docs/generate.py"
FOLDER = Path(__file__).parent
PAGES: dict[Path, Callable[[], str]] = {
    FOLDER / "api.md": api_page,
    FOLDER / "commands.md": commands_page,
    FOLDER / "manifest.md": manifest_page,
}


def main() -> None:
    """Write every page that differs, and name it."""
    for path, make in PAGES.items():
        text = make()
        if not path.exists() or path.read_text(encoding="utf-8") != text:
            path.write_text(text, encoding="utf-8")
            print(f"wrote {path.relative_to(FOLDER.parent)}")


if __name__ == "__main__":
    main()
