"""The reference of the command line, made from what click knows and from nothing else."""

import inspect
import re
from collections.abc import Iterator
from typing import Any

import click

from featstore.cli.layouts import LayoutCommand
from featstore.cli.main import cli
from featstore.sources import LAYOUTS

__all__ = ["commands", "commands_page", "examples"]

PROGRAM = "featstore"
HEAD = """# Commands

Made by `python docs/generate.py` from what `featstore COMMAND --help` shows: change it there.

Every command has `--help` (`-h`). `--debug`, anywhere in the line, shows the traceback of an error; `featstore --version`
tells the version. The root of the store is `--root`, else `$FEATSTORE_ROOT`, else `./feature-store`. A version is named
`voc/dinov2_b/v1`; its number may be a tag or the first digits of its digest, and `v1` or a tag alone do where they are
enough.

| exit code | means |
|---|---|
| 0 | done |
| 1 | an error, told in one line that says what to do |
| 2 | wrong usage |
| 3 | finished, but something failed or is damaged: the command's part says when |
| 130 | interrupted: what was sealed is kept, and the same command goes on from there |
"""
DEFAULT = re.compile(r"\s*\[default: ([^\]]*)\]")
BAR = r"\|"
TYPES = {"integer": "N", "integer range": "N", "float": "X", "float range": "X", "text": "TEXT"}
Param = click.Parameter


def commands(group: click.Group = cli, name: str = PROGRAM) -> Iterator[tuple[str, click.Command]]:
    """Yield every command that does something, by its full name, in the order of ``featstore --help``."""
    for word in group.list_commands(click.Context(group)):
        command = group.commands[word]
        if isinstance(command, click.Group):
            yield from commands(command, f"{name} {word}")
        elif not command.hidden:
            yield f"{name} {word}", command


def commands_page() -> str:
    """Return docs/commands.md."""
    found = list(commands())
    listed = "\n".join(f"| [`{name}`](#{anchor(name)}) | {first_line(command)} |" for name, command in found)
    parts = [HEAD, f"| command | what it does |\n|---|---|\n{listed}\n", *(section(*each) for each in found)]
    return "\n".join(parts)


def section(name: str, command: click.Command) -> str:
    """Return the part of one command: what it does, usage, examples, options."""
    blocks = [block for block in paragraphs(command) if block]
    shown = [shown_block(block) for block in blocks if block != "\b"]
    parts = [f"## {name}", shown[0], f"```\n{usage(name, command)}\n```", *shown[1:], options_table(command)]
    if isinstance(command, LayoutCommand):
        parts.append(layouts_table())
    return "\n\n".join(parts) + "\n"


def anchor(name: str) -> str:
    """Return the anchor that a heading gets."""
    return name.replace(" ", "-")


def first_line(command: click.Command) -> str:
    """Return the first sentence."""
    return cell(paragraphs(command)[0])


def paragraphs(command: click.Command) -> list[str]:
    """Return the paragraphs of the help; those that keep their lines begin with the character that tells click so."""
    return inspect.cleandoc(command.help or "").split("\n\n")


def shown_block(block: str) -> str:
    """Return a paragraph in Markdown: examples and tables as they are, prose in one line."""
    if not block.startswith("\b"):
        return prose(block)
    lines = inspect.cleandoc(block.removeprefix("\b").strip("\n")).split("\n")
    if not lines[0].startswith("Example"):
        return "```\n" + "\n".join(lines) + "\n```"
    return f"{lines[0]}\n\n```sh\n" + inspect.cleandoc("\n".join(lines[1:])) + "\n```"


def prose(text: str) -> str:
    """Return text in one line, with what looks like Markdown taken as it is."""
    return re.sub(r"([*<])", r"\\\1", " ".join(text.split()))


def examples(command: click.Command) -> list[str]:
    """Return the command lines of the examples."""
    blocks = [
        block.removeprefix("\b").strip("\n").split("\n") for block in paragraphs(command) if block.startswith("\b")
    ]
    return [line.strip() for lines in blocks if lines[0].strip().startswith("Example") for line in lines[1:]]


def usage(name: str, command: click.Command) -> str:
    """Return the line that begins the help, with no regard to the terminal's width."""
    required = [param for param in command.params if isinstance(param, click.Option) and param.required]
    words = [f"{param.opts[-1]} {metavar(param)}" for param in required]
    return " ".join([name, *words, "[OPTIONS]", *(argument(each) for each in command.params if is_argument(each))])


def is_argument(param: Param) -> bool:
    """Whether a parameter has no name on the command line."""
    return isinstance(param, click.Argument)


def argument(param: Param) -> str:
    """Return an argument as the usage has it: in brackets where it may be left out, with dots where there may be many."""
    word = param.metavar or str(param.name).upper() + ("…" if param.nargs != 1 else "")
    return word if param.required or word.startswith("[") else f"[{word}]"


def options_table(command: click.Command) -> str:
    """Return a line an option: its names and value, what it means, its default."""
    lines = ["| option | means | default |", "|---|---|---|"]
    for param in command.params:
        if isinstance(param, click.Option) and not param.hidden:
            told = DEFAULT.search(param.help or "")
            default = told.group(1) if told else default_text(param)
            meaning = DEFAULT.sub("", param.help or "") + limits(param)
            names = " / ".join((*param.opts, *param.secondary_opts)) + ("" if param.is_flag else f" {metavar(param)}")
            lines.append(f"| `{names.replace('|', BAR)}` | {cell(meaning)} | {cell(default)} |")
    return "\n".join(lines)


def layouts_table() -> str:
    """Return a line a layout; those that other packages add are told by ``featstore datasets``."""
    rows = [f"| `{name}` | {cell(source.expects)} |" for name, source in LAYOUTS.items()]
    return "\n".join(["| layout | what it is read from |", "|---|---|", *rows])


def metavar(param: click.Option) -> str:
    """Return what stands for the value: the choices, or a word."""
    if isinstance(param.type, click.Choice):
        return "|".join(map(str, param.type.choices))
    return param.metavar or TYPES.get(param.type.name, param.type.name)


def default_text(param: click.Option) -> str:
    """Return the default that click fills in."""
    if param.required:
        return "required"
    facts: dict[str, Any] = param.to_info_dict()
    value = facts["default"]
    if param.secondary_opts:
        return param.opts[0] if value else param.secondary_opts[0]
    if param.is_flag or value in (None, (), ""):
        return ""
    return ",".join(map(str, value)) if isinstance(value, (tuple, list)) else str(value)


def limits(param: click.Option) -> str:
    """Return the range of a number."""
    kind = param.type
    if not isinstance(kind, (click.IntRange, click.FloatRange)):
        return ""
    low = "" if kind.min is None else f"{'above' if kind.min_open else 'at least'} {kind.min}"
    high = "" if kind.max is None else f"{'below' if kind.max_open else 'at most'} {kind.max}"
    text = ", ".join(filter(None, (low, high)))
    return f" ({text})" if text else ""


def cell(text: str) -> str:
    """Return text that a table's cell can hold."""
    return prose(text).replace("|", BAR)
