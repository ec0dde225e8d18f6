"""Files of captions as they are published, damaged ones, and the pictures that names mean."""

import json

import pytest
from PIL import Image

from fastrnn.captioning import files

HEADER = "image,caption\n"


def read(tmp_path, content, name="captions"):
    path = tmp_path / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return files.read_captions(path)


def coco(**more):
    images = [{"id": 1, "file_name": "a.jpg"}, {"id": 2, "file_name": "b.jpg"}]
    notes = [{"image_id": 1, "caption": "A cat"}, {"image_id": 2, "caption": "A dog, a cat"}]
    return json.dumps({"images": images, "annotations": notes} | more)


def karpathy(filepath=None, **more):
    images = [
        {"filename": name, "split": split, "sentences": [{"raw": text}]} | more
        for name, split, text in (("a.jpg", "restval", "A cat"), ("b.jpg", "test", "A dog, a cat"))
    ]
    if filepath:
        images = [image | {"filepath": filepath} for image in images]
    return json.dumps({"images": images})


PUBLISHED = {
    "Flickr8k's token file": "a.jpg#0\tA cat\nb.jpg#1\tA dog, a cat\n",
    "Flickr30k's results.csv": (
        "image_name| comment_number| comment\na.jpg| 0|  A cat\nb.jpg| 4   A dog, a cat\n"
    ),
    "CSV with the columns image, caption": 'image,caption\na.jpg,A cat\nb.jpg,"A dog, a cat"\n',
    "CSV with the columns filename, comment": "id,filename,comment\n0,a.jpg,A cat\n1,b.jpg,"
    "A dog, a cat\n",
    "TSV with the columns image_name, caption": "image_name\tcaption\na.jpg\tA cat\nb.jpg\t"
    "A dog, a cat",
    "CSV with semicolons with the columns caption, image": "caption;image\nA cat;a.jpg\n"
    "A dog, a cat;b.jpg\n",
    "COCO's captions": coco(),
}


@pytest.mark.parametrize("kind", PUBLISHED)
@pytest.mark.parametrize("change", [str, lambda s: s.replace("\n", "\r\n"), lambda s: "\ufeff" + s])
def test_published_files_are_read_as_they_come(tmp_path, kind, change):
    found = read(tmp_path, change(PUBLISHED[kind]))
    assert found.captions.keys() == {"a.jpg", "b.jpg"}
    said = [[text.split() for text in texts] for texts in found.captions.values()]
    assert said == [[["A", "cat"]], [["A", "dog,", "a", "cat"]]]
    assert (found.splits, found.problems, found.kind) == ({}, [], kind)


def test_splits_are_those_of_the_file(tmp_path):
    names = ("train", "restval", "val", "dev", "validation", "test")
    rows = "".join(f"{i}.jpg,A cat,{name}\n" for i, name in enumerate(names))
    found = read(tmp_path, "image,caption,split\n" + rows).splits
    assert [*found.values()] == ["train", "train", "val", "val", "val", "test"]
    found = read(tmp_path, karpathy("val2014"))
    assert found.kind == "Karpathy's dataset"
    assert found.splits == {"val2014/a.jpg": "train", "val2014/b.jpg": "test"}
    assert found.captions == {"val2014/a.jpg": ["A cat"], "val2014/b.jpg": ["A dog, a cat"]}


def test_flickr8ks_lists_are_its_splits(tmp_path):
    for split, name in (("train", "a"), ("dev", "b"), ("test", "c")):
        (tmp_path / f"Flickr_8k.{split}Images.txt").write_text(f"{name}.jpg\n")
    text = "".join(f"{name}.jpg#0\tA cat\n" for name in "abcd")
    found = read(tmp_path, text, "Flickr8k.token.txt")
    assert found.splits == {"a.jpg": "train", "b.jpg": "val", "c.jpg": "test"}
    assert found.captions.keys() == found.splits.keys()  # d is in no list
    assert read(tmp_path, "x.jpg#0\tA cat\n").splits == {}  # of another data set
    assert "splits of Flickr_8k.trainImages.txt" in found.kind


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("image,caption,split\na.jpg,A cat,tran\n", "a.jpg: split: expected train, .*got 'tran'"),
        ("image,caption,split\na.jpg,A cat,\n", "split: expected train, .*got ''"),
        (
            "image,caption,split\na.jpg,A cat,val\na.jpg,A dog,test\n",
            "a.jpg: in the splits val and test",
        ),
        ("image,filename,caption\na,b,c\n", "expected one column of images, got 'image' and 'file"),
        ("picture,text\n", "expected the columns image,caption, got .'picture', 'text'"),
        ("image,caption,x;image;caption\n", "CSV or CSV with semicolons.? its first line is"),
        (coco(images=[{"sentences": [], "file_name": "a", "id": 1}]), "got both"),
        (karpathy(split="dev2"), "split: expected train"),
        ("a.jpg#0\tA cat\nb.jpg A dog\n", r"captions:2: expected a line like those before"),
        (
            "image_name| comment_number| comment\na.jpg| A cat\n",
            r"captions:2: expected a line like",
        ),
        ("caption,image\nA cat,b,a.jpg\n", "captions:2: expected caption,image, got"),
    ],
)
def test_what_is_ambiguous_or_broken_is_refused(tmp_path, content, message):
    with pytest.raises(ValueError, match=message) as error:
        read(tmp_path, content)
    assert str(tmp_path / "captions") in str(error.value)


