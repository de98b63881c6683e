"""Everything a graphics card can show, in one command: equality with the CPU, throughput, training, memory.

    python benchmarks/gpu.py [--minutes 8] [--output gpu.json] [--replica FOLDER] [--rehearse]

Nothing is installed. Each section survives the failure of another: settings are put back, and where an
error has made the device unusable a new process goes on. When the time is spent, the rest is skipped by name; what
hangs is ended 100 s later.
`--rehearse` runs every section on the CPU at tiny sizes: its figures mean nothing, but the script is known to run.
Prints a Markdown table; `--output` receives the same rows as JSON with hardware, driver, versions and date.
"""

import argparse
import gc
import json
import logging
import os
import platform
import shutil
import signal
import subprocess
import sys
import tempfile
import traceback
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext, suppress
from copy import deepcopy
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
from torch.utils.flop_counter import FlopCounterMode, flop_registry
from torchvision.models import VisionTransformer, resnet18, resnet50

from mia_lightning.benchmarking.figures import NAMES, figures
from mia_lightning.outputs.extraction import extract
from mia_lightning.outputs.request import ExtractionRequest
from mia_lightning.records.records import Records
from mia_lightning.records.splits import Splits
from mia_lightning.references.config import ReferenceTraining
from mia_lightning.references.outputs import ReferenceOutputs
from mia_lightning.references.scores.rmia import log_ratio
from mia_lightning.references.standard_scores import standard_scores
from mia_lightning.references.training import train_reference
from mia_lightning.references.training_data import TrainingData
from mia_lightning.references.training_step import DeviceSession, Record, cuda_graph
from mia_lightning.runtime.hardware import Hardware
from mia_lightning.signals.functional import phi
from mia_lightning.targets.base import Target

CLASSES = 10
TOLERANCES = {"32-true": 2e-3, "tf32": 5e-2, "bf16-mixed": 0.5}
"""Largest difference of a logit from the CPU's in float32 that counts as equal, for networks with logits of order 1."""

GRACE = 100.0
"""Seconds after the time is spent at which a section that hangs is ended."""

