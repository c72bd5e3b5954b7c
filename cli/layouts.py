"""What ``--layout`` may be, told from the registry alone."""

import click

from featstore import sources

__all__ = ["LayoutCommand"]


class LayoutCommand(click.Command):
    """A command whose help ends with the layouts there are; those of other packages are asked when help is, not before."""

    def format_epilog(self, context: click.Context, formatter: click.HelpFormatter) -> None:
        """Write a line a layout."""
        broken: list[str] = []
        lines = [(source.layout, source.expects) for source in sources.available(broken.append)]
        with formatter.section("Layouts, detected unless --layout says which"):
            formatter.write_dl(lines)
        for line in broken:
            formatter.write_paragraph()
            formatter.write_text(f"Not available: {line}")
