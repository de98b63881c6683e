"""Everything a graphics card can show, in one command: equality with the CPU, throughput, training, memory.

    python benchmarks/gpu.py [--minutes 8] [--output gpu.json] [--replica FOLDER] [--rehearse]

Nothing is installed. Each section survives the failure of another; when the time is spent, the rest is skipped by name.
`--rehearse` runs every section on the CPU at tiny sizes: its figures mean nothing, but the script is known to run.
Prints a Markdown table; `--output` receives the same rows as JSON with hardware, driver, versions and date.
"""

import argparse
import json
import logging
import os
import platform
import shutil
import subprocess
import sys
import tempfile
import traceback
import warnings
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from dataclasses import asdict, dataclass, field
from datetime import date
from functools import partial
from hashlib import sha256
from pathlib import Path
from threading import Timer
from time import perf_counter
from typing import Any

import lightning
import numpy as np
import torch
import torchvision
from torch import nn
from torch.utils.flop_counter import FlopCounterMode
from torchvision.models import VisionTransformer, resnet18, resnet50

from mia_lightning.metrics.roc import auc
from mia_lightning.outputs.extraction import extract
from mia_lightning.outputs.request import ExtractionRequest
from mia_lightning.records.records import Records
from mia_lightning.records.splits import Splits
from mia_lightning.references.config import ReferenceTraining
from mia_lightning.references.training import train_reference
from mia_lightning.references.training_data import TrainingData
from mia_lightning.references.training_step import DeviceSession, Record, cuda_graph
from mia_lightning.runtime.hardware import Hardware
from mia_lightning.signals.functional import phi
from mia_lightning.targets.base import Target

CLASSES = 10
TOLERANCES = {"32-true": 2e-3, "tf32": 5e-2, "bf16-mixed": 0.5}
"""Largest difference of a logit from the CPU's in float32 that counts as equal, for networks with logits of order 1."""


@dataclass
class Row:
    """One measured value."""

    section: str
    name: str
    value: float | str
    unit: str = ""
    note: str = ""


@dataclass
class Bench:
    """Device, sizes and time left."""

    device: str
    rehearsal: bool
    deadline: float
    replica: Path | None
    peaks: dict[str, float] = field(default_factory=dict)

    def size(self, full: int, tiny: int) -> int:
        """Return the full size, or the tiny one of a rehearsal."""
        return tiny if self.rehearsal else full

    def synchronize(self) -> None:
        """Wait for the device."""
        if self.device == "cuda":
            torch.cuda.synchronize()

    def seconds(self, run: Callable[[], object], rounds: int = 3) -> float:
        """Return the median seconds of a call after a warm-up, which a rehearsal leaves out."""
        if not self.rehearsal:
            run()
        times = []
        for _ in range(1 if self.rehearsal else rounds):
            self.synchronize()
            started = perf_counter()
            run()
            self.synchronize()
            times.append(perf_counter() - started)
        return float(np.median(times))


def cifar_stem(network: nn.Module) -> nn.Module:
    """Give a resnet the 3x3 stem without pooling that 32x32 images are trained with."""
    network.conv1, network.maxpool = nn.Conv2d(3, 64, 3, padding=1, bias=False), nn.Identity()
    return network


def vit_s(side: int) -> nn.Module:
    """Return a ViT-S/16."""
    return VisionTransformer(side, 16, num_layers=12, num_heads=6, hidden_dim=384, mlp_dim=1536, num_classes=CLASSES)


def networks(bench: Bench) -> dict[str, tuple[Callable[[], nn.Module], int, int, str]]:
    """Return name to (network, side of the images, records, layer of the features)."""
    large = bench.size(224, 32)
    return {
        "resnet18, ImageNet stem, 32x32": (lambda: resnet18(num_classes=CLASSES), 32, bench.size(200_000, 64), "fc"),
        "resnet18, CIFAR stem, 32x32": (
            lambda: cifar_stem(resnet18(num_classes=CLASSES)),
            32,
            bench.size(100_000, 32),
            "fc",
        ),
        f"ViT-S/16, {large}x{large}": (lambda: vit_s(large), large, bench.size(8192, 8), "heads.head"),
        f"resnet50, {large}x{large}": (
            lambda: resnet50(num_classes=CLASSES),
            large,
            bench.size(8192, 8),
            "fc",
        ),
    }


