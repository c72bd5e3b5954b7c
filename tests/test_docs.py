"""The README tells the truth: its commands exist with those options, its files are there."""

import re
import shlex
from pathlib import Path
from typing import Any

import click
import pytest

from featstore.cli.main import cli

REPOSITORY = Path(__file__).parents[1]
PAGES = [REPOSITORY / "README.md", *sorted((REPOSITORY / "docs").glob("*.md"))]
SCREENSHOTS = {"view.png": "of a page in a browser, after a click; its commands stand above it"}
PICTURE = re.compile(r"!\[[^\]]*\]\(([^)]+)\)")
every_page = pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(REPOSITORY).as_posix())


def text_of(page: Path) -> str:
    return page.read_text(encoding="utf-8")


def shell_lines(page: Path) -> list[str]:
    blocks = re.findall(r"^```sh\n(.*?)^```", text_of(page), re.DOTALL | re.MULTILINE)
    return [line for block in blocks for line in block.splitlines() if line]


def featstore_calls(page: Path) -> list[list[str]]:
    parts = [part for line in shell_lines(page) for part in line.split("&&")]
    return [shlex.split(part)[1:] for part in parts if part.strip().startswith("featstore ")]


@every_page
def test_every_command_of_a_page_parses(page: Path) -> None:
    for name, *rest in featstore_calls(page):
        with cli.commands[name].make_context(name, rest) as context:
            assert isinstance(context, click.Context)


def test_every_command_is_in_the_readme() -> None:
    shown = {arguments[0] for arguments in featstore_calls(PAGES[0])}
    assert shown == set(cli.commands)


def test_ci_runs_the_readmes_own_test_command() -> None:
    assert 'python -m pip install -e ".[test]" && pytest' in shell_lines(PAGES[0])
    assert "README.md" in (REPOSITORY / ".ci" / "run").read_text(encoding="utf-8")


@every_page
def test_pictures_are_made_by_commands_of_their_page(page: Path) -> None:
    commands = " ".join(shell_lines(page))
    for picture in PICTURE.findall(text_of(page)):
        assert picture in SCREENSHOTS or Path(picture).name in commands, f"{picture}: no command of the page makes it"


@every_page
def test_what_a_page_points_to_is_there(page: Path) -> None:
    for target in re.findall(r"\]\((?!https?:)([^)]+)\)", text_of(page)):
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


@every_page
def test_python_blocks_compile(page: Path) -> None:
    if page.name != "api.md":  # which has signatures
        for block in re.findall(r"^```python\n(.*?)^```", text_of(page), re.DOTALL | re.MULTILINE):
            if not block.startswith(" "):  # a line of some file
                compile(block, page.name, "exec")


READERS = (
    *(("voc/dinov2_b/v2", "pets/fake"), ("voc/clip_b", "pets/other"), ("voc/dinov2_b", "voc/fake")),
    *(("crop=(16, 16)", "crop=(2, 2)"), ("batch_size=16", "batch_size=2")),
)
"""What makes the examples fit the small store."""


@pytest.mark.parametrize("page", [PAGES[0], REPOSITORY / "docs" / "training.md"], ids=lambda page: page.name)
def test_examples_of_reading_run(page: Path, readable: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FEATSTORE_ROOT", str(readable))
    told: dict[str, Any] = {}
    for block in re.findall(r"^```python\n(.*?)^```", text_of(page), re.DOTALL | re.MULTILINE):
        for name, small in READERS:
            block = block.replace(name, small)
        if "nn.Sequential" in block:  # the head has names of its own
            head: dict[str, Any] = {}
            exec(compile(block, page.name, "exec"), head)
            assert 0 <= float(head["iou"].nanmean()) <= 1
            assert int(head["counts"].sum()) > 0
        else:
            exec(compile(block, page.name, "exec"), told)
    assert tuple(told["batch"]["clean"].shape[1:]) == (8, 2, 2)
    assert told["batch"]["mask"].shape[0] == told["batch"]["clean"].shape[0]
    if "both" in told:
        assert {"dino/raw", "clip/clean"} <= told["both"][0].keys()
