"""A peer's worker seen from outside: its process, its environment, its commands."""

import json
import os
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

# What holds peers to an instruction set: PyTorch's loops and the libraries that multiply for it,
# oneDNN also in OpenVINO's recurrent layers, NumPy's BLAS and its loops by all names that they had,
# the loops that XLA makes.
HELD = {
    "avx2": {
        "ATEN_CPU_CAPABILITY": "avx2",
        "MKL_ENABLE_INSTRUCTIONS": "AVX2",
        "ONEDNN_MAX_CPU_ISA": "AVX2",
        "OPENBLAS_CORETYPE": "Haswell",
        "NPY_DISABLE_CPU_FEATURES": "AVX512F AVX512CD AVX512_KNL AVX512_KNM AVX512_SKX AVX512_CLX "
        "AVX512_CNL AVX512_ICL AVX512_SPR X86_V4",  # those that it does not know it warns of
        "XLA_FLAGS": "--xla_cpu_max_isa=AVX2",
    }
}
# What nothing holds, by peer: these ask the CPU alone, as does the library by which XLA multiplies.
UNHELD = {
    "onnxruntime": "onnxruntime",
    "tract": "tract",
    "ncnn": "ncnn",
    "jax": "the matrix products of jax",
}


def environment(peer: str, threads: int, isa: str) -> dict[str, str]:
    """The environment in which a peer uses that many threads, and fastrnn and whoever can be held
    to it that instruction set ("best", which is FASTRNN_ISA where that is set, or a name)."""
    count = str(threads)
    env = os.environ | {
        "OMP_NUM_THREADS": count,
        # NumPy's BLAS is a peer in one process and only in the way in the others.
        "OPENBLAS_NUM_THREADS": count if peer == "numpy" else "1",
        # Its threads sleep after 2**22 cycles: as fast as after its own 100 ms, which others would
        # have to wait for.
        "OPENBLAS_THREAD_TIMEOUT": "22",
        "MKL_NUM_THREADS": count,
        "NPROC": count,  # what XLA takes for the size of its thread pool
        "JAX_PLATFORMS": "cpu",
        "CUDA_VISIBLE_DEVICES": "",
    }
    if isa != "best":
        env["FASTRNN_ISA"] = isa
    held = HELD.get(env.get("FASTRNN_ISA"), {})
    if "XLA_FLAGS" in held and "XLA_FLAGS" in env:
        held = held | {"XLA_FLAGS": f"{env['XLA_FLAGS']} {held['XLA_FLAGS']}"}
    return env | held


class Peer:
    """A worker process, whose files are in a folder; use as a context manager."""

    def __init__(self, name: str, folder: Path, threads: int, isa: str = "best") -> None:
        self.name = name
        self._process = subprocess.Popen(
            [sys.executable, "-m", "fastrnn.benchmarks.worker", name, str(folder)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            # What torch.compile keeps of another instruction set it would take for this one's.
            env=environment(name, threads, isa) | {"TORCHINDUCTOR_CACHE_DIR": f"{folder}/inductor"},
            start_new_session=True,  # Ctrl-C is this process's business
        )

    def __enter__(self) -> "Peer":
        return self

    def __exit__(self, *error: object) -> None:
        with suppress(BrokenPipeError):  # it has died, and a command was on its way
            self._process.stdin.close()
        self._process.stdout.close()
        if error[0]:
            self._process.kill()  # it may be in the middle of minutes of work
        self._process.wait()

    def ask(self, do: str, **arguments: object) -> object:
        """The answer to a command. Raises RuntimeError with the worker's error, or where it has
        died."""
        try:
            self._process.stdin.write(json.dumps({"do": do, **arguments}) + "\n")
            self._process.stdin.flush()
            answer = json.loads(self._process.stdout.readline())
        except (BrokenPipeError, json.JSONDecodeError):
            raise RuntimeError(f"the peer {self.name} died; its error is above") from None
        if "error" in answer:
            raise RuntimeError(f"the peer {self.name}: {answer['error']}")
        return answer["answer"]
