"""A run's report in the browser."""

import os
import sys
import webbrowser
from pathlib import Path

import click

from fastrnn.cli.output import say

OPEN = click.option("--open", "opens", is_flag=True, help="Show the report in the browser.")


def show(page: Path) -> None:
    """Open a page in the browser; where there is none, or no display for it, say where the page
    is."""
    if not page.is_file():
        return  # a warning has said why
    if not (_has_display() and webbrowser.open(page.resolve().as_uri())):
        say(f"{page}: no browser here to open it in", err=True)


def _has_display() -> bool:
    """Whether a browser is a window: one in the terminal would take that over, unless it is what
    the user has chosen."""
    known = ("DISPLAY", "WAYLAND_DISPLAY", "BROWSER")
    return sys.platform in ("darwin", "win32") or any(os.environ.get(name) for name in known)
