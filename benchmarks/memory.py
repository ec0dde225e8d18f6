"""How much memory a process takes."""

import resource
import sys
from pathlib import Path


def resident_bytes() -> int:
    """Resident size of this process now; its largest one where the system tells no other."""
    return _linux("VmRSS") or _largest()


def peak_resident_bytes() -> int:
    """Largest resident size of this process so far."""
    # Not the largest one of getrusage, where Linux counts what the parent was at the fork.
    return _linux("VmHWM") or _largest()


def _linux(field: str) -> int | None:
    try:
        lines = Path("/proc/self/status").read_text().splitlines()
        kilobytes = next(line.split()[1] for line in lines if line.startswith(f"{field}:"))
    except (OSError, StopIteration):
        return None
    return int(kilobytes) * 1024


def _largest() -> int:
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
