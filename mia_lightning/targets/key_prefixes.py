"""Which names a state dict had before a training script wrapped the network."""

from collections import Counter
from collections.abc import Iterable, Mapping

from torch import Tensor

PREFIXES = ("module.", "model.", "net.")
COMPILED = "_orig_mod."


def variants(weights: Mapping[str, Tensor], lightning: bool) -> list[dict[str, Tensor]]:
    """Return the state dict as it is, then with one wrapper's prefix after another taken away.

    Which of them is meant shows only beside an architecture: a class may itself call its trunk `model`.

    Args:
        weights: Names as in the file.
        lightning: Lightning wrote the file: names outside the network's root (losses, metrics) are dropped with it.
    """
    current = {name.replace(COMPILED, ""): tensor for name, tensor in weights.items()}  # torch.compile, at any depth
    found = [current]
    while prefix := _prefix(current, lightning):
        current = {name.removeprefix(prefix): value for name, value in current.items() if name.startswith(prefix)}
        found.append(current)
    return found


def closest(found: Iterable[dict[str, Tensor]], expected: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the first variant that shares the most names with what the architecture expects."""
    return max(found, key=lambda weights: len(weights.keys() & expected.keys()))


def _prefix(weights: Mapping[str, Tensor], lightning: bool) -> str | None:
    known = next((prefix for prefix in PREFIXES if all(name.startswith(prefix) for name in weights)), None)
    if known or not lightning:
        return known
    roots = Counter(name.partition(".")[0] + "." for name in weights if "." in name)
    usual = [prefix for prefix in PREFIXES if prefix in roots]
    return max(usual, key=roots.__getitem__) if usual else next((root for root, _ in roots.most_common(1)), None)
