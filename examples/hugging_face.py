"""A small Hugging Face ViT that was just trained, audited in three lines and compared with withheld membership.

python examples/hugging_face.py
"""

import numpy as np
import torch
from sklearn.datasets import load_digits
from torch import nn
from transformers import ViTConfig, ViTForImageClassification

import mia_lightning
from mia_lightning.metrics import evaluate


def trained(images: torch.Tensor, labels: torch.Tensor) -> nn.Module:
    """Return a ViT of one layer on 8x8 images in patches of 2x2, over-fitted; it returns an `ImageClassifierOutput`."""
    torch.manual_seed(0)
    shape = {"image_size": 8, "patch_size": 2, "num_channels": 1, "hidden_size": 48, "intermediate_size": 96}
    model = ViTForImageClassification(
        ViTConfig(num_hidden_layers=1, num_attention_heads=2, num_labels=10, initializer_range=0.1, **shape)
    )
    optimizer = torch.optim.AdamW(model.parameters(), lr=4e-3)
    for _ in range(25):
        for rows in torch.randperm(len(images)).split(50):
            optimizer.zero_grad()
            model(images[rows], labels=labels[rows]).loss.backward()
            optimizer.step()
    return model


def main() -> None:
    """Train on half of the digits with noisy labels; audit with half of all records, compare with the rest."""
    digits, rng = load_digits(), np.random.default_rng(0)
    images, labels = torch.tensor(digits.images[:, None] / 16, dtype=torch.float32), torch.tensor(digits.target)
    noisy = torch.tensor(rng.random(len(labels)) < 0.3)
    labels[noisy] = torch.tensor(rng.integers(0, 10, int(noisy.sum())))
    member, known = (torch.tensor(rng.random(len(labels)) < share) for share in (0.5, 0.5))
    model = trained(images[member], labels[member])

    members, non_members, rest = ((images[rows], labels[rows]) for rows in (member & known, ~member & known, ~known))
    result = mia_lightning.audit(model, members, non_members, unknown=rest)
    print(result)

    figures, records = result.table().loc["phi_threshold"], result.records()
    scores = records.phi_threshold[records.part == "unknown"].to_numpy()
    truth = evaluate(scores, member[~known].numpy().astype(np.int8))
    print(f"AUC [{figures.auc_low:.3f}, {figures.auc_high:.3f}], withheld [{truth.auc_low:.3f}, {truth.auc_high:.3f}]")


if __name__ == "__main__":
    main()
