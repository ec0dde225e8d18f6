"""Files of captions as they are published, and which pictures of a folder they mean."""

import csv
import io
import json
import re
import unicodedata
from collections import defaultdict
from collections.abc import Collection, Iterable
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

from fastrnn.captioning.vocabulary import tokenize
from fastrnn.storage import named, reading
from fastrnn.vision.images import find_images, suffixes

# What files call a split, and what it is here.
SPLIT_NAMES = {
    **dict.fromkeys(("train", "restval"), "train"),
    **dict.fromkeys(("val", "valid", "validation", "dev"), "val"),
    "test": "test",
}
# Columns by what is in them, under the names that published files give them.
COLUMNS = {
    "image": ("image", "image_name", "filename", "file_name", "filepath"),
    "caption": ("caption", "comment"),
    "split": ("split",),
}
DELIMITERS = {",": "CSV", "\t": "TSV", ";": "CSV with semicolons", "|": "CSV with bars"}
# Flickr8k.token.txt, and Flickr30k's results.csv, in which a line lacks its second bar.
_TOKEN = re.compile(r"(?P<image>[^\t]+)#\d+\t(?P<caption>.*)")
_RESULTS = re.compile(r"(?P<image>[^|]+)\|\s*\d+\s*\|?(?P<caption>.*)")
_RESULTS_HEADER = ["image_name", "comment_number", "comment"]
# The lists of pictures that are published beside Flickr8k.token.txt.
_LISTS = {split: f"Flickr_8k.{split}Images.txt" for split in ("train", "dev", "test")}


class CaptionFile(NamedTuple):
    """captions and, where the file has them, splits by picture; problems, a line each; kind, what
    the file was taken for."""

    captions: dict[str, list[str]]
    splits: dict[str, str]
    problems: list[str]
    kind: str


class _Row(NamedTuple):
    image: str
    caption: str
    split: str | None = None


def read_captions(path: Path | str) -> CaptionFile:
    """Read captions by picture, and the splits that the file names.

    Inputs: path of a CSV or TSV file with the columns image and caption, perhaps split; COCO's
    captions JSON; Karpathy's dataset JSON; Flickr8k.token.txt, with the lists of pictures that are
    published beside it, if they are; Flickr30k's results.csv.
    An empty caption is left out and named. Raises FileNotFoundError, and ValueError that names the
    file, and the line at fault, for any other content and for what can be read in two ways.
    """
    path = Path(path)
    if not path.exists():
        raise FileNotFoundError(f"{path}: no such file")
    with reading(path, "UTF-8"):
        text = path.read_bytes().decode("utf-8-sig")
    is_json = text.lstrip()[:1] in ("{", "[")
    with named(path, "a JSON file" if is_json else "CSV"):
        kind, rows = (_of_json if is_json else _of_text)(path, text)
        return _by_picture(path, kind, rows)


def _by_picture(path: Path, kind: str, rows: Iterable[_Row]) -> CaptionFile:
    captions: dict[str, list[str]] = {}
    splits: dict[str, str] = {}
    problems = []
    for image, caption, split in rows:
        if split is not None:
            if split not in SPLIT_NAMES:
                expected = ", ".join(SPLIT_NAMES)
                raise ValueError(f"{path}: {image}: split: expected {expected}, got {split!r}")
            split = SPLIT_NAMES[split]
            if splits.setdefault(image, split) != split:
                raise ValueError(f"{path}: {image}: in the splits {splits[image]} and {split}")
        if tokenize(caption):
            captions.setdefault(image, []).append(caption)
        else:
            problems.append(f"{image}: a caption without words ({caption.strip()!r})")
    if not captions:
        raise ValueError(f"{path}: no captions")
    return CaptionFile(captions, splits, problems, kind)


# ---- lines of text -------------------------------------------------------------------------------


def _of_text(path: Path, text: str) -> tuple[str, list[_Row]]:
    first = io.StringIO(text, newline="").readline().rstrip("\r\n")
    if _TOKEN.fullmatch(first):
        kind, splits = "Flickr8k's token file", _published_splits(path)
        rows = _of_lines(path, text.split("\n"), _TOKEN, 1)
        if any(row.image in splits for row in rows):
            kind += f", splits of {', '.join(_LISTS.values())}"
            # Pictures that no list has are published, too.
            rows = [row._replace(split=splits[row.image]) for row in rows if row.image in splits]
        return kind, rows
    if [name.strip() for name in first.split("|")] == _RESULTS_HEADER:
        lines = text.split("\n")[1:]
        return "Flickr30k's results.csv", _of_lines(path, lines, _RESULTS, 2)
    return _of_table(path, text, first)