LOSS_TOLERANCE = 0.1
"""Largest difference of the mean losses of one training on several devices, whose sums vary in order."""


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

    @property
    def side(self) -> int:
        """Side of small images."""
        return self.size(32, 16)

    def synchronize(self) -> None:
        """Wait for the device."""
        if self.device == "cuda":
            torch.cuda.synchronize()

    def is_usable(self) -> bool:
        """Whether the device still computes: after some errors it does not, for the rest of the process."""
        with suppress(RuntimeError):
            return bool(torch.ones(1, device=self.device).sum().item() == 1)
        return False

    @contextmanager
    def restored_settings(self) -> Iterator[None]:
        """Put precision and limits of memory back, and free what is cached, whatever a section does."""
        backends = torch.backends.cuda.matmul, torch.backends.cudnn
        allowed = [backend.allow_tf32 for backend in backends]
        try:
            yield
        finally:
            for backend, value in zip(backends, allowed, strict=True):
                backend.allow_tf32 = value
            if self.device == "cuda":
                gc.collect()
                with suppress(RuntimeError):
                    torch.cuda.set_per_process_memory_fraction(1.0)
                    torch.cuda.empty_cache()

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
        "resnet18, ImageNet stem": (lambda: resnet18(num_classes=CLASSES), 32, bench.size(200_000, 8), "fc"),
        "resnet18, CIFAR stem": (
            lambda: cifar_stem(resnet18(num_classes=CLASSES)),
            bench.side,
            bench.size(100_000, 8),
            "fc",
        ),
        "ViT-S/16": (lambda: vit_s(large), large, bench.size(8192, 8), "heads.head"),
        "resnet50": (
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
    for name, dtype in (("float32", torch.float32), ("32-true", torch.float32), ("bf16-mixed", torch.bfloat16)):
        left, right = (torch.randn(side, side, device=bench.device, dtype=dtype) for _ in range(2))
        # PyTorch's convolutions of float32 use TF32 unless forbidden, so that this is the peak of 32-true.
        torch.backends.cuda.matmul.allow_tf32 = name == "32-true"
        bench.peaks[name] = 2 * side**3 / bench.seconds(partial(torch.matmul, left, right))
        note = f"{side} x {side}{', in TF32' if name == '32-true' else ''}"
        yield Row("peaks", f"matrix product, {name}", bench.peaks[name] / 1e12, "TFLOP/s", note)
    block = torch.empty(bench.size(2**30, 2**20), dtype=torch.uint8, device=bench.device)
    bench.peaks["copy"] = 2 * block.numel() / bench.seconds(block.clone)
    yield Row("peaks", "copy on the device", bench.peaks["copy"] / 1e9, "GB/s", "bytes read and written")


def equality(bench: Bench) -> Iterator[Row]:
    """Compare logits and an attack's figures with the CPU in float32."""
    accelerator = "gpu" if bench.device == "cuda" else "cpu"
    records = records_of(bench.size(2048, 32), bench.side)
    torch.manual_seed(0)
    network = cifar_stem(resnet18(num_classes=CLASSES))
    expected, _ = engine(network, "fc", records, accelerator="cpu", precision="32-true", queries=2)
    signal_of = lambda logits: phi(logits[:, 0].astype(np.float64), records.labels)  # noqa: E731
    noisy = signal_of(expected) + np.random.default_rng(1).normal(size=len(records)) * signal_of(expected).std()
    member = noisy > np.median(noisy)  # phi shows it in part, as a network's memory would
    for precision in ("32-true", "tf32", "bf16-mixed"):
        torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = precision == "tf32"
        typed = "32-true" if precision == "tf32" else precision
        logits, _ = engine(network, "fc", records, accelerator=accelerator, precision=typed, queries=2)
        gap = float(np.abs(logits - expected).max())
        equal = f"{'equal' if gap <= TOLERANCES[precision] else 'NOT EQUAL'} within {TOLERANCES[precision]}"
        yield Row("equality", f"largest difference of a logit, {precision}", gap, "", equal)
        ours, cpu = (figures(signal_of(values), member).values for values in (logits, expected))
        for at in (0, NAMES.index("TPR@5%")):
            noise = float(np.sqrt(cpu[at] * (1 - cpu[at]) / member.sum()))
            gap = abs(ours[at] - cpu[at])
            note = f"{'equal' if gap <= noise / 2 else 'NOT EQUAL'} within half of its noise, {noise:.1g}"
            yield Row("equality", f"difference of {NAMES[at]} of phi, {precision}", gap, "", note)


def products(network: nn.Module, images: torch.Tensor) -> list[tuple[int, int]]:
    """Return operations, and values read and written, of every matrix product and convolution of a pass."""
    rows = []

    def counted(formula: Callable[..., int], *shapes: Any, out_shape: Any = None, **options: Any) -> int:
        flops = formula(*shapes, out_val=out_shape, **options)
        rows.append((flops, sum(shape.numel() for shape in (*shapes, out_shape) if isinstance(shape, torch.Size))))
        return flops

    mapping = {operation: partial(counted, formula) for operation, formula in flop_registry.items()}
    with FlopCounterMode(display=False, custom_mapping=mapping), torch.inference_mode():
        network(images)
    return rows


def roofline(bench: Bench, network: nn.Module, side: int, precision: str) -> tuple[float, float]:
    """Return operations per image, and the images/s at which each operation is bound by arithmetic or by memory.

    Operations between products, such as activations, count as fused with them.
    """
    batch, size = bench.size(1024, 8), 2 if precision == "bf16-mixed" else 4
    rows = products(deepcopy(network).to("meta"), torch.zeros(batch, 3, side, side, device="meta"))
    peak, copy = (bench.peaks.get(name, float("inf")) for name in (precision, "copy"))
    seconds = sum(max(flops / peak, values * size / copy) for flops, values in rows)
    return sum(flops for flops, _ in rows) / batch, batch / seconds if seconds else float("inf")


def extraction(bench: Bench) -> Iterator[Row]:
    """Measure images per second of the product against a bare loop of the same precision and the card's roofline."""
    accelerator = "gpu" if bench.device == "cuda" else "cpu"
    for name, (build, side, count, layer) in networks(bench).items():
        records, network = records_of(count, side), build().eval()
        name = f"{name}, {side}x{side}"
        for precision in ("32-true", "bf16-mixed"):
            bare, loops = bare_loop(bench, network, records, precision), []
            options: dict[str, Any] = {"accelerator": accelerator, "precision": precision, "queries": 1}

            def run(network: nn.Module = network, options: dict[str, Any] = options) -> None:
                loops.append(engine(network, layer, records, **options)[1])  # noqa: B023

            total = count / bench.seconds(run, 1)
            ours = count / loops[-1]
            share = f"{ours / bare:.2f} of a bare loop ({bare:,.0f}); {total:,.0f} with digests and merged shards"
            if {precision, "copy"} <= set(bench.peaks):
                work, bound = roofline(bench, network, side, precision)
                share += f"; {ours * work / bench.peaks[precision]:.1%} of the peak, {ours / bound:.1%} of the roofline"
            yield Row("extraction", f"{name}, {precision}", ours, "images/s", share)
    build, side, count, layer = networks(bench)["resnet18, CIFAR stem"]
    for queries in (1, 2, 18, 50):
        records = records_of(max(bench.size(8, 2), count // queries), side)
        options = {"accelerator": accelerator, "precision": "bf16-mixed", "queries": queries}
        rate = len(records) * queries / engine(build(), layer, records, **options)[1]
        yield Row("extraction", f"resnet18, CIFAR stem, {queries} views, bf16-mixed", rate, "images/s")


def bare_loop(bench: Bench, network: nn.Module, records: Records, precision: str) -> float:
    """Return images/s of an eager loop over resident, normalized batches."""
    network = network.to(bench.device)
    batch = bench.size(4096 if records.images.shape[2] <= 32 else 256, 8)
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
        records = records_of(count, self.bench.side)
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
        cifar_stem(resnet18(num_classes=CLASSES)).eval()(torch.zeros(1, 3, bench.side, bench.side))
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
    if bench.rehearsal:
        yield Row("several", "references at a time", "skipped", note="rehearsed by the section devices")
        return
    for count in (1, 2, 4, 8):
        yield at_a_time(bench, count, {}, "without NVIDIA MPS")
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
                yield at_a_time(bench, count, variables, "with NVIDIA MPS")
        finally:
            subprocess.run([control], input="quit\n", **options)


def at_a_time(bench: Bench, count: int, variables: Mapping[str, str], note: str) -> Row:
    """Return the row of some references at the same time."""
    rate, losses = together(bench, [variables] * count)
    failed = f"{count - len(losses)} failed" if len(losses) < count else ""
    return Row("several", f"{count} references at a time, {note}", rate, "images/s", failed)


def together(bench: Bench, environments: Sequence[Mapping[str, str]]) -> tuple[float, list[float]]:
    """Return images/s of trainings that start at the same moment, a process each, and the last mean losses."""
    children = [_child(bench, "training", env=os.environ | own, stdin=subprocess.PIPE) for own in environments]
    timer = Timer(max(30.0, bench.deadline - perf_counter()), lambda: [_end(child) for child in children])
    timer.start()
    try:
        ready = [child for child in children if child.stdout and child.stdout.readline() == "ready\n"]
        started = perf_counter()
        for child in ready:
            assert child.stdin is not None
            child.stdin.write("go\n")
            child.stdin.flush()
        results = [line.split() for child in ready if child.stdout and (line := child.stdout.readline())]
        seconds = perf_counter() - started
    finally:
        timer.cancel()
        for child in children:
            _end(child)
            child.communicate()
    if not results:
        raise RuntimeError("none of the processes has trained; their errors stand above")
    return sum(int(images) for images, _ in results) / seconds, [float(loss) for _, loss in results]


def _child(bench: Bench, task: str, **options: Any) -> "subprocess.Popen[str]":
    command = [sys.executable, __file__, "--child", task, *(["--rehearse"] if bench.rehearsal else [])]
    return subprocess.Popen(command, text=True, stdout=subprocess.PIPE, start_new_session=True, **options)


def _end(child: "subprocess.Popen[str]") -> None:
    """End a process with those that it has started."""
    with suppress(ProcessLookupError):
        os.killpg(child.pid, signal.SIGKILL)


def _output(child: "subprocess.Popen[str]", seconds: float) -> str:
    """Return what a process prints; it is ended after some seconds."""
    try:
        text, _ = child.communicate(timeout=seconds)
    finally:
        _end(child)
    if child.returncode:
        raise RuntimeError(f"exit code {child.returncode}")
    return str(text)


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


class Halvings(logging.Handler):
    """Counts how often extraction reports a smaller batch."""

    count = 0

    def emit(self, record: logging.LogRecord) -> None:
        """Count the line."""
        self.count += "does not hold %d images" in str(record.msg)

    def __enter__(self) -> "Halvings":
        logging.getLogger("mia_lightning.outputs.lightning_module").addHandler(self)
        return self

    def __exit__(self, *_: object) -> None:
        logging.getLogger("mia_lightning.outputs.lightning_module").removeHandler(self)


def memory(bench: Bench) -> Iterator[Row]:
    """Let a batch exceed the device's memory: it is halved, and the outputs stay those of a small batch."""
    cuda, large, small = bench.device == "cuda", bench.size(65_536, 32), bench.size(1024, 8)
    records, network = records_of(large, bench.side), cifar_stem(resnet18(num_classes=CLASSES))
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
    with Halvings() as halvings:
        halved, _ = run(batch=large)
    gap = float(np.abs(expected - halved).max())
    note = f"a batch of {large:,} in {'5% of the memory' if cuda else 'a simulated device'}"
    yield Row("memory", "halvings of a batch", halvings.count, "", "" if halvings.count else "NOT HALVED")
    yield Row("memory", "largest difference of a logit after halving", gap, "", note)
    if cuda:
        yield Row("memory", "peak memory", torch.cuda.max_memory_allocated() / 2**30, "GiB")


def devices(bench: Bench) -> Iterator[Row]:
    """Compare one device with all: equality and scaling of extraction (by NCCL) and of references (a process each).

    A rehearsal takes two processes on the CPU, which are connected by gloo.
    """
    count = 2 if bench.rehearsal else torch.cuda.device_count()
    if count < 2:
        yield Row("devices", "several devices", "skipped", note=f"{count} CUDA devices here")
        return
    with tempfile.TemporaryDirectory() as store:
        one, expected = extracted(bench, 1, Path(store))
    with tempfile.TemporaryDirectory() as store:  # of all processes of the child
        text = _output(_child(bench, f"devices:{count}:{store}"), bench.size(180, 600))
    rate, digest = text.split()[-2:]
    yield Row("devices", f"extraction, {count} devices against one", float(rate) / one, "x", "images/s")
    yield Row("devices", "outputs", "equal" if digest == expected else "differ", note="digests of the logits")
    train = Trainee(bench)
    one, _ = train.rate(DeviceSession(train.data, record=recorder(bench)))
    cards = [{} if bench.rehearsal else {"CUDA_VISIBLE_DEVICES": str(number)} for number in range(count)]
    rate_of_all, losses = together(bench, cards)
    yield Row("devices", f"references, one on each of {count} devices against one", rate_of_all / one, "x", "images/s")
    losses.append(train.losses[-1])
    gap = max(losses) - min(losses) if len(losses) > count else float("nan")
    equal = f"{'equal' if gap <= LOSS_TOLERANCE else 'NOT EQUAL'} within {LOSS_TOLERANCE}"
    note = f"{equal}: {len(losses) - 1} of {count} trained"
    yield Row("devices", "difference of the references' last mean losses", gap, "", note)


def run_child(task: str, rehearsal: bool) -> None:
    """Do one task in a process of its own and print its result."""
    bench = Bench("cpu" if rehearsal else "cuda", rehearsal, float("inf"), None)
    if task == "training":
        train = Trainee(bench)
        session = DeviceSession(train.data, record=recorder(bench))
        train(1, session)
        print("ready", flush=True)
        sys.stdin.readline()
        print(train(bench.size(5, 1), session), train.losses[-1], flush=True)
        return
    _, number, store = task.split(":", 2)
    print(*extracted(bench, int(number), Path(store)))


def extracted(bench: Bench, number: int, store: Path) -> tuple[float, str]:
    """Return records/s of an extraction on some devices, and the digest of its logits."""
    torch.manual_seed(0)
    records, network = records_of(bench.size(200_000, 32), bench.side), cifar_stem(resnet18(num_classes=CLASSES))
    started = perf_counter()
    accelerator = "cpu" if bench.rehearsal else "gpu"
    options: dict[str, Any] = {"accelerator": accelerator, "precision": "32-true", "devices": number}
    logits, _ = engine(network, "fc", records, queries=1, store=store, **options)
    return len(records) / (perf_counter() - started), sha256(logits.tobytes()).hexdigest()


def scoring(bench: Bench) -> Iterator[Row]:
    """Measure the scores, which the product computes on the CPU, and RMIA's ratio by the same formula on the device.

    The device's time includes the copy of phi, which the product keeps in a file that every process maps.
    """
    count, records, queries = bench.size(64, 4), bench.size(20_000, 60), bench.size(18, 2)
    draw = np.random.default_rng(0)
    keep = np.argsort(draw.random((count, records)), axis=0) < count // 2
    values = draw.standard_normal((count + 1, records, queries), np.float32) * 2
    outputs = ReferenceOutputs(values[0], values[1:], keep, np.zeros(records, np.int64), CLASSES)
    for name, score in standard_scores().items():
        seconds = bench.seconds(partial(score.columns, outputs), 1)
        yield Row("scoring", f"{name}, CPU", seconds, "s", f"{count} references, {records:,} records, {queries} views")

    def on_device() -> torch.Tensor:
        target, references, in_ = (
            torch.from_numpy(array).to(bench.device, dtype)
            for array, dtype in zip((values[0], values[1:], keep), [torch.float64] * 2 + [torch.bool], strict=True)
        )
        p, sides = torch.sigmoid(references), torch.stack([in_, ~in_]).double()
        mean = torch.einsum("knq,skn->snq", p, sides) / sides.sum(1)[..., None]
        return (nn.functional.logsigmoid(target) - mean.mean(0).log()).mean(-1).cpu()

    host = bench.seconds(partial(log_ratio, outputs, a=None))
    yield Row("scoring", "ratio of RMIA, CPU", host, "s")
    seconds = bench.seconds(on_device)
    gap = float(np.abs(on_device().numpy() - log_ratio(outputs, a=None)).max())
    note = f"{host / seconds:.1f}x the CPU's speed; {'equal' if gap <= 1e-9 else 'NOT EQUAL'} within 1e-9"
    yield Row("scoring", "ratio of RMIA, device with copies", seconds, "s", note)


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
    "scoring": scoring,
    "devices": devices,
    "replica": replica,
    "several": several,
    "compiled": compiled,
}


def measure(bench: Bench, names: list[str]) -> Iterator[Row]:
    """Yield the rows of every section; what fails or finds no time left is a row, too."""
    for number, name in enumerate(names):
        if perf_counter() > bench.deadline:
            yield Row(name, "section", "skipped", note="no time left")
            continue
        try:
            with bench.restored_settings():
                for row in SECTIONS[name](bench):
                    yield row
                    if perf_counter() > bench.deadline:
                        yield Row(name, "rest of the section", "skipped", note="no time left")
                        break
        except (Exception, SystemExit) as error:
            traceback.print_exc()
            yield Row(name, "section", "failed", note=f"{type(error).__name__}: {error}".splitlines()[0][:200])
            if not bench.is_usable():
                yield from in_new_process(bench, names[number + 1 :])
                return


def in_new_process(bench: Bench, names: list[str]) -> Iterator[Row]:
    """Yield the rows of sections that a new process runs, which measures the peaks again but does not report them."""
    left = bench.deadline - perf_counter()
    if not names or left <= 0:
        yield from (Row(name, "section", "skipped", note="no time left") for name in names)
        return
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "rows.json"
        command = [sys.executable, __file__, "--minutes", str(left / 60), "--output", str(path)]
        command += ["--rehearse"] if bench.rehearsal else []
        command += ["--replica", str(bench.replica)] if bench.replica else []
        with suppress(subprocess.TimeoutExpired):
            subprocess.run([*command, "--only", "peaks", *names], stdout=subprocess.DEVNULL, timeout=left + GRACE)
        rows = [Row(**row) for row in json.loads(path.read_text())["rows"]] if path.exists() else []
    yield from (row for row in rows if row.section in names)
    measured = {row.section for row in rows}
    yield from (Row(name, "section", "failed", note="its process ended") for name in names if name not in measured)


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
    if options.rehearse:  # several processes share the cores
        torch.set_num_threads(1)
    if options.child:
        run_child(options.child, options.rehearse)
        return 0
    if not (torch.cuda.is_available() or options.rehearse):
        print("no CUDA device is visible; --rehearse runs the sections on the CPU at tiny sizes", file=sys.stderr)
        return 2
    device = "cpu" if options.rehearse else "cuda"
    bench = Bench(device, options.rehearse, perf_counter() + 60 * options.minutes, options.replica)
    facts: dict[str, Any] = description(bench)
    rows: list[Row] = []

    def finish() -> int:
        print(", ".join(f"{name} {value}" for name, value in facts.items()), "", table(rows), sep="\n", flush=True)
        return int(any(row.value == "failed" for row in rows))

    def give_up() -> None:
        rows.append(Row("all", "rest", "failed", note="hung after its time and was ended"))
        finish()
        os._exit(1)

    watchdog = Timer(60 * options.minutes + GRACE, give_up)
    watchdog.daemon = True
    watchdog.start()
    for row in measure(bench, options.only):
        rows.append(row)
        if options.output:  # after each row, so that a kill leaves what was measured
            options.output.write_text(json.dumps(facts | {"rows": [asdict(row) for row in rows]}, indent=1))
        print(table([row]).splitlines()[-1], file=sys.stderr, flush=True)
    watchdog.cancel()
    return finish()


if __name__ == "__main__":
    sys.exit(main())
