"""Files that may be compressed, or a member of an archive, as a stream of what is in them."""

import bz2
import gzip
import lzma
import zipfile
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import BinaryIO

from fastrnn.storage import reading

# By the first bytes of a file: names are not to be trusted.
MAGIC = {b"\x1f\x8b": gzip.open, b"BZh": bz2.open, b"\xfd7zXZ\0": lzma.open}
ZIP = b"PK\x03\x04"
SUFFIXES = (".txt", ".vec", ".bin", ".tsv")  # of what is sought in an archive


def split_member(path: Path) -> tuple[Path, str | None]:
    """The archive and the member's name of a path that goes into an archive, as in
    glove.6B.zip/glove.6B.50d.txt; another path and None."""
    for parent in path.parents:
        if parent.is_file():
            return parent, path.relative_to(parent).as_posix()
    return path, None


def blocks(
    path: Path, what: str, size: int, longest: int, progress: Callable[[int], object]
) -> Iterator[bytes]:
    """What is in a file, or in a member of a zip archive, in blocks of about size bytes that end
    where lines do, of lines longer than that and longest in between.

    Inputs: what the file is to be, for errors; progress, called with the bytes of the file that
    were read since its last call, in all the file's size.
    Raises ValueError that names the file where it is damaged, or where it is not certain which
    member is meant.
    """
    file_path, member = split_member(path)
    reported = 0
    with reading(file_path, what), file_path.open("rb") as file:
        with _damage_named(file_path):
            stream = _opened(file_path, file, member)
        while True:
            with _damage_named(file_path):
                block = stream.read(size) + stream.readline(longest)
            if not block:
                break
            progress(file.tell() - reported)
            reported = file.tell()
            yield block
        progress(file_path.stat().st_size - reported)  # what follows the text in a .zip


@contextmanager
def _damage_named(path: Path) -> Iterator[None]:
    try:
        yield
    # zipfile raises RuntimeError for a password, NotImplementedError for a rare compression; bz2
    # and gzip an OSError without a number.
    except (EOFError, OSError, RuntimeError, zipfile.BadZipFile, zlib.error, lzma.LZMAError) as e:
        if isinstance(e, OSError) and e.errno is not None:
            raise
        raise ValueError(f"{path}: cannot be decompressed ({e})") from None


def _opened(path: Path, file: BinaryIO, member: str | None) -> BinaryIO:
    magic = file.read(6)
    file.seek(0)
    if magic.startswith(ZIP):
        archive = zipfile.ZipFile(file)
        return archive.open(_chosen(path, archive, member))
    if member is not None:
        raise ValueError(f"{path}: expected a zip archive, of {member!r} in it")
    return next((of(file) for begin, of in MAGIC.items() if magic.startswith(begin)), file)


def _chosen(path: Path, archive: zipfile.ZipFile, member: str | None) -> str:
    """The name of the member that is meant: whole, or without its folders; None: the only one."""
    names = [
        info.filename
        for info in archive.infolist()
        if not info.is_dir() and not info.filename.startswith("__MACOSX/")  # holds icons and such
    ]
    if member is None:
        sought = [name for name in names if name.endswith(SUFFIXES)] if len(names) > 1 else names
        if len(sought) == 1:
            return sought[0]
        example = f"; name one, as {path}/{sought[0]}" if sought else ""
        shown = _shown(sought or names)
        raise ValueError(f"{path}: expected one text file in it, got {shown}{example}")
    found = [name for name in names if name == member]
    found = found or [name for name in names if PurePosixPath(name).name == member]
    if len(found) != 1:
        raise ValueError(f"{path}: expected one {member!r} in it, got {_shown(found or names)}")
    return found[0]


def _shown(names: Sequence[str]) -> str:
    return ", ".join(names[:20]) + ", ..." * (len(names) > 20)
