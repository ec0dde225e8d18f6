"""fastrnn info."""

import click

from fastrnn import show_config


@click.command("info")
def command() -> None:
    """What runs here: backend, instruction sets, threads.

    FASTRNN_BACKEND, FASTRNN_ISA and OMP_NUM_THREADS choose among them.
    """
    show_config()