def _of_lines(path: Path, lines: list[str], form: re.Pattern, number: int) -> list[_Row]:
    """Rows of lines that all have one form; number is the first line's."""
    rows = []
    for i, line in enumerate(lines, number):
        if not line.strip():
            continue
        match = form.fullmatch(line.rstrip("\r"))
        if match is None:
            raise ValueError(f"{path}:{i}: expected a line like those before, got {line!r:.80}")
        rows.append(_Row(*(match[name].strip(" \t") for name in ("image", "caption"))))
    return rows


def _published_splits(path: Path) -> dict[str, str]:
    """Split by picture, where the lists lie beside the file."""
    lists = {split: path.with_name(name) for split, name in _LISTS.items()}
    if not all(file.is_file() for file in lists.values()):
        return {}
    splits = {}
    for split, file in lists.items():
        with reading(file, "UTF-8"):
            names = file.read_text(encoding="utf-8").split("\n")
        splits |= {name.strip(): split for name in names}
    return splits


def _of_table(path: Path, text: str, first: str) -> tuple[str, list[_Row]]:
    """Rows of a file with a header."""
    headers = {d: next(csv.reader([first], delimiter=d), []) for d in DELIMITERS}
    found = {d: _columns(path, names) for d, names in headers.items()}
    found = {d: at for d, at in found.items() if {"image", "caption"} <= at.keys()}
    if not found:
        raise ValueError(f"{path}: expected the columns image,caption, got {headers[',']}")
    if len(found) > 1:
        kinds = " or ".join(DELIMITERS[d] for d in found)
        raise ValueError(f"{path}: {kinds}? its first line is {first!r:.80}")
    ((delimiter, at),) = found.items()
    names = [headers[delimiter][i] for i in at.values()]
    kind = f"{DELIMITERS[delimiter]} with the columns {', '.join(names)}"
    return kind, _of_records(path, text, delimiter, at, len(headers[delimiter]))


def _columns(path: Path, names: list[str]) -> dict[str, int]:
    """Where in a header the image, the caption and the split are."""
    at: dict[str, int] = {}
    for i, name in enumerate(names):
        for column, known in COLUMNS.items():
            if name.strip().lower() in known:
                if column in at:
                    both = f"{names[at[column]]!r} and {name!r}"
                    raise ValueError(f"{path}: expected one column of {column}s, got {both}")
                at[column] = i
    return at


def _of_records(
    path: Path, text: str, delimiter: str, at: dict[str, int], width: int
) -> list[_Row]:
    lines = [*io.StringIO(text, newline="")]
    records = csv.reader(lines, delimiter=delimiter)
    rows, begin = [], 0

    def check_quotes() -> None:
        inner = lines[begin + 1 : records.line_num]
        _check_quotes(path, begin + 1, inner, delimiter, at["image"], width)

    try:
        for record in records:
            # An unquoted comma belongs to the caption where that is the last column.
            if len(record) > width and at["caption"] == width - 1:
                record[width - 1 :] = [delimiter.join(record[width - 1 :])]
            if begin and record:
                check_quotes()
                if len(record) != width or not record[at["image"]].strip():
                    raise ValueError(
                        f"{path}:{records.line_num}: expected {','.join(at)}, got {record}"
                    )
                rows.append(_Row(**{name: record[i].strip(" \t") for name, i in at.items()}))
            begin = records.line_num
    except csv.Error as error:  # such as a field that goes on and on
        check_quotes()
        raise ValueError(f"{path}:{begin + 1}: {error}") from None
    return rows


def _check_quotes(
    path: Path, number: int, inner: list[str], delimiter: str, image: int, width: int
) -> None:
    """Raise ValueError where the lines that a quote, opened on a line of this number, has taken in
    are records of their own."""
    parts = (next(csv.reader([line], delimiter=delimiter), []) for line in inner)
    taken = sum(len(p) >= width and _is_picture(p[image]) for p in parts)
    if taken:
        raise ValueError(f"{path}:{number}: a quote that opens here takes in {taken} records below")


