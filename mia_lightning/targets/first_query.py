"""First query of an exported program in a process of its own, where a crash of its native operators is an exit code."""

import contextlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from mia_lightning.errors import MIAError
from mia_lightning.targets.base import TargetForm

SECONDS = 120.0
"""Time for the process to start, load the program and query it once."""

CODE = "from mia_lightning.targets.first_query import main; main()"

AGAIN = "export it again with torch.export.save and the installed version of torch"


def check_first_query(path: Path, shapes: Sequence[tuple[int, ...]], form: TargetForm) -> None:
    """Query a program once with noise in a child process, on the CPU. Exceptions in it are left to this process.

    Args:
        path: A program that `load_program` accepts.
        shapes: (C, H, W) of images to try, until the program takes one.
        form: Its resizing and transform precede the program.

    Raises:
        MIAError: a signal ended the child (a crash, or too little memory), or it did not end in time.
    """
    if not sys.executable:  # an embedded interpreter
        return
    request = {"path": str(path.resolve()), "shapes": shapes, "resize": form.resize, "transform": form.transform}
    folders = os.pathsep.join(folder or os.getcwd() for folder in sys.path)
    environment = os.environ | {"PYTHONPATH": folders, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    try:
        done = subprocess.run(
            [sys.executable, "-c", CODE],
            input=json.dumps(request).encode(),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            timeout=SECONDS,
            env=environment,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise MIAError(f"{path.name}: the program did not finish its first query in {SECONDS:g} s; {AGAIN}") from None
    if done.returncode < 0:
        raise MIAError(f"{path.name}: the program's first query ended its process ({_name(-done.returncode)}); {AGAIN}")


def main() -> None:
    """Run the request on standard input; the child's part of `check_first_query`."""
    import torch

    from mia_lightning.targets.exported import load_program
    from mia_lightning.targets.wrapper import TargetNetwork

    request = json.load(sys.stdin)
    torch.set_num_threads(1)
    program = load_program(Path(request["path"])).network
    inputs = TargetNetwork(program, TargetForm(resize=request["resize"], transform=request["transform"]))
    for shape in request["shapes"]:
        with contextlib.suppress(Exception), torch.inference_mode():
            program(inputs.inputs(torch.randn(8, *shape, generator=torch.Generator().manual_seed(0))))
            return


def _name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"
