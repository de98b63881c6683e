"""Manifests of canaries: coins, contents and a commitment to both.

The commitment is the sha256 of a secret nonce and the canonical JSON of everything else. Published before training, it
proves at the audit that coins and canaries were fixed before, and reveals neither.
"""

import json
import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from hashlib import sha256
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from mia_lightning.canary.config import Pattern
from mia_lightning.errors import MIAError
from mia_lightning.runtime.own_files import JSON_BYTES, parse_json
from mia_lightning.security.open import open_regular

NAME = "manifest.json"


@dataclass(frozen=True)
class Manifest:
    """Canaries and their coins."""

    pattern: Pattern
    ids: tuple[str, ...]
    coins: tuple[int, ...]
    """1 = to be trained on, 0 = to be left out; independent and fair."""

    labels: tuple[int, ...]
    contents: tuple[str, ...]
    """sha256 (hex) of each image and label."""

    nonce: str
    """Secret random text (hex) that hides the coins in the commitment."""

    commitment: str
    """sha256 (hex) of nonce and contents."""

    @property
    def membership(self) -> NDArray[np.int8]:
        """(m,) coins."""
        return np.array(self.coins, dtype=np.int8)

    def to_json(self) -> str:
        """Return the manifest as its file holds it."""
        return json.dumps(asdict(self), indent=1) + "\n"


def commit(
    pattern: Pattern,
    ids: Sequence[str],
    coins: Sequence[int],
    labels: Sequence[int],
    contents: Sequence[str],
    nonce: str,
) -> Manifest:
    """Return the manifest with its commitment."""
    fixed = {
        "pattern": pattern,
        "ids": list(ids),
        "coins": [int(coin) for coin in coins],
        "labels": [int(label) for label in labels],
        "contents": list(contents),
    }
    digest = sha256(f"{nonce}\n{json.dumps(fixed, sort_keys=True)}".encode()).hexdigest()
    numbers = [tuple(map(int, values)) for values in (coins, labels)]
    return Manifest(pattern, tuple(ids), numbers[0], numbers[1], tuple(contents), nonce, digest)


def read_manifest(path: str | Path) -> Manifest:
    """Read a manifest and check that it is what was committed to.

    Args:
        path: The file, or the folder that holds it.

    Raises:
        MIAError: missing, damaged, or changed after the commitment.
    """
    file = Path(path) / NAME if Path(path).is_dir() else Path(path)
    try:
        with open_regular(file) as opened:
            manifest = parse_json(opened.read(JSON_BYTES + 1)[:JSON_BYTES], Manifest)
    except OSError as error:
        raise MIAError(f"{file}: cannot be read ({error.strerror}); name the folder of canaries make") from error
    except ValueError as error:
        raise MIAError(f"{file}: is not a manifest of canaries ({error}); name that of canaries make") from error
    count = len(manifest.ids)
    lengths = {len(manifest.coins), len(manifest.labels), len(manifest.contents), len(set(manifest.ids))}
    if lengths != {count} or count == 0 or not set(manifest.coins) <= {0, 1}:
        raise MIAError(f"{file}: is damaged (coins, labels and contents do not fit {count} ids); restore it")
    again = commit(manifest.pattern, manifest.ids, manifest.coins, manifest.labels, manifest.contents, manifest.nonce)
    if again.commitment != manifest.commitment:
        raise MIAError(f"{file}: was changed after its commitment; restore the file that canaries make wrote")
    return manifest


def check_commitment(manifest: Manifest, published: str | None) -> None:
    """Check a manifest against the commitment that was published.

    Raises:
        MIAError: it is not a sha256, or another one.
    """
    if published is None:
        return
    if not re.fullmatch(r"[0-9a-fA-F]{64}", published):
        raise MIAError("--commitment must be the 64 hexadecimal digits that canaries make printed")
    if published.lower() != manifest.commitment:
        raise MIAError("the manifest is not the one of --commitment; audit with the manifest committed to")
