"""Everything a graphics card can show, in one command: equality with the CPU, throughput, training, memory.

    python benchmarks/gpu.py [--minutes 8] [--output gpu.json] [--replica FOLDER] [--rehearse]

Nothing is installed. Each section survives the failure of another; when the time is spent, the rest is skipped by name.
`--rehearse` runs every section on the CPU at tiny sizes: its figures mean nothing, but the script is known to run.
Prints a Markdown table; `--output` receives the same rows as JSON with hardware, driver, versions and date.
"""

import argparse
import json
import platform
import shutil
import subprocess
import sys
import tempfile
import traceback
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from datetime import date
from functools import partial
from hashlib import sha256
from pathlib import Path
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
        f"ViT-S/16, {large}x{large}": (lambda: vit_s(large), large, bench.size(10_000, 8), "heads.head"),
        f"resnet50, {large}x{large}": (
            lambda: resnet50(num_classes=CLASSES),
            large,
            bench.size(10_000, 8),
            "fc",
        ),
    }


def records_of(count: int, side: int) -> Records:
    """Return random images, labels and membership."""
    draw = np.random.default_rng(0)
    images = draw.integers(0, 256, (count, 3, side, side), dtype=np.uint8)
    member = draw.integers(0, 2, count).astype(np.int8)
    return Records(np.arange(count), images, draw.integers(0, CLASSES, count), member, "random")


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
) -> np.ndarray:
    """Return logits (N, Q, C) of the product's extraction, without a store to find them in."""
    target = Target(network.eval().requires_grad_(False), CLASSES, layer, "benchmark", "benchmark")
    hardware = Hardware(accelerator=accelerator, devices=devices, precision=precision, batch_size=batch)  # type: ignore[arg-type]
    with tempfile.TemporaryDirectory() as store:
        mean, std = (0.5,) * 3, (0.25,) * 3
        request = ExtractionRequest(Splits(records), target, mean, std, queries, False, hardware, Path(store))
        return np.array(extract(request).public.logits)


def peaks(bench: Bench) -> Iterator[Row]:
    """Measure the card's own limits: matrix products and copies."""
    side = bench.size(8192, 128)
    for name, dtype in (("32-true", torch.float32), ("bf16-mixed", torch.bfloat16)):
        left, right = (torch.randn(side, side, device=bench.device, dtype=dtype) for _ in range(2))
        bench.peaks[name] = 2 * side**3 / bench.seconds(partial(torch.matmul, left, right))
        yield Row("peaks", f"matrix product, {name}", bench.peaks[name] / 1e12, "TFLOP/s", f"{side} x {side}")
    block = torch.empty(bench.size(2**30, 2**20), dtype=torch.uint8, device=bench.device)
    rate = 2 * block.numel() / bench.seconds(block.clone)
    yield Row("peaks", "copy on the device", rate / 1e9, "GB/s", "bytes read and written")


