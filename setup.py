"""Builds the extension; everything else stands in pyproject.toml.

FASTRNN_NO_EXTENSION=1 installs the NumPy backend alone.
"""

import json
import os
import sys
import tempfile
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from glob import glob
from pathlib import Path

import Cython
import numpy
from setuptools import Extension, setup
from setuptools.command.bdist_wheel import bdist_wheel
from setuptools.command.build_ext import build_ext
from setuptools.errors import CompileError, LinkError, SetupError

# Whose code is compiled into the extension, and its licence.
COMPILED_IN = [
    ("cython", Cython.__version__, "Apache-2.0"),
    ("numpy", numpy.__version__, "BSD-3-Clause"),
]


class BuildExt(build_ext):
    def build_extensions(self):
        if self.compiler.compiler_type == "msvc":
            raise SetupError(
                "fastrnn: the kernels need GCC or Clang (on Windows: MinGW), not MSVC; "
                "FASTRNN_NO_EXTENSION=1 installs the NumPy backend alone"
            )
        if not self.compiles("int main(void) { return 0; }\n"):
            raise SetupError(
                f"fastrnn: no working C compiler ({' '.join(self.compiler.compiler_so)}); install "
                "GCC or Clang, or set FASTRNN_NO_EXTENSION=1 for the NumPy backend alone"
            )
        # Nothing of -ffast-math, whatever CFLAGS say: where one links it makes subnormal numbers 0
        # in the whole process. Multiply-adds may be fused; sqrt need not set errno.
        common = ["-O3", "-fno-fast-math", "-pthread"]
        flags = ["-std=gnu11", "-fvisibility=hidden", "-ffp-contract=fast", "-fno-math-errno"]
        for extension in self.extensions:
            extension.extra_compile_args = common + flags
            extension.extra_link_args = common
        self.compiler.compile = at_once(self.compiler.compile)
        super().build_extensions()

    def compiles(self, program: str) -> bool:
        """Whether the compiler in use compiles and links a C program."""
        with tempfile.TemporaryDirectory() as folder:
            source = Path(folder, "program.c")
            source.write_text(program)
            try:
                objects = self.compiler.compile([str(source)], folder)
                self.compiler.link_executable(objects, f"{folder}/program")
            except (CompileError, LinkError):
                return False
        return True


def at_once(compile_one: Callable[..., list[str]]) -> Callable[..., list[str]]:
    """A compiler's compile that has a source compiled on each CPU: those of the kernels take half a
    minute each."""

    def compile_all(sources: list[str], **keywords: object) -> list[str]:
        with ThreadPoolExecutor(os.cpu_count()) as pool:
            made = pool.map(lambda source: compile_one([source], **keywords), sources)
            return [file for files in made for file in files]

    return compile_all


class BdistWheel(bdist_wheel):
    """A wheel with its software bill of materials (CycloneDX), where PEP 770 has it."""

    def write_wheelfile(self, wheelfile_base, *args, **keywords):
        super().write_wheelfile(wheelfile_base, *args, **keywords)
        whole = self.distribution
        licence = whole.metadata.license_expression
        product = component(whole.get_name(), whole.get_version(), licence)
        parts = [component(*part) for part in COMPILED_IN if whole.has_ext_modules()]
        bill = {
            "bomFormat": "CycloneDX",
            "specVersion": "1.6",
            "metadata": {"component": product},
            "components": parts,
            "dependencies": [
                {"ref": product["bom-ref"], "dependsOn": [part["bom-ref"] for part in parts]}
            ],
        }
        path = Path(wheelfile_base, "sboms", "fastrnn.cdx.json")
        path.parent.mkdir(exist_ok=True)
        path.write_text(json.dumps(bill, indent=1) + "\n")


def component(name: str, version: str, licence: str) -> dict[str, object]:
    """A component of a bill of materials."""
    url = f"pkg:pypi/{name}@{version}"
    return {
        "type": "library",
        "bom-ref": url,
        "name": name,
        "version": version,
        "licenses": [{"expression": licence}],
        "purl": url,
    }


numpy_api = {
    "include_dirs": ["src_c", numpy.get_include()],
    # CFLAGS of the environment replace Python's own, which have NDEBUG.
    "define_macros": [("NPY_NO_DEPRECATED_API", "NPY_1_7_API_VERSION"), ("NDEBUG", None)],
}
checks = Extension("fastrnn.layers._plain", ["fastrnn/layers/_plain.pyx"], **numpy_api)
of_torch = {**numpy_api, "depends": ["fastrnn/torch/_arrays.pxd"]}
arrays = Extension("fastrnn.torch._arrays", ["fastrnn/torch/_arrays.pyx"], **of_torch)
steps = Extension("fastrnn.torch._steps", ["fastrnn/torch/_steps.pyx"], **of_torch)
pxd = sorted(glob("fastrnn/backends/*.pxd"))
memory = Extension(
    "fastrnn.backends._memory",
    ["fastrnn/backends/_memory.pyx", "src_c/pool.c"],
    **numpy_api,
    depends=["src_c/pool.h", "src_c/clock.h", "src_c/thread.h", *pxd],
)
rows = Extension(
    "fastrnn.backends._rows",
    ["fastrnn/backends/_rows.pyx"],
    **numpy_api,
    depends=["src_c/cells/all.h", "src_c/kernels.h", "src_c/layer.h", "src_c/plan.h", *pxd],
)
kernels = Extension(
    "fastrnn.backends._kernels",
    ["fastrnn/backends/_kernels.pyx", *sorted({*glob("src_c/*.c")} - {"src_c/pool.c"})],
    **numpy_api,
    depends=sorted([*glob("src_c/*.h"), *glob("src_c/cells/*.h"), *pxd]),
)
without = os.environ.get("FASTRNN_NO_EXTENSION") == "1" and "sdist" not in sys.argv
setup(
    ext_modules=[] if without else [checks, arrays, steps, memory, kernels, rows],
    cmdclass={"bdist_wheel": BdistWheel, "build_ext": BuildExt},
)
