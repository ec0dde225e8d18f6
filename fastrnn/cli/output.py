"""What commands say."""

import click

from fastrnn.printing import printable


def say(text: str, *, err: bool = False) -> None:
    """Print one line, in which names from outside may be, to the output or to that for errors."""
    click.echo(printable(text), err=err)