def records_of(count: int, side: int) -> Records:
    """Return random images, labels and membership."""
    draw = np.random.default_rng(0)
    images = draw.integers(0, 256, (count, 3, side, side), dtype=np.uint8)
    member = draw.integers(0, 2, count).astype(np.int8)
    return Records(np.arange(count), images, draw.integers(0, CLASSES, count), member, "random")


class LoopSeconds(logging.Handler):
    """Reads the seconds of the prediction loop from the line that extraction logs."""

    seconds = float("nan")

    def emit(self, record: logging.LogRecord) -> None:
        """Keep the seconds of the line."""
        if isinstance(record.args, tuple) and str(record.msg).startswith("extracted"):
            self.seconds = float(record.args[2])  # type: ignore[arg-type]

    def __enter__(self) -> "LoopSeconds":
        logger = logging.getLogger("mia_lightning.outputs.extraction")
        logger.setLevel(logging.INFO)
        logger.addHandler(self)
        return self

    def __exit__(self, *_: object) -> None:
        logging.getLogger("mia_lightning.outputs.extraction").removeHandler(self)


def engine(
    network: nn.Module,
    layer: str,
    records: Records,
    *,
    accelerator: str,
    precision: str,
    queries: int,
    batch: int = 0,
    devices: int = 1,
    store: Path | None = None,
) -> tuple[np.ndarray, float]:
    """Return logits (N, Q, C) of the product's extraction, and the seconds of its loop without digests and merging."""
    target = Target(network.eval().requires_grad_(False), CLASSES, layer, "benchmark", "benchmark")
    hardware = Hardware(accelerator=accelerator, devices=devices, precision=precision, batch_size=batch)  # type: ignore[arg-type]
    mean, std, timed = (0.5,) * 3, (0.25,) * 3, LoopSeconds()
    with tempfile.TemporaryDirectory() if store is None else nullcontext(store) as folder, timed:
        request = ExtractionRequest(Splits(records), target, mean, std, queries, False, hardware, Path(folder))
        return np.array(extract(request).public.logits), timed.seconds


def peaks(bench: Bench) -> Iterator[Row]:
    """Measure the card's own limits: matrix products and copies."""
    side = bench.size(8192, 128)
    allowed = torch.backends.cuda.matmul.allow_tf32
    for name, dtype in (("float32", torch.float32), ("32-true", torch.float32), ("bf16-mixed", torch.bfloat16)):
        left, right = (torch.randn(side, side, device=bench.device, dtype=dtype) for _ in range(2))
        # PyTorch's convolutions of float32 use TF32 unless forbidden, so that this is the peak of 32-true.
        torch.backends.cuda.matmul.allow_tf32 = name == "32-true"
        bench.peaks[name] = 2 * side**3 / bench.seconds(partial(torch.matmul, left, right))
        torch.backends.cuda.matmul.allow_tf32 = allowed
        note = f"{side} x {side}{', in TF32' if name == '32-true' else ''}"
        yield Row("peaks", f"matrix product, {name}", bench.peaks[name] / 1e12, "TFLOP/s", note)
    block = torch.empty(bench.size(2**30, 2**20), dtype=torch.uint8, device=bench.device)
    rate = 2 * block.numel() / bench.seconds(block.clone)
    yield Row("peaks", "copy on the device", rate / 1e9, "GB/s", "bytes read and written")


def equality(bench: Bench) -> Iterator[Row]:
    """Compare logits and an attack's AUC with the CPU in float32."""
    accelerator = "gpu" if bench.device == "cuda" else "cpu"
    records = records_of(bench.size(2048, 32), 32)
    torch.manual_seed(0)
    network = cifar_stem(resnet18(num_classes=CLASSES))
    expected, _ = engine(network, "fc", records, accelerator="cpu", precision="32-true", queries=2)
    for precision in ("32-true", "tf32", "bf16-mixed"):
        allow = torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32
        torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = precision == "tf32"
        typed = "32-true" if precision == "tf32" else precision
        logits, _ = engine(network, "fc", records, accelerator=accelerator, precision=typed, queries=2)
        torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32 = allow
        gap = float(np.abs(logits - expected).max())
        equal = f"{'equal' if gap <= TOLERANCES[precision] else 'NOT EQUAL'} within {TOLERANCES[precision]}"
        yield Row("equality", f"largest difference of a logit, {precision}", gap, "", equal)
        signals = [phi(values[:, 0].astype(np.float64), records.labels) for values in (logits, expected)]
        aucs = [auc(signal, records.membership) for signal in signals]
        yield Row("equality", f"difference of the AUC of phi, {precision}", abs(aucs[0] - aucs[1]), "")


