"""The reference of the command line is complete, and as the code has it."""

import re
import shlex
from pathlib import Path
from typing import TypeGuard

import click
import generate
import pytest
from click.testing import CliRunner
from commands_page import DEFAULT, commands, commands_page, examples

from featstore.cli.main import cli

COMMANDS = dict(commands())
every_command = pytest.mark.parametrize("name", COMMANDS)


@pytest.fixture(scope="module")
def page() -> str:
    return commands_page()


def parse(line: str) -> None:
    """Let click parse a command line, down to the command itself, and run nothing."""
    words = shlex.split(line)[1:]
    command: click.Command = cli
    while isinstance(command, click.Group):
        command = command.commands[words.pop(0)]
    command.make_context(command.name, words)


@pytest.mark.parametrize("path", generate.PAGES, ids=lambda path: path.name)
def test_pages_made_from_the_code_are_up_to_date(path: Path) -> None:
    if not path.exists() or path.read_text(encoding="utf-8") != generate.PAGES[path]():
        pytest.fail(f"docs/{path.name} is not what the code says now: run `{generate.COMMAND}`", pytrace=False)


def test_the_page_is_the_same_wherever_it_is_made(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    before = commands_page()
    monkeypatch.setenv("COLUMNS", "40")
    monkeypatch.setenv("FEATSTORE_ROOT", str(tmp_path))
    monkeypatch.setenv("LC_ALL", "C")
    monkeypatch.chdir(tmp_path)
    assert commands_page() == before
    assert str(tmp_path) not in before


@every_command
def test_the_page_has_every_option_that_the_help_has(name: str, page: str) -> None:
    told = CliRunner().invoke(cli, [*name.split()[1:], "--help"], terminal_width=110).output
    options = set(re.findall(r"^  (?:-\w, )?(--[\w-]+)", told, re.MULTILINE)) - {"--help"}
    section = page.split(f"\n## {name}\n")[1].split("\n## ")[0]
    assert options == set(re.findall(r"^\| `(--[\w-]+)", section, re.MULTILINE))


@every_command
def test_every_command_has_examples_that_parse(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "cat.jpg").touch()
    monkeypatch.chdir(tmp_path)
    lines = [line.replace("*.jpg", "cat.jpg") for line in examples(COMMANDS[name])]
    assert any(re.search(rf"{name}\b", line) for line in lines), "its help has no example"
    for line in lines:
        if line.startswith("featstore "):
            parse(line)


def test_every_option_has_a_help_text() -> None:
    options = [(name, param) for name, command in COMMANDS.items() for param in command.params if is_option(param)]
    assert [(name, param.opts) for name, param in options if not DEFAULT.sub("", param.help or "").strip()] == []


def is_option(param: click.Parameter) -> TypeGuard[click.Option]:
    return isinstance(param, click.Option)


def test_what_exits_with_3_says_when() -> None:
    told = re.compile(r"exit\s+code\s+(is\s+)?3", re.IGNORECASE)
    codes = {name: getattr(command.callback, "__annotations__", {}).get("return") for name, command in COMMANDS.items()}
    assert [name for name, code in codes.items() if code is int and not told.search(COMMANDS[name].help or "")] == []


def test_every_argument_is_in_the_prose() -> None:
    for name, command in COMMANDS.items():
        for param in command.params:
            if isinstance(param, click.Argument):
                words = re.findall(r"[A-Z]+", param.metavar or str(param.name).upper())
                assert any(re.search(rf"\b{word}", command.help or "", re.IGNORECASE) for word in words), (name, words)
