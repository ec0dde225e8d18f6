"""Files, written whole or not at all, and read with care.

What is written lies beside its place, is synced, then renamed into it. What is read has to be a
regular file, and tensors have a checksum. Whatever is raised meanwhile names the file.
"""

import errno
import hashlib
import json
import os
import re
import shutil
import stat
import tempfile
import threading
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager, suppress
from io import TextIOWrapper
from itertools import count
from pathlib import Path
from typing import BinaryIO, TextIO

import numpy as np

from fastrnn.optional import require

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None

STDOUT = Path("-")  # as a path to write to; a file of that name is reached by a longer path
# What stands between the name and the suffix of tensors that a JSON file names: how far a training
# has come, or a digest.
TAG = r"(\d{7,}-\d{4,}|[0-9a-f]{12})"

# ---- errors that name the file -------------------------------------------------------------------


@contextmanager
def named(
    path: Path | str, what: str | None = None, *, temporary: Path | None = None
) -> Iterator[None]:
    """A block that reads or writes a file: an OSError raised in it names the file, also where it
    named its temporary one; with `what`, all else that the content leads to becomes a ValueError,
    "PATH: not WHAT (reason)"."""
    try:
        yield
    except ImportError:
        raise
    except MemoryError as error:
        raise MemoryError(f"{path}: does not fit into memory") from error
    except Exception as error:
        if isinstance(error, OSError) and error.errno in errno.errorcode:
            if error.filename is not None and str(error.filename) != str(temporary):
                raise
            raise OSError(error.errno, os.strerror(error.errno), str(path)) from error
        if what is None or str(error).startswith(f"{path}:"):
            raise
        reason = str(error) or type(error).__name__
        if not isinstance(error, ValueError | OSError):  # a KeyError's text is a word
            reason = f"{type(error).__name__}: {reason}"
        raise ValueError(f"{path}: not {what} ({reason})") from error


@contextmanager
def reading(path: Path | str, what: str) -> Iterator[None]:
    """A block that reads a regular file, as `named` has it."""
    with named(path, what):
        check_regular(path)
        yield


def check_regular(path: Path | str) -> None:
    """Raise OSError where there is no file, ValueError for a pipe or a device, of which there may
    be no end."""
    mode = Path(path).stat().st_mode
    if stat.S_ISDIR(mode):
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
    if not stat.S_ISREG(mode):
        raise ValueError(f"{path}: expected a regular file, got a pipe or a device")


# ---- whole or not at all -------------------------------------------------------------------------


@contextmanager
def replacing(path: Path | str) -> Iterator[Path]:
    """A path to write to that takes the place of ``path`` when the block ends without an error.

    A symbolic link stays, its target is replaced. A device, a pipe or a file that this process has
    open (/dev/stdout, /dev/fd/3, and "-", which is standard output) is written to when the block
    ends.
    """
    if _is_passage(path):
        with tempfile.TemporaryDirectory() as folder:  # many writers go back in their file
            temporary = Path(folder, Path(path).name)
            yield temporary
            with named(path), _passage(path) as out, temporary.open("rb") as file:
                shutil.copyfileobj(file, out)
        return
    target = Path(os.path.realpath(path))
    temporary = _beside(target)
    try:
        with named(path, temporary=temporary):
            yield temporary
            if target.exists():
                shutil.copymode(target, temporary)
            _sync(temporary, os.O_RDWR)
            _put(temporary, target)
            if os.name == "posix":  # elsewhere a folder cannot be opened
                _sync(target.parent, os.O_RDONLY)
    finally:
        temporary.unlink(missing_ok=True)


@contextmanager
def writing(
    path: Path | str, *, newline: str | None = None, errors: str | None = None
) -> Iterator[TextIO]:
    """A UTF-8 text file that takes the place of ``path`` as `replacing` has it; but a device or a
    pipe gets every line as it comes."""
    options = {"encoding": "utf-8", "newline": newline, "errors": errors}
    if _is_passage(path):
        with named(path), TextIOWrapper(_passage(path), line_buffering=True, **options) as file:
            yield file
    else:
        with replacing(path) as temporary, temporary.open("w", **options) as file:
            yield file


