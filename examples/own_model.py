"""An audit of one's own model: train a network, save its weights and records, read the verdict.

python examples/own_model.py [FOLDER]
"""

import json
import sys
from pathlib import Path
from tempfile import mkdtemp

import numpy as np
import torch
from sklearn.datasets import load_digits
from torch import nn

from mia_lightning.cli import train


def network() -> nn.Module:
    """Return the untrained classifier of 8x8 digits: (N, 1, 8, 8) images to (N, 10) logits."""
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 128), nn.ReLU(), nn.Linear(128, 10))


def main(folder: Path) -> None:
    """Train on a random half of the digits, audit with both halves."""
    digits = load_digits()
    images, labels = (digits.images[:, None] / 16).astype(np.float32), digits.target
    member = (np.random.default_rng(0).random(len(labels)) < 0.5).astype(np.int8)

    torch.manual_seed(0)
    model = network()
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)
    inputs, targets = torch.from_numpy(images[member == 1]), torch.from_numpy(labels[member == 1])
    for _ in range(200):
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(inputs), targets).backward()
        optimizer.step()

    torch.save(model.state_dict(), folder / "model.pt")
    np.savez(folder / "records.npz", images=images, labels=labels, membership=member)
    sys.path.insert(0, str(Path(__file__).parent))  # where --target.architecture finds `own_model`
    code = train(
        [
            *("--data.public", str(folder / "records.npz"), "--data.mean", "[0.0]", "--data.std", "[1.0]"),
            *("--target.checkpoint", str(folder / "model.pt"), "--target.architecture", "own_model:network"),
            *("--output", str(folder / "audit")),
        ]
    )
    if code:
        raise SystemExit(code)
    print("\nverdict:", json.loads((folder / "audit" / "metrics.json").read_text())["verdict"])


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else mkdtemp(prefix="own-model-")))
