"""A ResNet that was just trained, audited in three lines, and compared with records of withheld membership.

python examples/in_memory.py [FOLDER]
"""

import sys
from pathlib import Path

import numpy as np
import torch
import torchvision
from sklearn.datasets import load_digits
from torch import nn

import mia_lightning
from mia_lightning.metrics import evaluate


def trained(images: torch.Tensor, labels: torch.Tensor) -> nn.Module:
    """Return the first two stages of a ResNet-18, over-fitted."""
    torch.manual_seed(0)
    model = torchvision.models.resnet18(num_classes=10)
    model.conv1, model.maxpool = nn.Conv2d(1, 64, 3, 2, 1, bias=False), nn.Identity()
    model.layer2, model.layer3, model.layer4, model.fc = nn.Identity(), nn.Identity(), nn.Identity(), nn.Linear(64, 10)
    optimizer = torch.optim.Adam(model.parameters(), lr=2e-3)
    for _ in range(12):
        for rows in torch.randperm(len(images)).split(50):
            optimizer.zero_grad()
            nn.functional.cross_entropy(model(images[rows]), labels[rows]).backward()
            optimizer.step()
    return model


def main(folder: Path | None) -> None:
    """Train on half of the digits with noisy labels; audit with half of all records, compare with the rest."""
    digits = load_digits()
    images, labels = torch.tensor(digits.images[:, None] / 16, dtype=torch.float32), torch.tensor(digits.target)
    rng = np.random.default_rng(0)
    noisy = torch.tensor(rng.random(len(labels)) < 0.3)
    labels[noisy] = torch.tensor(rng.integers(0, 10, int(noisy.sum())))
    member, known = (torch.tensor(rng.random(len(labels)) < share) for share in (0.5, 0.5))
    model = trained(images[member], labels[member])

    members, non_members = ((images[rows], labels[rows]) for rows in (member & known, ~member & known))
    result = mia_lightning.audit(model, members, non_members, unknown=(images[~known], labels[~known]))
    print(result)

    figures = result.table().loc["phi_threshold"]
    records = result.records()
    truth = evaluate(
        records.phi_threshold[records.part == "unknown"].to_numpy(), member[~known].numpy().astype(np.int8)
    )
    print(f"AUC [{figures.auc_low:.3f}, {figures.auc_high:.3f}], withheld [{truth.auc_low:.3f}, {truth.auc_high:.3f}]")
    if folder is not None:
        print(f"report: {result.report(folder / 'audit.html').name}")


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else None)
