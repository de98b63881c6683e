"""Reading and first query of an exported program in a process of its own.

torch's loader and native operators meet a file that a stranger wrote: a crash there is an exit code here, and time and
memory are bounded. What comes back is a plain description of the program (`program_graph`).
"""

import contextlib
import json
import os
import signal
import struct
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from hashlib import sha256
from pathlib import Path
from typing import Any

from numpy.typing import NDArray
from safetensors import SafetensorError

from mia_lightning.errors import MIAError, printable
from mia_lightning.security.archives import check_zip
from mia_lightning.security.exported_programs import check_program
from mia_lightning.targets.base import Target, TargetForm
from mia_lightning.targets.exported import Program, read_program
from mia_lightning.targets.program_graph import rebuild

SECONDS = 120.0
"""Time for the process to start, load the program and query it once."""

SPARE, RATIO = 6 * 2**30, 16
"""Bytes that the program may take in addition to the libraries: of any file, and for each byte of the file."""

CODE = "from mia_lightning.targets.first_query import main; main()"

AGAIN = "export it again with torch.export.save and the installed version of torch"

REFUSED = 3
"""Exit code of a child whose output is the sentence why."""


def load_program(
    path: Path, form: TargetForm, shape: tuple[int, ...] | None = None, sample: NDArray[Any] | None = None
) -> Target:
    """Return an exported program as a target; a child process loads the file and queries the program once.

    What its graph and tables show is refused before that process starts.

    Args:
        path: An archive of `torch.export`.
        form: Its resizing and transform precede the program.
        shape: Of one image, (C, H, W); None tries the usual sizes.
        sample: (N, ...) inputs of records that are not images.

    Raises:
        MIAError: the file is broken, needs to run code, crashes or hangs when it is loaded or queried, or is not a
            program from a dynamic batch of images to logits.
    """
    shape, dtype = (shape, None) if sample is None else (sample.shape[1:], str(sample.dtype))
    check_zip(path)
    check_program(path)
    description = read_in_child(path, form, shape, dtype)
    try:
        network, details = rebuild(description)
        program = Program(network, tuple(details["image_shape"])).eval()
        classes = int(details["classes"])
    except (ValueError, KeyError, TypeError, AttributeError, SafetensorError, struct.error) as error:
        raise MIAError(f"{path.name}: the process that reads it returned no program; {AGAIN}") from error
    return Target(program, classes, None, "torch.export", sha256(path.read_bytes()).hexdigest())


def read_in_child(path: Path, form: TargetForm, shape: tuple[int, ...] | None, dtype: str | None) -> bytes:
    """Return the description of a program that a child process loaded and queried once with noise, on the CPU.

    Args:
        path: An archive of `torch.export`.
        form: Its resizing and transform precede the program.
        shape: Of one input; None tries the usual sizes of images.
        dtype: Of inputs that are not images.

    Raises:
        MIAError: the program is refused, a signal ended the child (a crash, or too little memory), or it did not end in
            time. An exception of the query is left to this process.
    """
    request: dict[str, Any] = {"path": str(path.resolve()), "resize": form.resize, "transform": form.transform}
    request |= {"shape": shape, "dtype": dtype}
    if not sys.executable:  # an embedded interpreter
        return answer(request)
    folders = os.pathsep.join(folder or os.getcwd() for folder in sys.path)
    environment = os.environ | {"PYTHONPATH": folders, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    with tempfile.TemporaryFile() as output:
        try:
            done = subprocess.run(
                [sys.executable, "-c", CODE],
                input=json.dumps(request).encode(),
                stdout=output,
                stderr=subprocess.DEVNULL,
                timeout=SECONDS,
                env=environment,
                check=False,
            )
        except subprocess.TimeoutExpired:
            raise MIAError(
                f"{path.name}: the program did not finish its first query in {SECONDS:g} s; {AGAIN}"
            ) from None
        output.seek(0)
        content = output.read()
    if done.returncode == REFUSED and content:
        raise MIAError(printable(content.decode("utf-8", "replace"), 400))
    if done.returncode < 0:
        raise MIAError(f"{path.name}: the program's first query ended its process ({_name(-done.returncode)}); {AGAIN}")
    if done.returncode or not content:
        raise MIAError(f"{path.name}: the process that reads it ended with exit code {done.returncode}; {AGAIN}")
    return content


def main() -> None:
    """Run the request on standard input; the child's part of `read_in_child`."""
    output = os.dup(1)  # libraries print to standard output
    os.dup2(2, 1)
    request = json.load(sys.stdin)
    try:
        import torch

        import mia_lightning.targets.inputs  # noqa: F401  (before the limit)

        torch.set_num_threads(1)
        _limit_memory(SPARE + RATIO * os.path.getsize(request["path"]))
        content, code = answer(request), 0
    except MIAError as error:
        content, code = str(error).encode(), REFUSED
    with os.fdopen(output, "wb") as file:
        file.write(content)
    sys.exit(code)


def answer(request: Mapping[str, Any]) -> bytes:
    """Load a program, query it once and return its description.

    Raises:
        MIAError: see `exported.read_program`.
    """
    import numpy as np
    import torch

    from mia_lightning.targets.checks import image_channels
    from mia_lightning.targets.inputs import probes
    from mia_lightning.targets.wrapper import TargetNetwork

    program, description = read_program(Path(request["path"]))
    inputs = TargetNetwork(program, TargetForm(resize=request["resize"], transform=request["transform"]))
    shape, sample = request["shape"], None
    if request["dtype"]:
        sample = np.zeros((8, *shape), request["dtype"])
    for batches in probes(program, shape, image_channels(program) or 3, sample):
        with contextlib.suppress(Exception), torch.inference_mode():
            program(inputs.inputs(batches[0]))
            break
    return description


def _limit_memory(more: int) -> None:
    """Bound the address space of this process, where the system can."""
    with contextlib.suppress(ImportError, OSError, ValueError):
        import resource

        pages = int(Path("/proc/self/statm").read_text().split()[0])
        limit = pages * resource.getpagesize() + more
        _, hard = resource.getrlimit(resource.RLIMIT_AS)
        resource.setrlimit(resource.RLIMIT_AS, (limit if hard < 0 else min(limit, hard), hard))


def _name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"
