"""Shipped configurations, found by name, and configurations that extend another."""

from collections.abc import Iterable
from importlib.resources import files
from pathlib import Path
from textwrap import shorten
from typing import Any

from mia_lightning.config import renamed
from mia_lightning.config.files import overlay, read_yaml
from mia_lightning.errors import MIAError, suggest

FOLDER = Path(str(files("mia_lightning"))) / "configs"
"""Folder of the shipped configurations, in a checkout and in an installation."""

ENDINGS = (".yaml", ".yml")


def names() -> list[str]:
    """Return the names of the shipped configurations, sorted."""
    return sorted(path.stem for path in FOLDER.glob("*.yaml"))


def descriptions() -> str:
    """Return one line of at most 80 characters per shipped configuration: its name and the file's first comment."""
    width = max(map(len, names()))
    lines = []
    for name in names():
        with (FOLDER / f"{name}.yaml").open(encoding="utf-8") as file:
            description = shorten(file.readline().lstrip("# "), 80 - width - 2, placeholder=" …")
        lines.append(f"{name:{width}}  {description}")
    return "\n".join(lines)


def locate(name: str, *, folder: Path | None = None) -> Path:
    """Return the file of a configuration: a path that exists, or else the shipped configuration of that name.

    Args:
        name: A path, or the name of a shipped configuration with or without `configs/` and `.yaml`.
        folder: Searched before the working directory, for `extends`.

    Raises:
        MIAError: neither exists; the message lists the closest names.
    """
    for candidate in (*([folder / name] if folder is not None else []), Path(name)):
        if _exists(candidate):
            return candidate
    path = Path(name)
    if path.parent.name in ("", "configs") and path.stem in renamed.CONFIGURATIONS:
        renamed.note(f"configuration {path.stem!r}", repr(renamed.CONFIGURATIONS[path.stem]))
        path = path.with_stem(renamed.CONFIGURATIONS[path.stem])
    if path.parent.name in ("", "configs") and path.suffix in ("", *ENDINGS) and path.stem in names():
        return FOLDER / f"{path.stem}.yaml"
    raise MIAError(
        f"no such configuration: {name!r} is neither a file nor a shipped configuration; "
        f"{suggest(path.stem, names(), see='--list_configs')}"
    )


def _exists(path: Path) -> bool:
    try:
        return path.exists() and not (path.is_dir() and path.name in names())
    except (OSError, ValueError):  # a name that is too long, or with a NUL
        return False


def read_configurations(sources: Iterable[str | Path]) -> dict[str, Any]:
    """Read configurations, each after the one that it extends, later ones over earlier ones.

    `extends: NAME` at the top of a file names a file relative to it, or a shipped configuration. A configuration that
    was already read is not read again, so that naming both base and overlay gives the same result as the overlay.

    Raises:
        MIAError: a file is missing or not a configuration, or configurations extend each other in a circle.
    """
    merged: dict[str, Any] = {}
    done: set[Path] = set()
    for source in sources:
        *bases, (path, values) = _chain(locate(str(source)), ())
        for base, base_values in bases:
            if base not in done:
                merged = overlay(merged, base_values)
        merged = overlay(merged, values)
        done |= {path, *(base for base, _ in bases)}
    return merged


def _chain(path: Path, below: tuple[Path, ...]) -> list[tuple[Path, dict[str, Any]]]:
    """Return a configuration's files and contents, bases first."""
    resolved = path.resolve()
    if resolved in below:
        circle = " -> ".join(step.name for step in (*below[below.index(resolved) :], resolved))
        raise MIAError(f"configurations extend each other in a circle: {circle}; remove one 'extends'")
    values = renamed.with_current_names(read_yaml(path))
    base = values.pop("extends", None)
    if base is None:
        return [(resolved, values)]
    if not isinstance(base, str):
        raise MIAError(f"{path}: extends must name one configuration, got {type(base).__name__}")
    return [*_chain(locate(base, folder=path.parent), (*below, resolved)), (resolved, values)]
