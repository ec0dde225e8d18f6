"""One process of examples/distributed_text.py, as torchrun starts it, that also writes the
gradients of its first step.

replicas.py FOLDER, and what the example takes
"""

import os
import runpy
import sys
from pathlib import Path

import numpy as np
from torch.optim.optimizer import register_optimizer_step_pre_hook

EXAMPLE = Path(__file__).parents[1] / "examples" / "distributed_text.py"


def main(folder: str) -> None:
    path = Path(folder) / f"{os.environ['RANK']}.npz"

    def keep(optimizer, args, kwargs):
        (group,) = optimizer.param_groups
        np.savez(path, *(w.grad.numpy() for w in group["params"]))
        hook.remove()

    hook = register_optimizer_step_pre_hook(keep)
    runpy.run_path(str(EXAMPLE), run_name="__main__")


if __name__ == "__main__":
    main(sys.argv.pop(1))
