"""Progress: a bar with rate and time left on a terminal, plain lines in a log."""

import sys
import time
from collections.abc import Iterable, Iterator
from types import TracebackType
from typing import Any, TypeVar

import click
from tqdm import tqdm

__all__ = ["Progress", "counted"]

LINE_EVERY = 15.0
T = TypeVar("T")


class Progress:
    """Counts things done on standard error; says nothing where ``quiet``."""

    def __init__(self, what: str, unit: str = "image", quiet: bool = False) -> None:
        self.what, self.unit, self.quiet = what, unit, quiet
        self.done = self.total = 0
        self.bar: tqdm[Any] | None = None
        self.started = self.told = time.monotonic()

    def __enter__(self) -> "Progress":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.bar is not None:
            self.bar.close()

    def start(self, total: int) -> None:
        """Begin, with how many there are."""
        self.total, self.done = total, 0
        self.started = self.told = time.monotonic()
        if not self.quiet and total and sys.stderr.isatty():
            self.bar = tqdm(total=total, desc=self.what, unit=self.unit, dynamic_ncols=True, leave=False)

    def advance(self, count: int) -> None:
        """Count ``count`` more as done."""
        self.done += count
        if self.bar is not None:
            self.bar.update(count)
        elif not self.quiet and time.monotonic() - self.told > LINE_EVERY:
            self.told = time.monotonic()
            rate = self.done / (self.told - self.started)
            left = max(0, self.total - self.done) / rate if rate else 0.0
            self.say(f"{self.what}: {self.done}/{self.total} {self.unit}s, {rate:.2f}/s, {left:.0f} s left")

    def reach(self, done: int, total: int) -> None:
        """Say how far it is, where the whole is known only on the way."""
        if not self.total:
            self.start(total)
        self.advance(done - self.done)

    def say(self, line: str) -> None:
        """Print a line beside the bar."""
        if not self.quiet:
            tqdm.write(line, file=sys.stderr) if self.bar is not None else click.echo(line, err=True)


def counted(values: Iterable[T], total: int, what: str) -> Iterator[T]:
    """Yield the values, and show how far of ``total`` that is; nothing where the command at work reports as JSON."""
    context = click.get_current_context(silent=True)
    with Progress(what, quiet=context is not None and bool(context.params.get("as_json"))) as progress:
        progress.start(total)
        for value in values:
            yield value
            progress.advance(1)
