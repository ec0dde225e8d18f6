"""Features on disk while `caption prepare` computes them: a kill loses no more than a batch, and
memory holds no more than a block of them.

features.partial         rows of float32
features.partial.jsonl   a line for what they are made with, then a line a batch: its pictures with
                         their files' sizes and times, the shape of a row, the rows' checksum
"""

import errno
import json
import math
import os
import shutil
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO

import numpy as np

from fastrnn.settings import NUMBER, integer, listed, mapped
from fastrnn.storage import check_regular, named

ROWS, BATCHES = "features.partial", "features.partial.jsonl"
BATCH = {
    "pictures": mapped(listed(NUMBER)),
    "shape": listed(integer(1)),
    "crc32": integer(0),
}
BLOCK = 4096  # rows that are looked at together


class Partial:
    """Rows by picture in a folder, which is made with the first of them.

    Parameters: folder; made_with, where rows come from: those of another origin are thrown away;
    images, how many pictures there are going to be. Rows of an earlier process are taken up.
    """

    def __init__(self, folder: Path | str, made_with: Mapping[str, object], images: int) -> None:
        self._rows, self._batches = Path(folder, ROWS), Path(folder, BATCHES)
        self._made_with, self._images = dict(made_with), images
        self._row: dict[str, tuple[int, list[int]]] = {}  # of a picture, with its file's stamp
        self._shape: tuple[int, ...] = ()
        self._count = 0
        if self._rows.exists() and self._batches.exists():
            self._take_up()

    def _take_up(self) -> None:
        for path in (self._rows, self._batches):
            check_regular(path)
        head, *lines = self._batches.read_bytes().split(b"\n")
        kept = [head]
        if _parsed(head) == self._made_with:
            with self._rows.open("rb") as file:
                for line in lines:
                    if not self._take(_parsed(line), file):
                        break
                    kept.append(line)
        if not self._count:
            self.delete()
            return
        self._batches.write_bytes(b"\n".join(kept) + b"\n")
        os.truncate(self._rows, self._count * self._size())

    def _take(self, batch: dict, file: BinaryIO) -> bool:
        """Count a batch, if it is whole."""
        if batch.keys() != BATCH.keys():  # the line was being written
            return False
        if not all(kind.holds(batch[name]) for name, kind in BATCH.items()):
            return False
        shape = tuple(batch["shape"])
        size = len(batch["pictures"]) * 4 * math.prod(shape)
        block = file.read(min(size, self._rows.stat().st_size))
        if zlib.crc32(block) != batch["crc32"] or self._shape not in ((), shape):
            return False
        self._add(batch["pictures"], shape)
        return True

    def _add(self, stamps: Mapping[str, list[int]], shape: tuple[int, ...]) -> None:
        self._shape = shape
        for name, stamp in stamps.items():
            self._row[name] = self._count, stamp
            self._count += 1

    def _size(self) -> int:
        return 4 * math.prod(self._shape)

    def has(self, name: str, path: Path) -> bool:
        """Whether there is a row of a picture whose file is at a path."""
        return name in self._row and self._row[name][1] == stamp(path)

    def append(self, pictures: Mapping[str, Path], rows: np.ndarray) -> None:
        """Write the rows of a batch. Raises OSError that names the file."""
        if not self._shape:
            self._begin(rows.shape[1:])
        block = np.ascontiguousarray(rows, np.float32)
        batch = {
            "pictures": {name: stamp(path) for name, path in pictures.items()},
            "shape": block.shape[1:],
            "crc32": zlib.crc32(block),
        }
        with named(self._rows), self._rows.open("ab") as file:
            file.write(block)
        self._note(batch)
        self._add(batch["pictures"], block.shape[1:])

    def _begin(self, shape: tuple[int, ...]) -> None:
        """Make the folder and the files. Raises OSError where all rows, here and in the data set,
        have no room."""
        folder = self._rows.parent
        folder.mkdir(parents=True, exist_ok=True)
        if 2 * self._images * 4 * math.prod(shape) > shutil.disk_usage(folder).free:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(folder))
        self._batches.unlink(missing_ok=True)
        self._rows.write_bytes(b"")
        self._note(self._made_with)

    def _note(self, line: Mapping[str, object]) -> None:
        with named(self._batches), self._batches.open("a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")

    def rows(self, names: Sequence[str]) -> "Rows":
        """The rows of some pictures."""
        everything = np.memmap(self._rows, np.float32, "r", shape=(self._count, *self._shape))
        return Rows(everything, np.array([self._row[name][0] for name in names], int))

    def delete(self) -> None:
        """Delete the files."""
        for path in (self._batches, self._rows):
            with suppress(OSError):  # a kill would have left them, too
                path.unlink()


def _parsed(line: bytes) -> dict:
    """A JSON object, or an empty one for what is none."""
    try:
        content = json.loads(line)
    except (ValueError, RecursionError):
        content = None
    return content if isinstance(content, dict) else {}


def stamp(path: Path) -> list[int]:
    """What changes where a file does: its size and time."""
    status = path.stat()
    return [status.st_size, status.st_mtime_ns]


class Rows:
    """Rows of an array in an order of their own, read, and changed, as slices are asked for."""

    def __init__(
        self,
        array: np.ndarray,
        index: np.ndarray,
        change: Callable[[np.ndarray], np.ndarray] | None = None,
    ) -> None:
        self._array, self._index, self._change = array, index, change
        self.shape = (len(index), *self[:1].shape[1:])

    def __len__(self) -> int:
        return len(self._index)

    def __getitem__(self, rows: slice) -> np.ndarray:
        block = np.asarray(self._array[self._index[rows]])
        return block if self._change is None else self._change(block)

    def take(self, rows: Sequence[int]) -> "Rows":
        """Some of these rows."""
        return Rows(self._array, self._index[rows], self._change)

    def changed(self, change: Callable[[np.ndarray], np.ndarray]) -> "Rows":
        """The same rows as a function of blocks makes them."""
        return Rows(self._array, self._index, change)


def blocks(rows: np.ndarray | Rows) -> Iterator[np.ndarray]:
    """All rows, so many at a time that they take little memory."""
    return (rows[begin : begin + BLOCK] for begin in range(0, len(rows), BLOCK))
