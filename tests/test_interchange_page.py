"""The code of docs/interchange.md, all of it in one process, as it stands."""

import re
from pathlib import Path

from test_interchange_files import write_keras

PAGE = Path(__file__).parents[1] / "docs" / "interchange.md"


def test_the_code_of_the_page_runs(tmp_path, monkeypatch):
    code = "\n".join(re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.S))
    write_keras(tmp_path / "model.keras")
    monkeypatch.chdir(tmp_path)
    exec(compile(code, PAGE, "exec"), {})
    assert {path.name for path in tmp_path.iterdir()} >= {"encoder.safetensors", "gru.onnx"}
