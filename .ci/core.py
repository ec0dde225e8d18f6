"""Tests of the fastrnn that this Python has installed: those named, else the core.

python core.py [NAME...]; the core has no programs and needs the dependency group "core". They run
from a copy, where nothing of this tree can be imported.
"""

import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

TREE = Path(__file__).parent.parent
CORE = ["checks", "gradients", "memory", "options", "parity", "seeds", "streaming"]

with tempfile.TemporaryDirectory() as copy:
    shutil.copy(TREE / "pyproject.toml", copy)
    shutil.copytree(TREE / "tests", Path(copy, "tests"))
    tests = [f"tests/test_{name}.py" for name in sys.argv[1:] or CORE]
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *tests]
    sys.exit(subprocess.run(command, cwd=copy).returncode)
