"""Training by the user's own code: a LightningModule or a function, found, checked and identified."""

import ast
import inspect
import sys
import sysconfig
import traceback
from collections.abc import Callable, Mapping
from dataclasses import replace
from hashlib import sha256
from pathlib import Path
from typing import Any

from mia_lightning.errors import MIAError, suggest
from mia_lightning.references.config import BUILT_IN, HEAD, ReferencesConfig, ReferenceTraining
from mia_lightning.targets.architectures import is_lightning_module
from mia_lightning.targets.base import Target
from mia_lightning.targets.imported import import_callable

OPTION = "--references.training.class_path"

OVERRIDDEN = {
    "training_step": "returns the loss of a batch (images, labels)",
    "configure_optimizers": "returns the optimizer",
    "forward": "returns the logits of images (B, C, H, W)",
}
"""Methods that a LightningModule must define itself, and what each does."""


def resolved_training(config: ReferencesConfig, target: Target) -> ReferenceTraining:
    """Return the training options with class, epochs and batch size filled in; the target states the defaults.

    Raises:
        MIAError: a class or function that cannot train.
    """
    training = config.training
    if training.start == "target" and training.class_path is None:
        training = replace(training, class_path=BUILT_IN)
    if isinstance(training.class_path, str) and ":" not in training.class_path and not training.is_built_in:
        module, _, attribute = training.class_path.rpartition(".")
        if not module:
            raise MIAError(f"{OPTION} {attribute}: must be written as package.module:NAME, {BUILT_IN} or {HEAD}")
        training = replace(training, class_path=f"{module}:{attribute}")
    name = architecture_of(config, target)
    if training.class_path is None and _trains(name):
        training = replace(training, class_path=name)
    if training.class_path is None and target.trains_head_alone and not (config.architecture or training.shift):
        training = replace(training, class_path=HEAD)
    if training.is_built_in:
        if config.trainer:
            raise MIAError(
                f"--references.trainer.{next(iter(config.trainer))} is an option of Lightning's Trainer, which trains "
                f"LightningModules only; name one by {OPTION} package.module:NAME"
            )
        return training
    most = config.trainer.get("max_epochs")
    if most is not None and training.epochs is not None:
        raise MIAError("--references.trainer max_epochs and --references.training.epochs are both given; give one")
    if most is not None and (not isinstance(most, int) or isinstance(most, bool) or most < 1):
        raise MIAError(f"--references.trainer max_epochs must be at least 1, got {most!r}")
    is_target = training.class_path == architecture_of(ReferencesConfig(), target)
    saved = target.hyper_parameters.get("batch_size") if is_target else None
    saved = saved if isinstance(saved, int) and saved > 0 else None
    epochs = most or training.epochs or (target.epochs if is_target else None)
    return replace(training, epochs=epochs, batch_size=training.batch_size or saved)


def architecture_of(config: ReferencesConfig, target: Target) -> str:
    """Return the name of the references' architecture without its stem."""
    return (config.architecture or target.architecture).partition(" (")[0]


def _trains(name: str) -> bool:
    """Whether an architecture is a LightningModule with all that training needs."""
    if ":" not in name:
        return False
    try:
        factory = import_callable(name, "--target.architecture")
    except MIAError:
        return False  # the check of the architecture states the reason
    return is_module(factory) and not _missing(factory)


def is_module(factory: object) -> bool:
    """Whether this is a class derived from `lightning.LightningModule`."""
    from lightning import LightningModule

    return inspect.isclass(factory) and issubclass(factory, LightningModule)


def _missing(cls: Any) -> list[str]:
    from lightning import LightningModule

    return [name for name in OVERRIDDEN if getattr(cls, name) is getattr(LightningModule, name)]


def untrainable_module(config: ReferencesConfig, target: Target) -> str | None:
    """Return why references of a LightningModule are not trained by it, None where they are or it is none."""
    name = architecture_of(config, target)
    if config.training.class_path is not None or ":" not in name:
        return None
    cls = import_callable(name, "--target.architecture")
    if not is_lightning_module(cls) or _trains(name):
        return None
    reason = f"has no {_missing(cls)[0]}" if is_module(cls) else "does not derive from lightning.LightningModule"
    return f"references are trained by the options of --references.training, as {name} {reason}"