def _put(temporary: Path, target: Path) -> None:
    try:
        temporary.replace(target)
    except OSError as error:
        if error.errno != errno.EBUSY:
            raise
        shutil.copyfile(temporary, target)  # a file that is mounted by itself, as in containers


def _beside(path: Path) -> Path:
    return path.with_name(f".{path.stem}-{os.getpid()}-{threading.get_ident()}{path.suffix}")


# What _beside makes; its groups are the name that it is made of.
_TEMPORARY = re.compile(r"\.(.+)-\d+-\d+(\.\w+)")


def _sync(path: Path, flags: int) -> None:
    handle = os.open(path, flags)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _is_passage(path: Path | str) -> bool:
    """Whether what is at a path is written to, not replaced. Raises OSError where that cannot be
    known, IsADirectoryError."""
    if _handle(path) is not None:
        return True
    try:
        mode = Path(path).stat().st_mode
    except FileNotFoundError:
        return False
    if stat.S_ISDIR(mode):
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
    return not stat.S_ISREG(mode)


def _passage(path: Path | str) -> BinaryIO:
    # Not what is open anew: another handle would begin at the file's beginning.
    handle = _handle(path)
    return Path(path).open("wb") if handle is None else os.fdopen(os.dup(handle), "wb")


def _handle(path: Path | str) -> int | None:
    """The number of this process's open file that a path leads to, by links too, or that of the
    output which a file is; of "-" standard output."""
    path = Path(path)
    if path == STDOUT:
        return 1
    own = re.compile(rf"(?:/dev|/proc/{os.getpid()}(?:/task/\d+)?)/fd/(\d+)")
    there = path
    while path.exists():  # links in a circle lead nowhere
        if match := own.fullmatch(f"{os.path.realpath(there.parent)}/{there.name}"):
            return int(match[1])
        if not there.is_symlink():
            break
        there = there.parent / there.readlink()
    for handle in (1, 2):
        with suppress(OSError):  # one of the two may not be there
            if os.path.samestat(path.stat(), os.fstat(handle)):
                return handle
    return None


def is_stdout(path: Path | str) -> bool:
    """Whether what is written to a path goes to standard output."""
    return _handle(path) == 1


def check_writable(path: Path | str) -> None:
    """Raise OSError where neither replacing nor writing could write ``path``; nothing stays
    behind."""
    try:
        if not _is_passage(path):
            temporary = _beside(Path(os.path.realpath(path)))
            temporary.touch()
            temporary.unlink()
        elif (handle := _handle(path)) is not None:
            os.fstat(handle)
        elif not os.access(path, os.W_OK):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
    except OSError as error:
        raise OSError(f"{path}: cannot be written ({error.strerror})") from None


def check_folder(folder: Path | str) -> None:
    """Raise OSError where no file could be made in a folder, which itself may be missing."""
    there = Path(folder).absolute()
    while not there.exists() and there.parent != there:
        there = there.parent
    try:
        with tempfile.TemporaryFile(dir=there):
            pass
    except OSError as error:
        raise OSError(f"{folder}: cannot be written to ({error.strerror})") from None


def new_folder(name: str) -> Path:
    """The first of name-1, name-2, ... that does not exist; it is not made."""
    return next(path for n in count(1) if not (path := Path(f"{name}-{n}")).exists())


# ---- folders -------------------------------------------------------------------------------------


