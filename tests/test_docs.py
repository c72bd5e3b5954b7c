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


def test_files_that_the_readme_points_to_are_there() -> None:
    for target in re.findall(r"\]\((?!https?:)([^)]+)\)", README):
        assert (REPOSITORY / target).exists(), target


def test_python_blocks_compile() -> None:
    for block in re.findall(r"```python\n(.*?)```", README, re.DOTALL):
        compile(block, "README.md", "exec")
