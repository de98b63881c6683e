"""Membership inference attacks on image classifiers, with calibrated error rates."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mia_lightning.config.command_line import load_config
    from mia_lightning.config.schema import RunConfig
    from mia_lightning.errors import MIAError
    from mia_lightning.pipeline.audited import Audit
    from mia_lightning.pipeline.in_memory import audit
    from mia_lightning.pipeline.results import AuditResult

    __version__: str

__all__ = ["Audit", "AuditResult", "MIAError", "RunConfig", "__version__", "audit", "load_config"]

_HOMES = {
    "RunConfig": "config.schema",
    "load_config": "config.command_line",
    "MIAError": "errors",
    "AuditResult": "pipeline.results",
    "Audit": "pipeline.audited",
    "audit": "pipeline.in_memory",
}


def __getattr__(name: str) -> Any:
    """Import a public name when it is first used, so that `import mia_lightning` itself is instant."""
    if name == "__version__":
        from importlib.metadata import version

        return version("mia-lightning")
    from importlib import import_module

    if name not in _HOMES:
        raise AttributeError(f"module 'mia_lightning' has no attribute {name!r}")
    return getattr(import_module(f"mia_lightning.{_HOMES[name]}"), name)