def trainer_code(training: ReferenceTraining) -> Callable[..., Any] | None:
    """Return the user's class or function, None for the built-in training.

    Raises:
        MIAError: neither a LightningModule with the methods of `OVERRIDDEN` nor a function of four arguments, or
            `init_args` that it does not take.
    """
    if training.is_built_in:
        return None
    name = str(training.class_path)
    code = import_callable(name, OPTION)
    parameters = inspect.signature(code).parameters
    takes_all = any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters.values())
    if unknown := [key for key in training.init_args if key not in parameters and not takes_all]:
        hint = suggest(unknown[0], list(parameters))
        raise MIAError(f"--references.training.init_args: {name} has no argument {unknown[0]!r}; {hint}")
    if is_module(code):
        if missing := _missing(code):
            raise MIAError(f"{OPTION} {name}: has no {missing[0]}; add the method that {OVERRIDDEN[missing[0]]}")
        return code
    if is_lightning_module(code):
        raise MIAError(f"{OPTION} {name}: derives from pytorch_lightning; derive it from lightning.LightningModule")
    if inspect.isclass(code):
        raise MIAError(
            f"{OPTION} {name}: is not a LightningModule; give one, or a function train(network, dataset, seed, "
            "on_epoch) that returns the trained network"
        )
    try:
        inspect.signature(code).bind(None, None, 0, None, **training.init_args)
    except TypeError as error:
        raise MIAError(
            f"{OPTION} {name}: {error}; it is called as train(network, dataset, seed, on_epoch, **init_args)"
        ) from error
    return code


def training_inputs(training: ReferenceTraining, trainer: Mapping[str, Any]) -> dict[str, Any]:
    """Return plain values that determine the weights together with records and architecture: options and code."""
    values: dict[str, Any] = {"training": training.key_inputs()}
    if not training.is_built_in:
        callbacks = [
            entry if isinstance(entry, str) else str(dict(entry).get("class_path"))
            for entry in trainer.get("callbacks") or ()
        ]
        values |= {"trainer": dict(trainer), "code": code_digest(training.class_path, training.transform, *callbacks)}
    return values


def code_digest(*names: str | None) -> str:
    """Return the sha256 (hex) of the modules in "package.module:NAME" and of all modules in their folders they import.

    Installed packages are followed within themselves only. Nothing is imported.
    """
    sources: dict[str, bytes] = {}
    for name in filter(None, names):
        module = sys.modules.get(name.partition(":")[0] if ":" in name else name.rpartition(".")[0])
        file = getattr(module, "__file__", None)
        if module is None or file is None:
            continue
        path = Path(file).resolve()
        depth = module.__name__.count(".") + (path.stem == "__init__")
        root = path.parents[depth]
        installed = {Path(sysconfig.get_path(scheme)).resolve() for scheme in ("purelib", "platlib")}
        _collect(module.__name__, root, module.__name__.partition(".")[0] if root in installed else "", sources)
    digest = sha256()
    for name, source in sorted(sources.items()):
        digest.update(f"{name}\n{len(source)}\n".encode() + source)
    return digest.hexdigest()


def _collect(name: str, root: Path, within: str, sources: dict[str, bytes]) -> None:
    """Add the source of a module below a folder, and those of the modules that it imports from there."""
    plain = root.joinpath(*name.split("."))
    path = next((file for file in (plain.with_suffix(".py"), plain / "__init__.py") if file.is_file()), None)
    if path is None or name in sources or (within and name.partition(".")[0] != within):
        return
    sources[name] = path.read_bytes()
    package = name.split(".") if path.name == "__init__.py" else name.split(".")[:-1]
    try:
        tree = ast.parse(sources[name])
    except (SyntaxError, ValueError, RecursionError):
        return
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            imported = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            above = package[: len(package) - node.level + 1] if node.level else []
            base = ".".join([*above, *([node.module] if node.module else [])])
            imported = [base, *(f"{base}.{alias.name}" for alias in node.names)]
        else:
            continue
        for module in imported:
            _collect(module, root, within, sources)


def user_error(name: str, error: Exception, advice: str) -> MIAError:
    """Return one sentence about an error in the user's code, with its last line there."""
    folder = Path(inspect.getfile(import_callable(name, OPTION))).resolve().parent
    frames = [f for f in traceback.extract_tb(error.__traceback__) if Path(f.filename).resolve().parent == folder]
    where = f" ({Path(frames[-1].filename).name}, line {frames[-1].lineno})" if frames else ""
    message = " ".join(str(error).split())[:300] or "no message"
    return MIAError(f"{OPTION} {name}: {type(error).__name__}: {message.rstrip('.')}{where}; {advice}")
