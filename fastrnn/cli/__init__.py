"""The command `fastrnn`: one group, a thin file per program, errors in one line."""

import importlib
import os
import signal
import sys
import warnings
from collections.abc import Sequence

from fastrnn.optional import require
from fastrnn.printing import printable

PROGRAMS = {
    "bench": "Race fastrnn against other libraries on this machine.",
    "caption": "Captions for pictures: prepare, train, evaluate, sample.",
    "classify": "Classes for texts: train, evaluate, predict, explain.",
    "info": "What runs here: backend, instruction set, threads.",
    "style": "A picture in the style of others.",
    "transfer": "Classes for pictures: train, evaluate, predict.",
}

# Programs that compute with torch, which bench measures as its users have it.
WITH_TORCH = ("caption", "style", "transfer")


def main(argv: Sequence[str] | None = None) -> None:
    """Run the command line and exit: 0 done, 1 failed, 2 wrong usage, 130 interrupted."""
    args = list(sys.argv[1:] if argv is None else argv)
    debug = "--debug" in args
    args = [arg for arg in args if arg != "--debug"]
    try:
        click = require("click")
    except ModuleNotFoundError as error:
        sys.exit(f"fastrnn: {error}")
    try:
        with warnings.catch_warnings():
            warnings.showwarning = _warn
            sys.exit(_group().main(args, prog_name="fastrnn", standalone_mode=False) or 0)
    except click.ClickException as error:
        error.message = printable(error.message)
        error.show()
        sys.exit(error.exit_code)
    except (KeyboardInterrupt, click.Abort):
        _fail("interrupted", debug, 128 + signal.SIGINT)
    except BrokenPipeError:  # the reader of our output has gone
        sys.stderr.close()
        sys.exit(1)
    except OSError as error:
        place = f"{error.filename}: " if error.filename else ""
        _fail(f"{place}{error.strerror}" if error.strerror else str(error), debug, 1)
    except Exception as error:
        _fail(f"{' '.join(str(error).split()) or type(error).__name__}", debug, 1)


def _warn(message: Warning | str, *_: object) -> None:
    """A warning in a line, without the place in the code that it comes from."""
    print(f"fastrnn: {printable(message)}", file=sys.stderr)


def _fail(message: str, debug: bool, code: int) -> None:
    if debug:
        import traceback

        traceback.print_exc()
    print(f"fastrnn: {printable(message)}", file=sys.stderr)
    sys.exit(code)


def _wait_passively() -> None:
    """Have torch's threads sleep between parallel parts, not spin, which on a machine that is
    shared takes several times the CPU time. OpenMP reads this as torch is imported."""
    if not {"OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "KMP_BLOCKTIME"} & os.environ.keys():
        os.environ["OMP_WAIT_POLICY"] = "passive"


def _group():
    import click

    class Programs(click.Group):
        """Imports a program's file when it is asked for, so that --help is quick."""

        def list_commands(self, ctx):
            return sorted(PROGRAMS)

        def get_command(self, ctx, name):
            if name not in PROGRAMS:
                return None
            if name in WITH_TORCH:
                _wait_passively()
            return importlib.import_module(f"fastrnn.cli.{name}").command

        def format_commands(self, ctx, formatter):
            with formatter.section("Programs"):
                formatter.write_dl(sorted(PROGRAMS.items()))

    @click.group(cls=Programs, context_settings={"help_option_names": ["-h", "--help"]})
    @click.version_option(package_name="fastrnn")
    @click.option("--debug", is_flag=True, help="Show the traceback of an error.")
    def group(debug):
        """Recurrent networks on the CPU at the speed of the hardware."""

    return group