def extraction(bench: Bench) -> Iterator[Row]:
    """Measure images per second of the product against a bare loop of the same precision and the card's roofline."""
    accelerator = "gpu" if bench.device == "cuda" else "cpu"
    for name, (build, side, count, layer) in networks(bench).items():
        records, network = records_of(count, side), build().eval()
        with FlopCounterMode(display=False) as counter, torch.inference_mode():
            network(torch.zeros(1, 3, side, side))
        work = counter.get_total_flops()
        for precision in ("32-true", "bf16-mixed"):
            bare, loops = bare_loop(bench, network, records, precision), []
            options: dict[str, Any] = {"accelerator": accelerator, "precision": precision, "queries": 1}

            def run(network: nn.Module = network, options: dict[str, Any] = options) -> None:
                loops.append(engine(network, layer, records, **options)[1])  # noqa: B023

            total = count / bench.seconds(run, 1)
            ours = count / loops[-1]
            share = f"{ours / bare:.2f} of a bare loop ({bare:,.0f}); {total:,.0f} with digests and merged shards"
            if precision in bench.peaks:
                share += f"; {ours * work / bench.peaks[precision]:.1%} of the measured peak"
            yield Row("extraction", f"{name}, {precision}", ours, "images/s", share)
    build, side, count, layer = networks(bench)["resnet18, CIFAR stem, 32x32"]
    for queries in (1, 2, 18, 50):
        records = records_of(max(8, count // queries), side)
        options = {"accelerator": accelerator, "precision": "bf16-mixed", "queries": queries}
        rate = len(records) * queries / engine(build(), layer, records, **options)[1]
        yield Row("extraction", f"resnet18, CIFAR stem, {queries} views, bf16-mixed", rate, "images/s")


def bare_loop(bench: Bench, network: nn.Module, records: Records, precision: str) -> float:
    """Return images/s of an eager loop over resident, normalized batches."""
    network = network.to(bench.device)
    batch = bench.size(4096 if records.images.shape[2] == 32 else 256, 8)
    images = torch.from_numpy(records.images[:batch]).to(bench.device).float() / 127.5 - 1
    cast = torch.autocast(bench.device, torch.bfloat16, enabled=precision == "bf16-mixed")

    @torch.inference_mode()
    def run() -> None:
        with cast:
            network(images)

    rate = len(images) / bench.seconds(run, 5)
    network.to("cpu")
    return rate


@dataclass
class Trainee:
    """Training of resnet18 references with the CIFAR stem."""

    bench: Bench

    def __post_init__(self) -> None:
        count = self.bench.size(40_000, 64)
        records = records_of(count, 32)
        self.data = TrainingData(records.images, records.labels, (0.5,) * 3, (0.25,) * 3, CLASSES, 1)
        self.half = np.arange(count) % 2 == 0
        self.batch = self.bench.size(256, 16)
        self.losses: list[float] = []

    def __call__(self, epochs: int = 1, session: DeviceSession | None = None, keep: np.ndarray | None = None) -> int:
        """Train one reference and return the number of images that it has seen."""
        recipe = ReferenceTraining(epochs=epochs, batch_size=self.batch, precision="bf16-mixed")
        torch.manual_seed(0)
        network, keep = cifar_stem(resnet18(num_classes=CLASSES)), self.half if keep is None else keep
        with tempfile.TemporaryDirectory() as folder:
            train_reference(
                network,
                self.data,
                keep,
                recipe,
                seed=0,
                checkpoint=Path(folder) / "checkpoint",
                device=self.bench.device,
                on_epoch=lambda _, loss: self.losses.append(loss),
                session=session,
            )
        self.bench.synchronize()
        return epochs * int(keep.sum()) // self.batch * self.batch

    def rate(self, session: DeviceSession | None) -> tuple[float, float]:
        """Return images/s of a reference after the first, and the seconds of the first with one epoch."""
        started = perf_counter()
        self(1, session)
        first, started = perf_counter() - started, perf_counter()
        return self(self.bench.size(5, 1), session) / (perf_counter() - started), first

    def waits(self, keep: np.ndarray) -> int:
        """Return how often PyTorch reports that the host waits for the device in one epoch."""
        if self.bench.device != "cuda":
            self(keep=keep)
            return 0
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            torch.cuda.set_sync_debug_mode("warn")
            try:
                self(keep=keep)
            finally:
                torch.cuda.set_sync_debug_mode("default")
        return sum("synchronizing" in str(warning.message) for warning in caught)


def recorder(bench: Bench) -> Record:
    """Return the recording of a training step; a rehearsal repeats the step itself."""
    return cuda_graph if bench.device == "cuda" else lambda run: run


def training(bench: Bench) -> Iterator[Row]:
    """Measure training of one reference model, operation by operation and by a recorded step."""
    train = Trainee(bench)
    with FlopCounterMode(display=False) as counter, torch.inference_mode():
        cifar_stem(resnet18(num_classes=CLASSES)).eval()(torch.zeros(1, 3, 32, 32))
    losses = []
    for name, session in (
        ("operation by operation", None),
        ("recorded once for all references", DeviceSession(train.data, record=recorder(bench))),
    ):
        images, first = train.rate(session)
        losses.append(train.losses[-1])
        share = 3 * counter.get_total_flops() * images / bench.peaks.get("bf16-mixed", float("inf"))
        note = f"{share:.1%} of the measured peak; {first:.1f} s for the first reference of one epoch"
        yield Row("training", f"resnet18, CIFAR stem, {name}", images, "images/s", note)
        seconds = 14 * 20_000 / images
        yield Row("training", f"14 epochs on 20,000 records, {name}", seconds, "s", "aim: 5; scaled")
    yield Row("training", "difference of the last mean loss of the two", abs(losses[0] - losses[1]))
    few, many = train.waits(train.half), train.waits(np.ones_like(train.half))
    note = f"{'equal' if few == many else 'NOT EQUAL'}: {few} with half as many batches"
    yield Row("training", "waits of the host in an epoch", many, "", note)


def compiled(bench: Bench) -> Iterator[Row]:
    """Measure training by torch.compile with weights that are reset in place, without and with a recorded step."""
    compiler = os.environ.get("CC") or next(filter(shutil.which, ("cc", "gcc", "clang")), None)
    if compiler is None:
        yield Row("compiled", "torch.compile", "skipped", note="no C compiler is installed; set CC")
        return
    train, compile_ = Trainee(bench), (lambda network: network) if bench.rehearsal else torch.compile
    record = recorder(bench)
    for name, recording in (
        ("alone", lambda run: run),
        ("and recorded", lambda run: (run(), record(run))[1]),  # compilation waits, so that it precedes the recording
    ):
        images, first = train.rate(DeviceSession(train.data, record=recording, compiled=compile_))
        yield Row(
            "compiled", f"resnet18, compiled {name}", images, "images/s", f"{first:.1f} s for the first reference"
        )


def several(bench: Bench) -> Iterator[Row]:
    """Train 1 to 8 references at the same time on one card, one process each, without and with NVIDIA MPS."""
    for count in (1,) if bench.rehearsal else (1, 2, 4, 8):
        yield together(bench, count, {}, "without NVIDIA MPS")
    control = "nvidia-cuda-mps-control"
    if shutil.which(control) is None:
        yield Row("several", "with NVIDIA MPS", "skipped", note=f"{control} is not installed")
        return
    with tempfile.TemporaryDirectory() as folder:
        variables = {"CUDA_MPS_PIPE_DIRECTORY": f"{folder}/pipe", "CUDA_MPS_LOG_DIRECTORY": f"{folder}/log"}
        for path in variables.values():
            Path(path).mkdir()
        options: dict[str, Any] = {"env": os.environ | variables, "text": True, "timeout": 30}
        subprocess.run([control, "-d"], check=True, **options)
        try:
            for count in (2, 4, 8):
                yield together(bench, count, variables, "with NVIDIA MPS")
        finally:
            subprocess.run([control], input="quit\n", **options)


def together(bench: Bench, count: int, variables: dict[str, str], note: str) -> Row:
    """Train in several processes that start at the same moment."""
    children = [_child(bench, "training", env=os.environ | variables, stdin=subprocess.PIPE) for _ in range(count)]
    timer = Timer(max(30.0, bench.deadline - perf_counter()), lambda: [child.kill() for child in children])
    timer.start()
    try:
        ready = [child for child in children if child.stdout and child.stdout.readline() == "ready\n"]
        started = perf_counter()
        for child in ready:
            assert child.stdin is not None
            child.stdin.write("go\n")
            child.stdin.flush()
        images = [int(child.stdout.readline() or 0) for child in ready if child.stdout]
        rate = sum(images) / (perf_counter() - started)
    finally:
        timer.cancel()
        for child in children:
            child.kill()
            child.communicate()
    failed = count - sum(number > 0 for number in images)
    return Row(
        "several", f"{count} references at a time, {note}", rate, "images/s", f"{failed} failed" if failed else ""
    )


def _child(bench: Bench, task: str, **options: Any) -> subprocess.Popen[str]:
    command = [sys.executable, __file__, "--child", task, *(["--rehearse"] if bench.rehearsal else [])]
    return subprocess.Popen(command, text=True, stdout=subprocess.PIPE, **options)


class Limited(nn.Module):
    """A network that a simulated device holds only in small batches."""

    def __init__(self, network: nn.Module, most: int) -> None:
        super().__init__()
        self.network, self.most = network, most

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Return logits."""
        if len(images) > self.most:
            raise torch.OutOfMemoryError("out of memory (simulated)")
        logits: torch.Tensor = self.network(images)
        return logits


def memory(bench: Bench) -> Iterator[Row]:
    """Let a batch exceed the device's memory: it is halved, and the outputs stay those of a small batch."""
    cuda, large, small = bench.device == "cuda", bench.size(65_536, 32), bench.size(1024, 8)
    records, network = records_of(large, 32), cifar_stem(resnet18(num_classes=CLASSES))
    network = network if cuda else Limited(network, 8)
    run = partial(
        engine,
        network,
        "fc" if cuda else "network.fc",
        records,
        accelerator="gpu" if cuda else "cpu",
        precision="32-true",
        queries=1,
    )
    expected, _ = run(batch=small)
    if cuda:
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
        torch.cuda.set_per_process_memory_fraction(0.05)
    try:
        halved, _ = run(batch=large)
    finally:
        if cuda:
            torch.cuda.set_per_process_memory_fraction(1.0)
    gap = float(np.abs(expected - halved).max())
    note = f"a batch of {large:,} in {'5% of the memory' if cuda else 'a simulated device'}"
    yield Row("memory", "largest difference of a logit after halving", gap, "", note)
    if cuda:
        yield Row("memory", "peak memory", torch.cuda.max_memory_allocated() / 2**30, "GiB")


def devices(bench: Bench) -> Iterator[Row]:
    """Compare one device with all: equality by NCCL, scaling."""
    count = torch.cuda.device_count() if bench.device == "cuda" else 0
    if count < 2:
        yield Row("devices", "several devices", "skipped", note=f"{count} CUDA devices here")
        return
    rates, digests = [], []
    for number in (1, count):
        with tempfile.TemporaryDirectory() as store:  # of all processes of the child
            text, _ = _child(bench, f"devices:{number}:{store}").communicate(timeout=180)
        rate, digest = text.split()[-2:]
        rates.append(float(rate))
        digests.append(digest)
    yield Row("devices", f"{count} devices against one", rates[1] / rates[0], "x", "images/s of extraction")
    yield Row("devices", "outputs", "equal" if digests[0] == digests[1] else "differ", note="digests of the logits")


def run_child(task: str, rehearsal: bool) -> None:
    """Do one task in a process of its own and print its result."""
    bench = Bench("cpu" if rehearsal else "cuda", rehearsal, float("inf"), None)
    if task == "training":
        train = Trainee(bench)
        session = DeviceSession(train.data, record=recorder(bench))
        train(1, session)
        print("ready", flush=True)
        sys.stdin.readline()
        print(train(bench.size(5, 1), session), flush=True)
        return
    _, number, store = task.split(":", 2)
    records, network = records_of(bench.size(200_000, 32), 32), cifar_stem(resnet18(num_classes=CLASSES))
    started = perf_counter()
    accelerator = "cpu" if rehearsal else "gpu"
    options: dict[str, Any] = {"accelerator": accelerator, "precision": "32-true", "devices": int(number)}
    logits, _ = engine(network, "fc", records, queries=1, store=Path(store), **options)
    print(len(records) / (perf_counter() - started), sha256(logits.tobytes()).hexdigest())


def replica(bench: Bench) -> Iterator[Row]:
    """Run the replica with four reference models from records to report."""
    if bench.replica is None:
        yield Row("replica", "K = 4, end to end", "skipped", note="name its folder with --replica")
        return
    with tempfile.TemporaryDirectory() as folder:
        names = {"data.public": "pub.pt", "data.private": "priv_out.pt", "target.checkpoint": "01_MIA.pt"}
        command = [sys.executable, str(Path(__file__).parents[1] / "train.py"), "--config", "references"]
        command += [word for option, name in names.items() for word in (f"--{option}", str(bench.replica / name))]
        command += ["--references.workers", "0", "--output", f"{folder}/run"]
        started = perf_counter()
        left = max(60.0, bench.deadline - perf_counter())
        done = subprocess.run(command, capture_output=True, text=True, timeout=left)
        if done.returncode:
            raise RuntimeError(f"exit code {done.returncode}: {done.stderr.strip().splitlines()[-1:]}")
        yield Row("replica", "K = 4, end to end", perf_counter() - started, "s")


SECTIONS = {
    "peaks": peaks,
    "equality": equality,
    "extraction": extraction,
    "training": training,
    "memory": memory,
    "devices": devices,
    "replica": replica,
    "several": several,
    "compiled": compiled,
}


def measure(bench: Bench, names: list[str]) -> Iterator[Row]:
    """Yield the rows of every section; what fails or finds no time left is a row, too."""
    for name in names:
        if perf_counter() > bench.deadline:
            yield Row(name, "section", "skipped", note="no time left")
            continue
        try:
            for row in SECTIONS[name](bench):
                yield row
                if perf_counter() > bench.deadline:
                    yield Row(name, "rest of the section", "skipped", note="no time left")
                    break
        except Exception as error:
            traceback.print_exc()
            yield Row(name, "section", "failed", note=f"{type(error).__name__}: {error}".splitlines()[0][:200])


def description(bench: Bench) -> dict[str, Any]:
    """Return hardware, driver, versions and date."""
    cuda = bench.device == "cuda"
    query = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
    has_query = cuda and shutil.which(query[0]) is not None
    driver = subprocess.run(query, capture_output=True, text=True).stdout.split() if has_query else []
    return {
        "date": date.today().isoformat(),
        "devices": [torch.cuda.get_device_name(number) for number in range(torch.cuda.device_count())] if cuda else [],
        "processor": platform.processor() or platform.machine(),
        "driver": driver[0] if driver else None,
        "cuda": torch.version.cuda,
        "python": platform.python_version(),
        "torch": torch.__version__,
        "torchvision": torchvision.__version__,
        "lightning": lightning.__version__,
        "rehearsal": bench.rehearsal,
    }


def table(rows: list[Row]) -> str:
    """Return the rows as a Markdown table."""
    lines = ["| section | what | value | unit | note |", "|---|---|---:|---|---|"]
    for row in rows:
        value = row.value if isinstance(row.value, str) else f"{row.value:,.4g}"
        lines.append(f"| {row.section} | {row.name} | {value} | {row.unit} | {row.note} |")
    return "\n".join(lines)


def main() -> int:
    """Run the sections; exit code 1 if one failed or there is no card, 0 otherwise."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--minutes", type=float, default=8.0, help="time after which no further section starts")
    parser.add_argument("--output", type=Path, help="JSON file of all rows")
    parser.add_argument("--replica", type=Path, help="folder with pub.pt, priv_out.pt and 01_MIA.pt")
    parser.add_argument("--rehearse", action="store_true", help="run on the CPU at tiny sizes")
    parser.add_argument("--only", nargs="*", choices=SECTIONS, default=list(SECTIONS), help="sections to run")
    parser.add_argument("--child", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        run_child(options.child, options.rehearse)
        return 0
    if not (torch.cuda.is_available() or options.rehearse):
        print("no CUDA device is visible; --rehearse runs the sections on the CPU at tiny sizes", file=sys.stderr)
        return 1
    device = "cpu" if options.rehearse else "cuda"
    bench = Bench(device, options.rehearse, perf_counter() + 60 * options.minutes, options.replica)
    facts, rows = description(bench), []
    for row in measure(bench, options.only):
        rows.append(row)
        if options.output:  # after each row, so that a kill leaves what was measured
            options.output.write_text(json.dumps(facts | {"rows": [asdict(row) for row in rows]}, indent=1))
        print(table([row]).splitlines()[-1], file=sys.stderr, flush=True)
    print(", ".join(f"{name} {value}" for name, value in facts.items()), "", table(rows), sep="\n")
    return int(any(row.value == "failed" for row in rows))


if __name__ == "__main__":
    sys.exit(main())
