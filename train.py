"""Attack a target: python train.py --help."""

from mia_lightning.cli import train

if __name__ == "__main__":
    raise SystemExit(train())
