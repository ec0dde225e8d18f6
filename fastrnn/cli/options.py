"""What the commands' options have in common: kinds of paths, settings, and headings in --help."""

import math
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import GenericAlias
from typing import get_args

import click

from fastrnn.settings import Setting, Settings
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


class Several(click.ParamType):
    """Numbers between commas, as a tuple."""

    def __init__(self, of: type) -> None:
        self.of, self.name = of, f"{of.__name__},..."

    def convert(self, value, param, ctx):
        try:
            return tuple(map(self.of, value.split(",")))
        except ValueError:
            self.fail(f"expected numbers between commas, got {value!r}", param, ctx)


FOLDER = click.Path(path_type=Path, file_okay=False)
FILE = click.Path(path_type=Path, dir_okay=False)
OUTPUT = Output(dir_okay=False)


def check_output(path: Path, option: str = "--out") -> None:
    """Refuse a file that could not be written, before the work. Raises click.BadParameter where
    there is no folder for it, OSError for what else is in the way."""
    if not path.absolute().parent.is_dir():
        raise click.BadParameter(f"{path.parent}: no such folder", param_hint=option)
    check_writable(path)


@contextmanager
def usage() -> Iterator[None]:
    """A block that checks what was given: a ValueError in it is wrong usage."""
    try:
        yield
    except ValueError as error:
        raise click.UsageError(str(error)) from None


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


def options_of(settings: Settings, **own: dict[str, object]) -> Callable[[Callable], Callable]:
    """The options of a program's settings, as a decorator; own, attributes of an option by the name
    of its setting, over those that follow from it."""

    def add(command: Callable) -> Callable:
        for name, setting in reversed(settings.items()):
            if setting.heading:
                command = _option(name, setting, own.get(name, {}))(command)
        return command

    return add


def _option(name: str, setting: Setting, own: dict[str, object]) -> Callable:
    flag = name.replace("_", "-")
    switch = setting.kind.values is bool
    attributes = {
        "cls": Option,
        "heading": setting.heading,
        "help": setting.help + _defaults(setting),
        "type": None if switch else _type(setting.kind.values),
        "default": None,
    }
    declaration = f"--{flag}/--no-{flag}" if switch else f"--{flag}"
    return click.option(declaration, **attributes | own)


def _type(values: type | tuple[object, ...]) -> object:
    """What click reads a setting's value as."""
    if isinstance(values, tuple):
        return click.Choice(values)
    if isinstance(values, GenericAlias):
        return Several(*get_args(values))
    return FILE if values is Path else values


def _defaults(setting: Setting) -> str:
    """The default in brackets, and where another value is tuned."""
    unsaid = setting.default is None or setting.default is False
    shown = [] if unsaid else [str(setting.default)]
    for name, value in setting.tuned.items():
        text = ",".join(map(str, value)) if isinstance(value, list) else str(value)
        shown.append(f"{name} {text}")
    separator = "; " if any("," in text for text in shown) else ", "
    return f" [{separator.join(shown)}]" if shown else ""
