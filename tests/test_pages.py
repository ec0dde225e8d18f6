"""The code of the documents' pages, each in one process, as it stands."""

import re
from pathlib import Path

import pytest
from test_interchange_files import write_keras

DOCS = Path(__file__).parents[1] / "docs"


@pytest.mark.parametrize("page", ["cells", "interchange", "nn"])
def test_the_code_of_a_page_runs(page, tmp_path, monkeypatch):
    path = DOCS / f"{page}.md"
    code = "\n".join(re.findall(r"```python\n(.*?)```", path.read_text(encoding="utf-8"), re.S))
    write_keras(tmp_path / "model.keras")
    monkeypatch.chdir(tmp_path)
    exec(compile(code, path, "exec"), {})