def _is_picture(name: str) -> bool:
    return name.strip().lower().endswith((*suffixes(),))


# ---- JSON ----------------------------------------------------------------------------------------


def _of_json(path: Path, text: str) -> tuple[str, list[_Row]]:
    expected = f"{path}: expected COCO's captions or Karpathy's dataset"
    try:
        content = json.loads(text)
        images = content["images"]
        of_coco, of_karpathy = "annotations" in content, any("sentences" in i for i in images)
        if of_coco and of_karpathy:
            raise ValueError(f"{expected}, got both: annotations, and images with sentences")
        kind = "COCO's captions" if of_coco else "Karpathy's dataset"
        rows = _of_coco(content) if of_coco else _of_karpathy(images)
    except KeyError as error:
        raise ValueError(f"{expected}, but {error} is missing") from None
    except (AttributeError, TypeError):
        raise ValueError(expected) from None
    for row in rows:
        if not isinstance(row.image, str) or not isinstance(row.caption, str):
            raise ValueError(
                f"{path}: {row.image}: expected text for a caption, got {row.caption!r}"
            )
    return kind, rows


def _of_coco(content: dict) -> list[_Row]:
    names = {image["id"]: image["file_name"] for image in content["images"]}
    # A name that no picture has stands for an annotation whose picture is not listed.
    return [
        _Row(names.get(note["image_id"], f"id {note['image_id']}"), note["caption"])
        for note in content["annotations"]
    ]


def _of_karpathy(images: list[dict]) -> list[_Row]:
    rows = []
    for image in images:
        name = "/".join(filter(None, (image.get("filepath"), image["filename"])))
        rows += [_Row(name, s["raw"], image["split"]) for s in image["sentences"]]
    return rows


# ---- pictures ------------------------------------------------------------------------------------


def match(names: Collection[str], folder: Path | str) -> tuple[dict[str, str], list[str]]:
    """Which pictures of a folder a captions file means.

    A name means the picture at that path from the folder, or the one of whose path it is the end,
    or that is its end: train2014/a.jpg may be a.jpg, and a.jpg train2014/a.jpg. Folders within are
    looked into where a name is not found without.
    Inputs: names, with / or \\ between folders; folder.
    Returns: name to path from the folder, without names of no picture; paths of all pictures.
    Raises ValueError where a name may be several pictures, or where two may be one.
    """
    folder = Path(folder)
    at_top = folder.is_dir() and set(names) <= {path.name for path in folder.iterdir()}
    pictures = find_images(folder, below=not at_top).pictures
    paths = [path.relative_to(folder).as_posix() for path in pictures]
    by_last, exact, found = defaultdict(list), set(paths), {}
    for path in paths:
        by_last[_parts(path)[-1]].append(path)
    for name in names:
        best = [name] if name in exact else _meant(_parts(name), by_last)
        if len(best) > 1:
            raise ValueError(f"{folder}: {name} may be {best[0]} or {best[1]}")
        if best:
            found[name] = best[0]
    _check_distinct(folder, found)
    return found, paths


def _parts(name: str) -> list[str]:
    """A name's folders and file, however they are written."""
    name = unicodedata.normalize("NFC", name).replace("\\", "/")
    return [part for part in name.split("/") if part not in ("", ".")] or [""]


def _is_end(one: list[str], other: list[str]) -> bool:
    n = min(len(one), len(other))
    return one[-n:] == other[-n:]


def _meant(parts: list[str], by_last: dict[str, list[str]]) -> list[str]:
    """The longest path that is a name's end, or else all that end with it."""
    like = [path for path in by_last.get(parts[-1], ()) if _is_end(parts, _parts(path))]
    ends = [path for path in like if len(_parts(path)) <= len(parts)]
    return [max(ends, key=lambda path: len(_parts(path)))] if ends else like


def _check_distinct(folder: Path, found: dict[str, str]) -> None:
    """Raise ValueError where two names of one picture differ in more than in how long they are."""
    names = defaultdict(list)
    for name, path in found.items():
        names[path].append(name)
    for path, same in names.items():
        same.sort(key=lambda name: len(_parts(name)))
        for one, other in pairwise(same):
            if not _is_end(_parts(one), _parts(other)):
                raise ValueError(f"{folder}: {path} may be {one} or {other}")