def equality(bench: Bench) -> Iterator[Row]:
    """Compare logits and an attack's AUC with the CPU in float32."""
    accelerator = "gpu" if bench.device == "cuda" else "cpu"
    records = records_of(bench.size(2048, 32), 32)
    torch.manual_seed(0)
    network = cifar_stem(resnet18(num_classes=CLASSES))
    expected = engine(network, "fc", records, accelerator="cpu", precision="32-true", queries=2)
    for precision in ("32-true", "tf32", "bf16-mixed"):
        allow = torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32
        torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = precision == "tf32"
        typed = "32-true" if precision == "tf32" else precision
        logits = engine(network, "fc", records, accelerator=accelerator, precision=typed, queries=2)
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
            bare = bare_loop(bench, network, records, precision)
            ours = count / bench.seconds(
                partial(engine, network, layer, records, accelerator=accelerator, precision=precision, queries=1), 1
            )
            share = f"{ours / bare:.2f} of a bare loop ({bare:,.0f})"
            if precision in bench.peaks:
                share += f"; {ours * work / bench.peaks[precision]:.1%} of the measured peak"
            yield Row("extraction", f"{name}, {precision}", ours, "images/s", share)
    build, side, count, layer = networks(bench)["resnet18, CIFAR stem, 32x32"]
    for queries in (1, 2, 18, 50):
        records = records_of(max(8, count // queries), side)
        run = partial(engine, build(), layer, records, accelerator=accelerator, precision="bf16-mixed", queries=queries)
        rate = len(records) * queries / bench.seconds(run, 1)
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


def training(bench: Bench) -> Iterator[Row]:
    """Measure training of one reference model: eager, compiled, with CUDA graphs, and several on one card."""
    count = bench.size(40_000, 64)
    records = records_of(count, 32)
    data = TrainingData(records.images, records.labels, (0.5,) * 3, (0.25,) * 3, CLASSES, 1)
    recipe = ReferenceTraining(epochs=1, batch_size=bench.size(256, 16), precision="bf16-mixed")
    keep = np.arange(count) % 2 == 0

    def run(wrap: Callable[[nn.Module], nn.Module] = lambda network: network) -> None:
        torch.manual_seed(0)
        network = wrap(cifar_stem(resnet18(num_classes=CLASSES)))
        with tempfile.TemporaryDirectory() as folder:
            train_reference(network, data, keep, recipe, seed=0, checkpoint=Path(folder) / "c", device=bench.device)

    eager = bench.seconds(run, 1)
    images = keep.sum() / eager
    with FlopCounterMode(display=False) as counter, torch.inference_mode():
        cifar_stem(resnet18(num_classes=CLASSES)).eval()(torch.zeros(1, 3, 32, 32))
    share = 3 * counter.get_total_flops() * images / bench.peaks.get("bf16-mixed", float("inf"))
    note = f"{share:.1%} of the measured peak"
    yield Row("training", "resnet18, CIFAR stem, the product's loop", images, "images/s", note)
    seconds = 14 * 20_000 / images
    yield Row("training", "one reference of 14 epochs on 20,000 records", seconds, "s", "scaled from one epoch")
    if bench.device == "cuda":
        for mode in ("default", "reduce-overhead"):
            seconds = bench.seconds(partial(run, partial(torch.compile, mode=mode)), 1)
            note = "torch.compile; reduce-overhead records CUDA graphs; compilation in the warm-up"
            yield Row("training", f"the same, compiled, {mode}", keep.sum() / seconds, "images/s", note)
        yield from several(bench)


def several(bench: Bench) -> Iterator[Row]:
    """Train 2, 4 and 8 references at the same time on one card, one process each."""
    mps = shutil.which("nvidia-cuda-mps-control") is not None and _runs("nvidia-cuda-mps-control")
    note = "with NVIDIA MPS" if mps else "without NVIDIA MPS: kernels of different processes take turns"
    for count in (1, 2, 4, 8):
        started = perf_counter()
        children = [_child("training", stdout=subprocess.DEVNULL) for _ in range(count)]
        failed = sum(child.wait() != 0 for child in children)
        rate = (count - failed) / (perf_counter() - started)
        yield Row("training", f"{count} processes at a time", rate, "runs/s", f"{note}; with start-up; {failed} failed")


def _child(task: str, **options: Any) -> subprocess.Popen[str]:
    return subprocess.Popen([sys.executable, __file__, "--child", task], text=True, **options)


def _runs(name: str) -> bool:
    return subprocess.run(["pgrep", "-f", name], capture_output=True).returncode == 0


def memory(bench: Bench) -> Iterator[Row]:
    """Let a batch exceed the device's memory: it is halved, and the outputs stay those of a small batch."""
    if bench.device != "cuda":
        yield Row("memory", "a real lack of memory", "skipped", note="needs a GPU; simulated in tests/outputs")
        return
    records, network = records_of(65_536, 32), cifar_stem(resnet18(num_classes=CLASSES))
    small = engine(network, "fc", records, accelerator="gpu", precision="32-true", queries=1, batch=1024)
    torch.cuda.reset_peak_memory_stats()
    torch.cuda.set_per_process_memory_fraction(0.05)
    try:
        halved = engine(network, "fc", records, accelerator="gpu", precision="32-true", queries=1, batch=65_536)
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)
    gap = float(np.abs(small - halved).max())
    yield Row("memory", "largest difference of a logit after halving", gap, "", "a batch of 65,536 in 5% of the memory")
    yield Row("memory", "peak memory", torch.cuda.max_memory_allocated() / 2**30, "GiB")


def devices(bench: Bench) -> Iterator[Row]:
    """Compare one device with all: equality by NCCL, scaling."""
    count = torch.cuda.device_count() if bench.device == "cuda" else 0
    if count < 2:
        yield Row("devices", "several devices", "skipped", note=f"{count} CUDA devices here")
        return
    rates, digests = [], []
    for number in (1, count):
        text, _ = _child(f"devices:{number}", stdout=subprocess.PIPE).communicate()
        rate, digest = text.split()[-2:]
        rates.append(float(rate))
        digests.append(digest)
    yield Row("devices", f"{count} devices against one", rates[1] / rates[0], "x", "images/s of extraction")
    yield Row("devices", "outputs", "equal" if digests[0] == digests[1] else "differ", note="digests of the logits")


def run_child(task: str) -> None:
    """Do one task in a process of its own and print its result."""
    bench = Bench("cuda" if torch.cuda.is_available() else "cpu", False, float("inf"), None)
    if task == "training":
        next(iter(training(bench)))
        return
    records, network = records_of(200_000, 32), cifar_stem(resnet18(num_classes=CLASSES))
    started = perf_counter()
    logits = engine(network, "fc", records, accelerator="gpu", precision="32-true", queries=1, devices=int(task[8:]))
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
        subprocess.run(command, check=True, capture_output=True, timeout=max(60.0, bench.deadline - perf_counter()))
        yield Row("replica", "K = 4, end to end", perf_counter() - started, "s")


SECTIONS = {
    "peaks": peaks,
    "equality": equality,
    "extraction": extraction,
    "training": training,
    "memory": memory,
    "devices": devices,
    "replica": replica,
}


def measure(bench: Bench, names: list[str]) -> Iterator[Row]:
    """Yield the rows of every section; what fails or finds no time left is a row, too."""
    for name in names:
        if perf_counter() > bench.deadline:
            yield Row(name, "section", "skipped", note="no time left")
            continue
        try:
            yield from SECTIONS[name](bench)
        except Exception as error:
            traceback.print_exc()
            yield Row(name, "section", "failed", note=f"{type(error).__name__}: {error}".splitlines()[0][:200])


def description(bench: Bench) -> dict[str, Any]:
    """Return hardware, driver, versions and date."""
    cuda = bench.device == "cuda"
    query = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
    driver = subprocess.run(query, capture_output=True, text=True).stdout.split() if cuda else []
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
        run_child(options.child)
        return 0
    if not (torch.cuda.is_available() or options.rehearse):
        print("no CUDA device is visible; --rehearse runs the sections on the CPU at tiny sizes", file=sys.stderr)
        return 1
    device = "cpu" if options.rehearse else "cuda"
    bench = Bench(device, options.rehearse, perf_counter() + 60 * options.minutes, options.replica)
    facts, rows = description(bench), []
    for row in measure(bench, options.only):
        rows.append(row)
        print(table([row]).splitlines()[-1], file=sys.stderr, flush=True)
    print(", ".join(f"{name} {value}" for name, value in facts.items()), "", table(rows), sep="\n")
    if options.output:
        options.output.write_text(json.dumps(facts | {"rows": [asdict(row) for row in rows]}, indent=1))
    return int(any(row.value == "failed" for row in rows))


if __name__ == "__main__":
    sys.exit(main())
