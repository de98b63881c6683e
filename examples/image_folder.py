"""An audit of JPEGs, a timm network and the user's transform: python examples/image_folder.py [FOLDER]."""

import sys
from pathlib import Path
from tempfile import mkdtemp

import numpy as np
import timm
import torch
from PIL import Image
from sklearn.datasets import load_digits
from torchvision import transforms
from torchvision.datasets import ImageFolder

from mia_lightning import load_config
from mia_lightning.pipeline.audit import audit

evaluation = transforms.Compose([transforms.Resize((32, 32)), transforms.ToTensor(), transforms.Normalize(0.5, 0.5)])


def write_images(folder: Path, count: int) -> None:
    """Write digits as JPEGs: members into train/, non-members into test/, and a private half without either."""
    digits, rng = load_digits(), np.random.default_rng(0)
    for number in range(count):
        label, pixels = str(digits.target[number]), np.uint8(digits.images[number] * 15.9)
        member, private = rng.random(2) < (0.5, 0.5)
        place = folder / ("private" if private else "public") / ("train" if member else "test") / label
        place.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).resize((20 + number % 5, 24)).save(place / f"{number}.jpg")


def train(folder: Path) -> None:
    """Train a small network of timm on the members of both halves."""
    halves = [ImageFolder(str(folder / half / "train"), evaluation) for half in ("public", "private")]
    images, labels = (torch.stack([torch.as_tensor(pair[i]) for half in halves for pair in half]) for i in (0, 1))
    torch.manual_seed(0)
    network = timm.create_model("test_resnet", num_classes=10)
    optimizer = torch.optim.AdamW(network.parameters(), 1e-2)
    for _ in range(60):
        optimizer.zero_grad()
        torch.nn.functional.cross_entropy(network(images), labels).backward()
        optimizer.step()
    torch.save(network.state_dict(), folder / "model.pt")


def main(folder: Path) -> None:
    """Audit the network and compare with the half whose membership was withheld."""
    write_images(folder, 600)
    train(folder)
    data = {half: str(folder / half) for half in ("public", "private")} | {"transform": "image_folder:evaluation"}
    target = {"architecture": "timm:test_resnet", "checkpoint": str(folder / "model.pt")}
    result = audit(load_config(data=data, target=target, output=str(folder / "run"))).attacks["phi_threshold"]
    known, truth = result.public, result.private
    print(f"AUC [{known.auc_low:.3f}, {known.auc_high:.3f}], withheld [{truth.auc_low:.3f}, {truth.auc_high:.3f}]")


if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parent))  # where --data.transform finds `image_folder`
    main(Path(sys.argv[1] if len(sys.argv) > 1 else mkdtemp()))
