"""MedMNIST's data sets by name or file: `medmnist:PathMNIST?root=DIR`."""

from collections.abc import Mapping
from pathlib import Path

from mia_lightning.errors import MIAError, reason, suggest
from mia_lightning.records.readers import _files, arrays
from mia_lightning.records.records import Records
from mia_lightning.runtime.extras import require

FORMATS = "a MedMNIST data set (medmnist:NAME)"

PREFIX = "medmnist:"

NAMES = (
    *("PathMNIST", "ChestMNIST", "DermaMNIST", "OCTMNIST", "PneumoniaMNIST", "RetinaMNIST", "BreastMNIST"),
    *("BloodMNIST", "TissueMNIST", "OrganAMNIST", "OrganCMNIST", "OrganSMNIST"),
)
"""Sets of images; files have these names in lower case."""

ROOTS = ("data", "~/.medmnist")
"""Folders of files; the second is the default of the package `medmnist`."""


def matches(source: str) -> bool:
    """Whether the source names a MedMNIST data set."""
    return source.startswith(PREFIX)


def read(source: str, columns: Mapping[str, str] | None = None) -> Records:
    """Read a data set as MedMNIST publishes it, as `arrays.read`: train as members, test as non-members.

    `NAME.npz`, also of larger images such as `medmnist:pathmnist_64`, is looked for under `root`, or else under `data`
    and `~/.medmnist`. Where it is absent, the optional package `medmnist` downloads it and checks its MD5.

    Raises:
        MIAError: the data set is unknown or of volumes, or its file is missing and cannot be downloaded.
    """
    name, root = _files.named_set(source, PREFIX)
    if name.endswith(".npz"):
        return arrays.read(name, columns)
    stem = name.lower()
    flag, _, size = stem.partition("_")
    if flag.endswith("3d"):
        raise MIAError(f"{source}: has volumes; choose a data set of images, such as {PREFIX}{NAMES[0]}")
    flags = {known.lower(): known for known in NAMES}
    if flag not in flags or size not in ("", "64", "128", "224"):
        raise MIAError(f"{source}: MedMNIST has no such data set; {suggest(name, NAMES, see='')}")
    roots = [Path(folder).expanduser() for folder in ((root,) if root else ROOTS)]
    path = next((path for folder in roots if (path := folder / f"{stem}.npz").is_file()), None)
    return arrays.read(str(path or _downloaded(source, flags[flag], stem, size, roots[-1])), columns)


def _downloaded(source: str, name: str, stem: str, size: str, root: Path) -> Path:
    try:
        package = require("medmnist", "medmnist")
    except MIAError as error:
        folders = root if "?root=" in source else " or ".join(ROOTS)
        raise MIAError(f"{source}: {stem}.npz is not in {folders}; put it there, or download it: {error}") from None
    try:
        root.mkdir(parents=True, exist_ok=True)
        getattr(package, name)(split="train", download=True, root=str(root), size=int(size or 28))
    except (OSError, RuntimeError) as error:
        raise MIAError(
            f"{source}: cannot be downloaded ({reason(error, 120)}); with no network, put {stem}.npz into {root}"
        ) from None
    return root / f"{stem}.npz"