@contextmanager
def locked(folder: Path | str, *, shared: bool = False) -> Iterator[None]:
    """A block in which no other process has a folder locked, or with shared, none but shared.

    The lock is the system's (flock) on the folder itself: nothing is written, and a kill lets go of
    it. Where there is none (Windows, some network file systems) the block runs all the same.
    Raises BlockingIOError where another process is at work in the folder.
    """
    if fcntl is None:
        yield
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        try:
            fcntl.flock(handle, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
        except BlockingIOError:
            raise BlockingIOError(f"{folder}: another process is at work in it") from None
        except OSError:
            pass
        yield
    finally:
        with suppress(OSError):  # a child that was forked meanwhile has the handle, too
            fcntl.flock(handle, fcntl.LOCK_UN)
        os.close(handle)


def sweep(folder: Path | str, names: str) -> None:
    """Delete what kills left in a folder of files that were being written, if ``names``, a regular
    expression, matches the name that one would have got."""

    def is_left(name: str) -> bool:
        match = _TEMPORARY.fullmatch(name)
        return match is not None and re.fullmatch(names, "".join(match.groups())) is not None

    _delete(folder, is_left)


def _delete(folder: Path | str, chosen: Callable[[str], bool]) -> None:
    """Delete files by name. What cannot be deleted is in nobody's way."""
    for path in [path for path in Path(folder).iterdir() if chosen(path.name)]:
        if path.is_file() and not path.is_symlink():
            with suppress(OSError):
                path.unlink()


# ---- JSON ----------------------------------------------------------------------------------------


def write_json(path: Path | str, value: object) -> None:
    """Write a JSON file atomically."""
    with writing(path) as file:
        file.write(json.dumps(value, indent=1) + "\n")


def read_json(path: Path | str) -> dict:
    """Read a JSON object. Raises ValueError that names the file where it is not one."""
    with reading(path, "a JSON file"):
        value = json.loads(Path(path).read_text(encoding="utf-8"))
        if not isinstance(value, dict):
            raise ValueError(f"{path}: expected a JSON object, got {type(value).__name__}")
    return value


# ---- tensors -------------------------------------------------------------------------------------


def digest(tensors: Mapping[str, np.ndarray]) -> str:
    """The sha256 of tensors with their names, dtypes and shapes."""
    content = hashlib.sha256()
    for name, a in sorted(tensors.items()):
        content.update(json.dumps([name, a.dtype.str, a.shape]).encode())
        content.update(np.ascontiguousarray(a))
    return content.hexdigest()


def write_tensors(
    path: Path | str, tensors: Mapping[str, np.ndarray], metadata: Mapping[str, str] | None = None
) -> str:
    """Write a safetensors file atomically, with metadata and the digest of its tensors, which is
    returned, in its header."""
    # Not ascontiguousarray, which gives a scalar an axis.
    contiguous = {name: np.require(a, requirements="C") for name, a in tensors.items()}
    sha256 = digest(contiguous)
    failure = require("safetensors").SafetensorError
    with replacing(path) as temporary:
        try:
            header = {**(metadata or {}), "sha256": sha256}
            require("safetensors.numpy").save_file(contiguous, temporary, header)
        except failure as error:
            raise OSError(f"{path}: cannot be written ({error})") from None
    return sha256


def read_tensors(
    path: Path | str, sha256: str | None = None, *, names: Collection[str] | None = None
) -> dict[str, np.ndarray]:
    """Read a safetensors file, or of its tensors those with these names, bfloat16 widened, which
    NumPy has not; sha256, the digest that all of them must have (None: any).

    Raises ValueError that names the file where it is not one, or where its tensors are not those
    that were written.
    """
    with reading(path, "a safetensors file"):
        with require("safetensors").safe_open(path, "numpy") as file:
            there = file.keys()
            written = (file.metadata() or {}).get("sha256")
            tensors = {n: _tensor(path, file, n) for n in there if names is None or n in names}
        expected = {written, sha256} - {None}
        if expected and len(tensors) == len(there) and expected != {digest(tensors)}:
            raise ValueError(f"{path}: damaged: its tensors are not those that were written")
    return tensors


def _tensor(path, file, name):
    dtype = file.get_slice(name).get_dtype()
    if dtype == "BF16":  # float32's upper halves
        content = dict(require("safetensors").deserialize(Path(path).read_bytes()))[name]
        halves = np.frombuffer(content["data"], "<u2").astype(np.uint32) << 16
        return halves.view(np.float32).reshape(content["shape"])
    try:
        return file.get_tensor(name)
    except (AttributeError, TypeError):
        raise ValueError(f"{name}: NumPy has no dtype {dtype}") from None


def read_metadata(path: Path | str) -> dict[str, str]:
    """The metadata in the header of a safetensors file."""
    with reading(path, "a safetensors file"), require("safetensors").safe_open(path, "numpy") as f:
        return f.metadata() or {}


def read_shapes(path: Path | str) -> dict[str, tuple[int, ...]]:
    """The shapes of the tensors in a safetensors file, without reading them."""
    with reading(path, "a safetensors file"), require("safetensors").safe_open(path, "numpy") as f:
        return {name: tuple(f.get_slice(name).get_shape()) for name in f.keys()}  # noqa: SIM118


def take(
    path: Path | str,
    tensors: Mapping[str, np.ndarray],
    prefix: str,
    shapes: Mapping[str, tuple[int, ...]],
    dtype: np.dtype | str,
) -> dict[str, np.ndarray]:
    """Of the tensors in a file those called PREFIX/NAME, by NAME.

    Raises ValueError that names the file where one is missing, of another shape or dtype, or has
    numbers that are not finite.
    """
    for name, shape in shapes.items():
        a = tensors.get(f"{prefix}/{name}")
        if a is None or a.shape != shape or a.dtype != dtype:
            got = "nothing" if a is None else f"{a.shape} {a.dtype}"
        elif not np.isfinite(a).all():
            got = "numbers that are not finite"
        else:
            continue
        raise ValueError(f"{path}: {prefix}/{name}: expected {shape} {dtype}, got {got}")
    return {name: tensors[f"{prefix}/{name}"] for name in shapes}


# ---- JSON with tensors ---------------------------------------------------------------------------


def write_named(
    path: Path | str, tag: str, content: dict, tensors: Mapping[str, np.ndarray]
) -> None:
    """Write a JSON file, NAME.json, and the tensors that belong to it, NAME-tag.safetensors, which
    it names under "tensors", and whose digest it has: first the tensors, then the JSON file that
    names them; then older tensors go. Killed at any moment, one of the two is whole."""
    path = Path(path)
    file = f"{path.stem}-{tag}.safetensors"
    sha256 = write_tensors(path.with_name(file), tensors)
    write_json(path, content | {"tensors": file, "sha256": sha256})
    tidy(path, file)


def tidy(path: Path | str, file: str) -> None:
    """Delete what write_named left of earlier tensors, and what kills left; file is what the JSON
    file names now."""
    path = Path(path)
    tensors = re.compile(rf"{re.escape(path.stem)}-{TAG}\.safetensors")
    _delete(path.parent, lambda name: name != file and tensors.fullmatch(name) is not None)
    sweep(path.parent, rf"{re.escape(path.stem)}(-[0-9a-f-]+)?\.(json|safetensors)")


def named_tensors(path: Path | str, content: dict) -> Path:
    """The file of the tensors that belong to a JSON file with this content.

    Raises ValueError unless that is a name, of a file beside it.
    """
    file = content.get("tensors")
    if not isinstance(file, str) or file in ("", "..") or Path(file).name != file:
        raise ValueError(f"{path}: tensors: expected the name of a file beside it, got {file!r}")
    return Path(path).with_name(file)


def read_named(path: Path | str, content: dict) -> dict[str, np.ndarray]:
    """The tensors that belong to a JSON file with this content (of write_named). Raises ValueError
    for what read_tensors and named_tensors refuse."""
    return read_tensors(named_tensors(path, content), content.get("sha256"))
