"""Sets of weights in a checkpoint: every assignment of its tensors to a network's names, up to prefixes."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import takewhile

import torch
from torch import Tensor, nn

from mia_lightning.errors import MIAError, printable

WRAPPERS = ("_orig_mod.", "_fsdp_wrapped_module.", "_checkpoint_wrapped_module.", "_forward_module.")
"""Components that torch.compile, FSDP, activation checkpointing and Fabric insert at any depth."""

AVERAGED = (
    *("ema", "avg", "averag", "swa", "polyak", "teacher", "momentum", "shadow", "encoder_k"),
    *("pretrain", "initial"),
)
"""Parts of names of averaged, teacher or earlier weights: the plain set has precedence."""

USUAL_ROOTS = ("state_dict", "model_state_dict", "model", "net", "module")
"""Roots and prefixes that need no note."""

OUTSIDE = ("criterion", "loss", "metric", "normaliz", "preprocess", "accuracy", "train_", "val_", "test_", "n_averaged")
"""Beginnings of names in a state dict that are not part of the network."""

COUNTERS = ("total_ops", "total_params")
"""Buffers that profilers leave behind in every layer."""


@dataclass(frozen=True, eq=False)
class WeightSet:
    """One assignment of a file's tensors to all names of a network."""

    prefix: str
    """Of the names in the file, with the keys of the dictionaries around them: "state_dict.module."."""

    tensors: dict[str, Tensor]
    """By the network's names."""

    left_out: tuple[str, ...] = ()
    """Names in the same dictionary that the network does not have."""

    around: tuple[str, ...] = ()
    """Names in the file that are under the prefix of no set."""

    built: tuple[str, ...] = ()
    """Buffers of a wrapper module that the file lacks; they stay as built."""

    @property
    def name(self) -> str:
        """As `--target.weights` takes it: the prefix without its last dot, or "the file itself"."""
        return self.prefix.rstrip(".") or "the file itself"

    def fits(self, network: nn.Module) -> bool:
        """Whether every tensor has the shape that a network has room for."""
        expected = network.state_dict()
        return all(tensor.shape == expected[name].shape for name, tensor in self.tensors.items())


def weight_sets(files: Mapping[str, Tensor], network: nn.Module) -> list[WeightSet]:
    """Return every set of weights with all names of a network, in the order of the file.

    Names are compared up to a common prefix (with the keys of dictionaries around them), wrappers' components at any
    depth, and, for a wrapper module, up to the attribute that holds the wrapped network.

    Args:
        files: All tensors of a checkpoint by their dotted path in the file.
        network: Gives the names; shapes are not compared.
    """
    expected = list(network.state_dict())
    for names in _spellings(files, expected):
        if sets := _sets(names, expected):
            return sets
        parameters = {name for name, _ in network.named_parameters()}
        for root in _roots(expected):
            wrapped = [name for name in expected if name.startswith(root)]
            around = [name for name in expected if not name.startswith(root)]
            if parameters.isdisjoint(around) and (sets := _sets(names, [name.removeprefix(root) for name in wrapped])):
                return [replace(item, tensors=_prefixed(item.tensors, root), built=tuple(around)) for item in sets]
    return []


