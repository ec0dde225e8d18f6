"""What the commands' options have in common: kinds of paths, and headings in --help."""

import math
from collections import defaultdict
from pathlib import Path

import click

from fastrnn.storage import STDOUT, check_writable


class Output(click.Path):
    """A file to write, as a Path: - is the standard output, ./- a file of that name."""

    def convert(self, value, param, ctx):
        path = Path(super().convert(value, param, ctx))
        return path.absolute() if path == STDOUT and str(value) != str(STDOUT) else path


class Within(click.FloatRange):
    """A finite number in a range: click lets nan into any."""

    def convert(self, value, param, ctx):
        number = super().convert(value, param, ctx)
        if not math.isfinite(number):
            self.fail(f"{value} is not a finite number.", param, ctx)
        return number


FOLDER = click.Path(path_type=Path, file_okay=False)
FILE = click.Path(path_type=Path, dir_okay=False)
OUTPUT = Output(dir_okay=False)


def check_output(path: Path, option: str = "--out") -> None:
    """Refuse a file that could not be written, before the work. Raises click.BadParameter where
    there is no folder for it, OSError for what else is in the way."""
    if not path.absolute().parent.is_dir():
        raise click.BadParameter(f"{path.parent}: no such folder", param_hint=option)
    check_writable(path)


def given(options: dict[str, object]) -> dict[str, object]:
    """The options that were given: those that are not None."""
    return {name: value for name, value in options.items() if value is not None}


class Option(click.Option):
    """An option that stands under a heading in --help."""

    def __init__(self, *names, heading: str, **attributes) -> None:
        super().__init__(*names, **attributes)
        self.heading = heading


class Command(click.Command):
    """A command with headings in --help."""

    def format_options(self, ctx, formatter):
        records = defaultdict(list)
        for option in self.get_params(ctx):
            if isinstance(option, click.Option):
                records[getattr(option, "heading", "Run")].append(option.get_help_record(ctx))
        for heading, rows in records.items():
            with formatter.section(heading):
                formatter.write_dl(rows)
