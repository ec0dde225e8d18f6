"""The seam: which of the two implementations of the same functions runs."""

import importlib
import importlib.util
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from pathlib import Path
from types import ModuleType

from fastrnn.backends import threads
from fastrnn.backends.threads import get_num_threads, set_num_threads

__all__ = [
    "get_backend",
    "get_num_threads",
    "release_memory",
    "set_backend",
    "set_num_threads",
    "show_config",
    "use_backend",
    "use_isa",
]

_MODULES = {"numpy": "fastrnn.backends.reference", "cython": "fastrnn.backends.compiled"}
_loaded: dict[str, ModuleType] = {}
_default = os.environ.get("FASTRNN_BACKEND") or "cython"
_scoped: ContextVar[str | None] = ContextVar("fastrnn_backend", default=None)


def get_backend(name: str | None = None) -> ModuleType:
    """The module of a backend, "numpy" or "cython"; None is the current one.

    Raises ValueError for another name and ImportError where the extension was not built.
    """
    try:
        return _loaded[(_scoped.get() or _default) if name is None else name]
    except (KeyError, TypeError):
        return _load(current_backend() if name is None else name)


def current_backend() -> str:
    """Name of the backend that calls without backend= use."""
    return _scoped.get() or _default


def _load(name: str) -> ModuleType:
    if not isinstance(name, str) or name not in _MODULES:
        from_environment = isinstance(name, str) and name == os.environ.get("FASTRNN_BACKEND")
        source = "FASTRNN_BACKEND" if from_environment else "backend"
        raise ValueError(f'{source}: expected "numpy" or "cython", got {name!r}')
    try:
        module = importlib.import_module(_MODULES[name])
    except ImportError as error:
        if importlib.util.find_spec("fastrnn.backends._kernels"):
            raise  # it is there, but broken
        sources = Path(__file__).parents[2]
        advice = "installed with FASTRNN_NO_EXTENSION=1? reinstall fastrnn with a C compiler"
        if (sources / "setup.py").is_file():
            advice = f"{sources} holds fastrnn's sources: start elsewhere, or pip install -e there"
        raise ImportError(
            f'backend="cython": the extension is not built here ({advice}, or use backend="numpy")'
        ) from error
    if name == "cython" and (isa := os.environ.get("FASTRNN_ISA")):
        _select_isa(module._kernels, isa, "FASTRNN_ISA")
    _loaded[name] = module
    return module


def set_backend(name: str) -> None:
    """Use backend "numpy" or "cython" for calls without backend=, in every thread.

    Raises ValueError for another name and ImportError where the extension was not built.
    """
    global _default
    if name is None:
        _load(name)  # refuses it; to get_backend it is the current one
    get_backend(name)
    _default = name


@contextmanager
def use_backend(name: str | None) -> Iterator[None]:
    """Use a backend for calls without backend= inside a with block, in this thread or task alone;
    None changes nothing.

    Raises ValueError for another name and ImportError where the extension was not built.
    """
    get_backend(name)
    token = _scoped.set(name or _scoped.get())
    try:
        yield
    finally:
        _scoped.reset(token)


def use_isa(name: str) -> None:
    """Use the compiled kernels of one instruction set: "baseline", "avx2" or "avx512".

    Raises ValueError where it is not compiled in or this CPU does not run it, and ImportError where
    the extension was not built.
    """
    _select_isa(get_backend("cython")._kernels, name, "name")


def _select_isa(kernels: ModuleType, name: str, argument: str) -> None:
    if name not in kernels.isas():
        raise ValueError(f"{argument}: expected one of {kernels.isas()} on this CPU, got {name!r}")
    kernels.use_isa(name)


def release_memory() -> int:
    """Give back to the system what large results and work space leave for the next call, up to 512
    MiB; of more than 64 MiB it goes by itself when no call has wanted it for two seconds.

    Returns: bytes given back.
    """
    compiled = _loaded.get("cython")
    return compiled.release_memory() if compiled else 0


def show_config() -> dict[str, object]:
    """Print and return what runs: backend, instruction set and those there are, threads.

    Raises ValueError for a backend or an instruction set of the environment that there is not.
    """
    with suppress(ImportError):
        get_backend()
    config: dict[str, object] = {"backend": current_backend()}
    try:
        kernels = get_backend("cython")._kernels
    except ImportError:
        config["extension"] = "not built"
    else:
        config["isa"] = kernels.current_isa()
        config["isas"] = kernels.isas()
    config["threads"] = threads.get_num_threads()
    config["cpus"] = threads.available_cpus()
    for key, value in config.items():
        print(f"{key:10} {value}")
    return config
