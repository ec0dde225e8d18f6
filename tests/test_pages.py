"""The Python code of README.md and of all pages of docs as it stands: a page's blocks run one after
the other, with what the page leaves to its reader."""

import re
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from test_interchange_files import write_keras
from torchvision import models

from fastrnn.captioning import prepare
from fastrnn.text.grammar import make_reviews
from fastrnn.vision.style.settings import SETTINGS
from fastrnn.vision.transfer import programs

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
PAGES = {path.relative_to(DOCS).as_posix(): path for path in sorted(DOCS.rglob("*.md"))} | {
    name: ROOT / name for name in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md", "SECURITY.md")
}
# Quotes of the examples, which tests/test_distributed.py compares and runs; a line to be written.
QUOTES = {"distributed.md", "extending.md"}
# Beside those of Sphinx, in braces.
LANGUAGES = ("python", "sh", "c", "")


def blocks(path: Path, language: str = "python") -> list[tuple[int, str]]:
    """The fenced blocks of a page in a language: the line that each begins after, and its code."""
    found, text = [], path.read_text(encoding="utf-8")
    for fence in re.finditer(r"^( *)```([^`\n]*)\n(.*?)^\1```$", text, re.DOTALL | re.MULTILINE):
        if fence[2] == language:
            code = re.sub(rf"^{fence[1]}", "", fence[3], flags=re.MULTILINE)
            found.append((text.count("\n", 0, fence.start(3)), code))
    return found


def published(monkeypatch, folder, name):
    """Random weights where torch keeps those that it has downloaded."""
    monkeypatch.setenv("TORCH_HOME", str(folder / "torch"))
    path = folder / "torch/hub/checkpoints" / Path(models.get_model_weights(name).DEFAULT.url).name
    path.parent.mkdir(parents=True)
    torch.manual_seed(0)
    torch.save(models.get_model(name).state_dict(), path)


def pictures(folder, *names):
    for seed, name in enumerate(names):
        pixels = np.random.default_rng(seed).integers(0, 256, (64, 80, 3), dtype=np.uint8)
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(folder / name)


def reviews():
    texts, labels, _ = make_reviews(60, seed=0)
    return {"texts": texts, "labels": labels}


def of_captioning(folder, monkeypatch):
    prepare.prepare_scenes(folder / "data", 20, 12, seed=0)
    return {}


def of_interchange(folder, monkeypatch):
    write_keras(folder / "model.keras")
    return {}


def of_style(folder, monkeypatch):
    published(monkeypatch, folder, "squeezenet1_1")
    pictures(folder, "photo.jpg", "starry_night.jpg")
    # The first steps of a scale may lead up, which is an error where there are no more.
    monkeypatch.setitem(SETTINGS, "steps", SETTINGS["steps"]._replace(default=15))
    return {}


def of_text(folder, monkeypatch):
    given = reviews()
    words = sorted({word for text in given["texts"] for word in text.split()})
    rows = (f"{word}{' 0.1' * 100}\n" for word in words)
    with zipfile.ZipFile(folder / "glove.6B.zip", "w") as archive:
        archive.writestr("glove.6B.100d.txt", "".join(rows))
    return given | {"many_texts": given["texts"]}


def of_torch(folder, monkeypatch):
    return {
        "Tagger": lambda: torch.nn.ModuleDict({"lstm": torch.nn.LSTM(3, 4)}),
        "train": lambda model: model["lstm"](torch.zeros(5, 3, 3))[0].sum().backward(),
        "torch": torch,
    }


def of_transfer(folder, monkeypatch):
    published(monkeypatch, folder, "resnet18")
    splits = [f"{split}/{name}" for split in ("train", "val") for name in ("ants", "bees")]
    pictures(folder / "photos", *(f"{split}/{i}.jpg" for split in splits for i in range(2)))
    given = {"weights": "none", "image_size": 64, "epochs": 1}
    with programs.begin("run", "photos", given) as job:
        job.run()
        job.finish()
    return {}


GIVEN = {
    "captioning.md": of_captioning,
    "interchange.md": of_interchange,
    "style.md": of_style,
    "text.md": of_text,
    "torch.md": of_torch,
    "transfer.md": of_transfer,
}


@pytest.mark.parametrize(
    "page", [p for p, path in PAGES.items() if blocks(path) and p not in QUOTES]
)
def test_the_code_of_a_page_runs(page, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    names = GIVEN[page](tmp_path, monkeypatch) if page in GIVEN else {}
    with torch._dynamo.config.patch(allow_rnn=False):  # which a page sets
        for line, code in blocks(PAGES[page]):
            exec(compile("\n" * line + code, PAGES[page], "exec"), names)


@pytest.mark.parametrize("page", PAGES)
def test_every_fence_is_of_a_language_that_is_looked_at(page):
    text = PAGES[page].read_text(encoding="utf-8")
    known = sum(len(blocks(PAGES[page], language)) for language in LANGUAGES)
    directives = len(re.findall(r"^```\{", text, re.MULTILINE))
    assert 2 * (known + directives) == len(re.findall(r"^ *(```|~~~)", text, re.MULTILINE))