def _prefixed(tensors: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {prefix + name: tensor for name, tensor in tensors.items()}


def choose(sets: Sequence[WeightSet], wanted: str | None, source: str) -> tuple[WeightSet, list[str]]:
    """Return the set to load, and sentences about the choice and about what is left out.

    Args:
        sets: At least one.
        wanted: `--target.weights`; None takes the plain set before averaged ones and teachers, then the first.
        source: Name of the file.

    Raises:
        MIAError: `wanted` names none or several of them.
    """
    distinct = _distinct(sets)
    if wanted is not None:
        matching = [item for item in distinct if f".{wanted.strip('.')}." in f".{item.name}." or wanted == item.name]
        exact = [item for item in matching if item.name == wanted]
        if len(exact or matching) != 1:
            problem = "matches several sets of weights in" if matching else "matches no set of weights in"
            listed = ", ".join(item.name for item in (matching or distinct)[:8])
            raise MIAError(f"--target.weights {wanted!r} {problem} {source}; choose one of: {listed}")
        taken = (exact or matching)[0]
    else:
        names = " ".join(item.name.lower() for item in distinct)
        taken = min(distinct, key=lambda item: _is_averaged(item.name.lower(), names))
    return taken, _sentences(taken, distinct, source)


def _is_averaged(name: str, names: str) -> bool:
    """Whether a name is that of averaged weights; "target" too, unless shadow models are next to it."""
    return any(word in name for word in AVERAGED) or ("target" in name and "shadow" not in names)


def others(sets: Sequence[WeightSet], taken: WeightSet) -> tuple[str, ...]:
    """Return the names of the sets that differ from the one taken, each content once."""
    return tuple(item.name for item in _distinct(sets) if item is not taken)


def closest(files: Mapping[str, Tensor], expected: Iterable[str]) -> dict[str, Tensor]:
    """Return the tensors with the prefix removed under which most names are expected, for an error message."""
    expected = set(expected)
    names = next(iter(_spellings(files, list(expected))))
    prefixes = {name[: len(name) - len(other)] for name in names for other in _tails(name) if other in expected} or {""}
    best = max(sorted(prefixes, key=len), key=lambda prefix: sum(prefix + name in names for name in expected))
    return {name.removeprefix(best): names[name] for name in names if name.startswith(best)}


def renamed_module(files: Mapping[str, Tensor], network: nn.Module) -> tuple[dict[str, Tensor], str] | None:
    """Return the tensors with one module renamed, and how; None where more than its name differs from a network's."""
    expected = network.state_dict()
    tensors = closest(files, expected)
    missing = [name for name in expected if name not in tensors and not name.endswith("num_batches_tracked")]
    unexpected = [name for name in tensors if name not in expected and not name.endswith("num_batches_tracked")]
    if not missing or len(missing) != len(unexpected):
        return None
    old, new = map(_module, (unexpected, missing))
    names = {name: new + name.removeprefix(old) for name in tensors if name.startswith(f"{old}.")}
    if not (old and new) or {names.get(name) for name in unexpected} != {*missing}:
        return None
    if any(tensors[name].shape[1:] != expected[names[name]].shape[1:] for name in unexpected):
        return None
    return {names.get(name, name): tensor for name, tensor in tensors.items()}, f"module {old!r} is read as {new!r}"


def _module(names: Sequence[str]) -> str:
    """Return the innermost module that has all of some tensors."""
    parts = zip(*(name.split(".")[:-1] for name in names), strict=False)
    return ".".join(part[0] for part in takewhile(lambda part: len({*part}) == 1, parts))


def anchored(files: Mapping[str, Tensor], anchor: str) -> list[dict[str, Tensor]]:
    """Return the tensors under every prefix before a name, with that prefix removed."""
    names = next(iter(_spellings(files, [anchor])))
    prefixes = [name.removesuffix(anchor) for name in names if f".{name}".endswith(f".{anchor}")]
    return [{n.removeprefix(prefix): names[n] for n in names if n.startswith(prefix)} for prefix in prefixes]


def _spellings(files: Mapping[str, Tensor], expected: Sequence[str]) -> Iterable[dict[str, Tensor]]:
    """Yield the tensors without components that wrappers insert: first the unmistakable ones, then "module."."""
    shortened = {}
    for name, tensor in files.items():
        for component in WRAPPERS:
            name = name.replace(component, "")
        shortened[name] = tensor
    yield shortened
    if not any("module." in name for name in expected):
        yield {name.replace("_module.", "").replace("module.", ""): tensor for name, tensor in shortened.items()}


def _sets(names: Mapping[str, Tensor], expected: Sequence[str]) -> list[WeightSet]:
    required = [name for name in expected if not name.endswith("num_batches_tracked")]
    if not required:
        return []
    anchor, sets = max(required, key=len), []
    for name in names:
        if not f".{name}".endswith(f".{anchor}"):
            continue
        prefix = name.removesuffix(anchor)
        if all(prefix + other in names for other in required):
            tensors = {other: names[prefix + other] for other in expected if prefix + other in names}
            suffixes = [n.removeprefix(prefix) for n in names if n.startswith(prefix)]
            extra = tuple(n for n in suffixes if n not in tensors)
            sets.append(WeightSet(prefix, tensors, extra))
    around = tuple(n for n in names if not n.startswith(tuple(s.prefix for s in sets)) and not n.endswith("n_averaged"))
    return [replace(item, around=around) for item in sets]


def _roots(expected: Sequence[str]) -> list[str]:
    """Return the prefixes of the network's own names, shortest first."""
    longest = max(expected, key=len, default="")
    parts = longest.split(".")
    return [".".join(parts[:depth]) + "." for depth in range(1, len(parts) - 1)]


def _tails(name: str) -> list[str]:
    parts = name.split(".")
    return [".".join(parts[start:]) for start in range(len(parts))]


def _distinct(sets: Sequence[WeightSet]) -> list[WeightSet]:
    """Return the sets without copies of an earlier one."""
    distinct: list[WeightSet] = []
    for item in sets:
        if not any(_equal(item, other) for other in distinct):
            distinct.append(item)
    return distinct


def _equal(first: WeightSet, second: WeightSet) -> bool:
    return all(
        name in second.tensors
        and second.tensors[name].shape == tensor.shape
        and torch.equal(second.tensors[name], tensor)
        for name, tensor in first.tensors.items()
    )


def is_outside(name: str, expected: Iterable[str]) -> bool:
    """Whether a name of a state dict that the network lacks is not part of any network: a criterion, a counter."""
    roots = {other.partition(".")[0] for other in expected}
    return name.rpartition(".")[2] in COUNTERS or (
        name.partition(".")[0] not in roots
        and (name.lower().startswith(OUTSIDE) or name.rpartition(".")[2] in ("mean", "std"))
    )


def _sentences(taken: WeightSet, distinct: Sequence[WeightSet], source: str) -> list[str]:
    sentences = []
    if len(distinct) > 1:
        listed = ", ".join(item.name for item in distinct[:8])
        sentences.append(
            f"{source} contains {len(distinct)} sets of weights ({listed}); took {taken.name}, --target.weights NAME "
            "selects another"
        )
    elif any(part not in USUAL_ROOTS for part in taken.prefix.split(".") if part):
        sentences.append(f"{source}: took the weights under {taken.name!r}")
    for names, why in ((taken.left_out, "no part of the network"), (taken.around, f"outside of {taken.name!r}")):
        if names:
            more = f" and {len(names) - 3} more" if len(names) > 3 else ""
            sentences.append(f"{source}: left out {', '.join(names[:3])}{more}, {why}")
    if taken.built:
        sentences.append(f"{source}: {', '.join(taken.built[:3])} of the wrapper module stay as built")
    return [printable(sentence) for sentence in sentences]
