"""Membership inference attacks on image classifiers, with honest error rates."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mia_lightning.config import RunConfig, load_config
    from mia_lightning.errors import MIAError
    from mia_lightning.pipeline import AuditResult, audit

__all__ = ["AuditResult", "MIAError", "RunConfig", "audit", "load_config"]

_HOMES = {
    "RunConfig": "config",
    "load_config": "config",
    "MIAError": "errors",
    "AuditResult": "pipeline",
    "audit": "pipeline",
}


def __getattr__(name: str) -> Any:
    """Import a public name when it is first used, so that `import mia_lightning` itself costs nothing."""
    from importlib import import_module

    if name not in _HOMES:
        raise AttributeError(f"module 'mia_lightning' has no attribute {name!r}")
    return getattr(import_module(f"mia_lightning.{_HOMES[name]}"), name)
