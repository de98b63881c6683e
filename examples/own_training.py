"""References by the target's own training: a LightningModule, its checkpoint, and nothing else to configure.

python examples/own_training.py FOLDER
"""

import sys
from pathlib import Path

import lightning as L
import numpy as np
import torch
from sklearn.datasets import load_digits
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from mia_lightning import audit, load_config


class Lit(L.LightningModule):
    """A classifier of 8x8 digits with its own training."""

    def __init__(self, batch_size: int = 64) -> None:
        super().__init__()
        self.save_hyperparameters()
        self.network = nn.Sequential(nn.Flatten(), nn.Linear(64, 128), nn.ReLU(), nn.Linear(128, 10))

    def forward(self, images: Tensor) -> Tensor:
        """Return logits (N, 10)."""
        return self.network(images)

    def training_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> Tensor:
        """Return the loss of a batch."""
        return nn.functional.cross_entropy(self(batch[0] + 0.05 * torch.randn_like(batch[0])), batch[1])

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """Return the optimizer."""
        return torch.optim.Adam(self.parameters(), 3e-3)


def main(folder: Path) -> None:
    """Train the target on a random half of the digits; attack it with references trained in the same way."""
    from own_training import Lit  # by the name under which references are trained

    images, labels = load_digits(return_X_y=True)
    images = (images.reshape(-1, 1, 8, 8) / 16).astype(np.float32)
    member = (np.random.default_rng(0).random(len(labels)) < 0.5).astype(np.int8)
    tensors = TensorDataset(*(torch.from_numpy(values[member == 1]) for values in (images, labels)))
    trainer = L.Trainer(max_epochs=40, logger=False, enable_checkpointing=False)
    trainer.fit(Lit(), DataLoader(tensors, batch_size=64, shuffle=True))
    trainer.save_checkpoint(folder / "model.ckpt")
    np.savez(folder / "records.npz", images=images, labels=labels, membership=member)
    target = {"checkpoint": str(folder / "model.ckpt"), "architecture": "own_training:Lit"}
    data = {"public": str(folder / "records.npz"), "mean": [0.0], "std": [1.0]}
    config = load_config(data=data, target=target, references={"count": 4}, output=str(folder / "run"))
    print("\n".join(f"{check.name}: {check.status}" for check in audit(config).fidelity))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
