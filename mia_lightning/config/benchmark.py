"""Options of `python -m mia_lightning.benchmark`. A field is the option, the string below it the help."""

from dataclasses import dataclass, field
from typing import Literal

from mia_lightning.references.config import ReferenceTraining


@dataclass
class BenchmarkConfig:
    """Options of a benchmark."""

    data: str | None = None
    """Records, of which random halves train the models, such as torchvision:CIFAR10, medmnist:PathMNIST, a table,
    or another file or folder; their own membership is not read."""

    columns: dict[str, str] = field(default_factory=dict)
    """Meaning of columns of data whose names are not recognized, such as {outcome: label, city: ignore}."""

    pool: str | None = None
    """Models trained elsewhere, instead of data: a file or folder as for train.py --references.imported."""

    labels: str | None = None
    """File of the records' labels, for a pool of logits without labels."""

    targets: Literal["all"] | int = 10
    """Models that are targets, each with other models of the pool as its references: a number, or all."""

    references: tuple[int, ...] = (1, 2, 4, 8, 16)
    """Numbers of reference models; of a pool trained elsewhere by independent draws or in complementary pairs as many
    of these as it has, and all of the others of any other pool."""

    records: int | None = None
    """Records that are used, drawn at random (default: all)."""

    architecture: str = "small"
    """Network: small (three convolutions, or two hidden layers for a table), a torchvision name, or
    package.module:Class."""

    training: ReferenceTraining = field(default_factory=ReferenceTraining)

    queries: Literal[1, 2, 18, 50] = 2
    """Views per record; of a table always 1."""

    workers: int = 0
    """Ray workers that train at the same time; 0 trains in this process."""

    threads: int = 1
    """CPU threads of each Ray worker."""

    gpus_per_worker: float = 0.0
    """GPUs of each Ray worker."""

    ray_address: str | None = None
    """Address of a running Ray cluster (default: Ray is started on this machine)."""

    heads: bool = True
    """Include the attacks that are fitted: quantile regression and LightGBM with and without known members."""

    folds: int = 5
    """Cross-validation folds of the attacks that are fitted on known members."""

    output: str = "runs/benchmark"
    """Folder of benchmark.csv, .md, .tex and roc.pdf, .svg; figures of finished targets in it are used again."""

    cache_dir: str | None = None
    """Folder of trained models and their phi (default: .store in the folder that contains the output folder)."""

    seed: int = 0
    """Random seed of records, models and folds."""

    def __post_init__(self) -> None:
        if (self.data is None) == (self.pool is None):
            raise ValueError("give either --data, such as torchvision:CIFAR10, or --pool FILE")
        if not self.references or min(self.references) < 1:
            raise ValueError(f"--references must be at least 1, got {list(self.references)}")
        if self.targets != "all" and self.targets < 1:
            raise ValueError(f"--targets must be at least 1, got {self.targets}")
        if self.records is not None and self.records < 40:
            raise ValueError(f"--records must be at least 40, got {self.records}")
        if not 2 <= self.folds <= 100:
            raise ValueError(f"--folds must be at least 2 and at most 100, got {self.folds}")
