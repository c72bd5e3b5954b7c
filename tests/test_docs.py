"""The README tells the truth: its commands exist with those options, its files are there."""

import re
import shlex
from pathlib import Path

import click
import pytest

from featstore.cli.main import cli

REPOSITORY = Path(__file__).parents[1]
README = (REPOSITORY / "README.md").read_text(encoding="utf-8")
COMMANDS = [line for block in re.findall(r"```sh\n(.*?)```", README, re.DOTALL) for line in block.splitlines() if line]


def featstore_calls() -> list[list[str]]:
    parts = [part for line in COMMANDS for part in line.split("&&")]
    return [shlex.split(part)[1:] for part in parts if part.strip().startswith("featstore ")]


@pytest.mark.parametrize("arguments", featstore_calls(), ids=" ".join)
def test_every_command_of_the_readme_parses(arguments: list[str]) -> None:
    name, *rest = arguments
    command = cli.commands[name]
    with command.make_context(name, rest, resilient_parsing=False) as context:
        assert isinstance(context, click.Context)


def test_every_command_is_in_the_readme() -> None:
    shown = {arguments[0] for arguments in featstore_calls()}
    assert shown == set(cli.commands)


def test_ci_runs_the_readmes_own_test_command() -> None:
    assert 'python -m pip install -e ".[test]" && pytest' in COMMANDS
    assert "README.md" in (REPOSITORY / ".ci" / "run").read_text(encoding="utf-8")


PAGES = [REPOSITORY / "README.md", *sorted((REPOSITORY / "docs").glob("*.md"))]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(REPOSITORY).as_posix())
def test_what_a_page_points_to_is_there(page: Path) -> None:
    for target in re.findall(r"\]\((?!https?:)([^)]+)\)", page.read_text(encoding="utf-8")):
        path, _, anchor = target.partition("#")
        file = page.parent / path if path else page
        assert file.exists(), target
        assert not anchor or anchor in anchors(file), target


def anchors(page: Path) -> set[str]:
    """Return the anchors of a page's headings, as GitHub makes them."""
    headings = re.findall(r"^#+ (.+)$", page.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def test_every_page_is_in_the_index() -> None:
    index = (REPOSITORY / "docs" / "README.md").read_text(encoding="utf-8")
    assert {path.name for path in PAGES} - {"README.md"} == set(re.findall(r"\]\(([\w-]+\.md)\)", index))


def test_python_blocks_compile() -> None:
    for block in re.findall(r"```python\n(.*?)```", README, re.DOTALL):
        compile(block, "README.md", "exec")