# ---- quotes --------------------------------------------------------------------------------------

ROWS = [f"{i}.jpg,A cat number {i}\n" for i in range(60)]


@pytest.mark.parametrize("at", [0, 8, 59])
@pytest.mark.parametrize("end", ['58.jpg,He says "\n', '58.jpg,"A dog"\n', "58.jpg,A cat\n"])
@pytest.mark.parametrize("order", [1, -1])
def test_a_stray_quote_takes_in_no_rows(tmp_path, at, end, order):
    """Whether it closes with the end of a line, before a field, or never."""
    rows = [*ROWS]
    rows[58] = end
    rows[at] = f'{at}.jpg,"A cat number {at}\n'
    if order < 0:
        rows = [",".join(reversed(row.rstrip("\n").split(","))) + "\n" for row in rows]
        header = "caption,image\n"
        if at == 59:  # it closes nowhere, and its own row has no image
            with pytest.raises(ValueError, match=":61: "):
                read(tmp_path, header + "".join(rows))
            return
    else:
        header = HEADER
    if at == 59:  # there is nothing left to take in
        assert len(read(tmp_path, header + "".join(rows)).captions) == 60
        return
    with pytest.raises(ValueError, match=rf"captions:{at + 2}: a quote that opens here takes in "):
        read(tmp_path, header + "".join(rows))


def test_a_quote_that_never_closes_is_named_where_it_opens(tmp_path):
    """Also where csv gives up on so long a field."""
    rows = [f"{i}.jpg,{'A cat ' * 20}\n" for i in range(5000)]
    rows[3] = '3.jpg,"A cat\n'
    with pytest.raises(ValueError, match=r"captions:5: a quote that opens here takes in \d+ rec"):
        read(tmp_path, HEADER + "".join(rows))


def test_quotes_within_captions_stay(tmp_path):
    rows = 'a.jpg,A 5" dog\nb.jpg,"A ""big"" dog,\nof 3.jpg"\nc.jpg,"Stop" signs\nd.jpg,\'a\n'
    found = read(tmp_path, HEADER + rows).captions
    assert found["a.jpg"] == ['A 5" dog']
    assert found["b.jpg"] == ['A "big" dog,\nof 3.jpg']
    assert found["c.jpg"] == ["Stop signs"]
    assert len(found) == 4


# ---- the pictures that names mean ----------------------------------------------------------------


def folder(tmp_path, *names):
    for name in names:
        path = tmp_path / "photos" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (2, 2)).save(path)
    return tmp_path / "photos"


@pytest.mark.parametrize(
    ("there", "names"),
    [
        (["a.jpg"], ["a.jpg", "./a.jpg", "train2014/a.jpg", "/data/photos/a.jpg", "..\\x\\a.jpg"]),
        (["a.jpg"], ["C:\\data\\a.jpg"]),
        (["v/a.jpg"], ["a.jpg", "v/a.jpg", ".\\v\\a.jpg", "/x/v/a.jpg", "v//a.jpg"]),
        (["a.jpg", "v/a.jpg"], ["a.jpg", "./a.jpg", "w/a.jpg"]),
        (["t/v/a.jpg", "v/w/a.jpg"], ["t/v/a.jpg", "v/a.jpg", "x/t/v/a.jpg"]),
        (["a\\b.jpg", "b.jpg"], ["a\\b.jpg"]),
        (["e\u0301.jpg"], ["\u00e9.jpg", "x/\u00e9.jpg"]),
    ],
)
def test_names_mean_the_picture_at_their_end(tmp_path, there, names):
    photos = folder(tmp_path, *there)
    for name in names:
        assert files.match([name], photos)[0] == {name: there[0]}, name
    absolute = str(photos / there[0])
    assert files.match([absolute], photos)[0] == {absolute: there[0]}


def test_folders_within_are_looked_into_where_names_ask_for_them(tmp_path):
    photos = folder(tmp_path, "a.jpg", "thumbs/a.jpg", ".hidden/b.jpg")
    assert files.match(["a.jpg"], photos) == ({"a.jpg": "a.jpg"}, ["a.jpg"])
    found, there = files.match(["a.jpg", "b.jpg"], photos)
    assert (found, sorted(there)) == ({"a.jpg": "a.jpg"}, ["a.jpg", "thumbs/a.jpg"])
    (tmp_path / "linked").mkdir()
    (tmp_path / "linked/train").symlink_to(photos)
    assert files.match(["train/a.jpg"], tmp_path / "linked")[0] == {"train/a.jpg": "train/a.jpg"}


@pytest.mark.parametrize(
    ("there", "names", "message"),
    [
        (["v/a.jpg", "w/a.jpg"], ["a.jpg"], "a.jpg may be v/a.jpg or w/a.jpg"),
        (["a.jpg"], ["v/a.jpg", "w/a.jpg"], "a.jpg may be v/a.jpg or w/a.jpg"),
        (["a.jpg"], ["a.jpg", "v/a.jpg", "w/a.jpg"], "a.jpg may be v/a.jpg or w/a.jpg"),
    ],
)
def test_names_of_two_meanings_are_refused(tmp_path, there, names, message):
    with pytest.raises(ValueError, match=message):
        files.match(names, folder(tmp_path, *there))


def test_a_name_of_another_folder_is_no_picture(tmp_path):
    assert files.match(["train2014/a.jpg"], folder(tmp_path, "val2014/a.jpg"))[0] == {}
