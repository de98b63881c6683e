"""Policy files in YAML."""

from pathlib import Path

from mia_lightning.config.files import read_yaml
from mia_lightning.errors import printable
from mia_lightning.policy.policy import Policy, parse_policy


def read_policy(path: str | Path) -> Policy:
    """Read and check a policy.

    Raises:
        MIAError: the file cannot be read or is not YAML, or as `parse_policy`.
    """
    return parse_policy(read_yaml(path), printable(Path(path).name, 60))
