"""Search attack hyper-parameters: python tune.py --help."""

from mia_lightning.cli import tune

if __name__ == "__main__":
    raise SystemExit(tune())
