"""Builds the extension; everything else stands in pyproject.toml.

FASTRNN_OPENMP=0 builds without OpenMP (single-threaded); FASTRNN_NO_EXTENSION=1 installs the NumPy
backend alone.
"""

import os
import sys
import tempfile
from glob import glob
from pathlib import Path

import numpy
from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext
from setuptools.errors import CompileError, LinkError, SetupError

OPENMP_PROGRAM = "#include <omp.h>\nint main(void) { return omp_get_max_threads() < 1; }\n"


class BuildExt(build_ext):
    def build_extensions(self):
        if self.compiler.compiler_type == "msvc":
            raise SetupError(
                "fastrnn: the kernels need GCC or Clang (on Windows: MinGW), not MSVC; "
                "FASTRNN_NO_EXTENSION=1 installs the NumPy backend alone"
            )
        if not self.links("int main(void) { return 0; }\n", []):
            raise SetupError(
                f"fastrnn: no working C compiler ({' '.join(self.compiler.compiler_so)}); install "
                "GCC or Clang, or set FASTRNN_NO_EXTENSION=1 for the NumPy backend alone"
            )
        flags = ["-O3", "-std=gnu11", "-fvisibility=hidden"]
        # Multiply-adds may be fused; sqrt need not set errno. Nothing of -ffast-math.
        flags += ["-ffp-contract=fast", "-fno-math-errno"]
        openmp = os.environ.get("FASTRNN_OPENMP", "1") != "0"
        if openmp and not self.links(OPENMP_PROGRAM, ["-fopenmp"]):
            print("fastrnn: the compiler has no OpenMP; building single-threaded kernels")
            openmp = False
        for extension in self.extensions:
            extension.extra_compile_args = flags + ["-fopenmp"] * openmp
            extension.extra_link_args = ["-fopenmp"] * openmp
        super().build_extensions()

    def links(self, program: str, flags: list[str]) -> bool:
        """Whether the compiler in use compiles and links a C program."""
        with tempfile.TemporaryDirectory() as folder:
            source = Path(folder, "program.c")
            source.write_text(program)
            try:
                objects = self.compiler.compile([str(source)], folder, extra_postargs=flags)
                self.compiler.link_executable(objects, f"{folder}/program", extra_postargs=flags)
            except (CompileError, LinkError):
                return False
        return True


numpy_api = {
    "include_dirs": ["src_c", numpy.get_include()],
    "define_macros": [("NPY_NO_DEPRECATED_API", "NPY_1_7_API_VERSION")],
}
checks = Extension("fastrnn.layers._plain", ["fastrnn/layers/_plain.pyx"], **numpy_api)
pxd = sorted(glob("fastrnn/backends/*.pxd"))
memory = Extension(
    "fastrnn.backends._memory",
    ["fastrnn/backends/_memory.pyx", "src_c/pool.c"],
    **numpy_api,
    depends=["src_c/pool.h", *pxd],
)
rows = Extension(
    "fastrnn.backends._rows",
    ["fastrnn/backends/_rows.pyx"],
    **numpy_api,
    depends=["src_c/kernels.h", "src_c/layer.h", "src_c/plan.h", *pxd],
)
kernels = Extension(
    "fastrnn.backends._kernels",
    ["fastrnn/backends/_kernels.pyx", *sorted({*glob("src_c/*.c")} - {"src_c/pool.c"})],
    **numpy_api,
    depends=sorted([*glob("src_c/*.h"), *glob("src_c/cells/*.h"), *pxd]),
)
without = os.environ.get("FASTRNN_NO_EXTENSION") == "1" and "sdist" not in sys.argv
setup(
    ext_modules=[] if without else [checks, memory, kernels, rows],
    cmdclass={"build_ext": BuildExt},
)
