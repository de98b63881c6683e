"""Checks of the loaded target on a sample of the public records, before any extraction."""

from __future__ import annotations

import logging
from contextlib import suppress
from dataclasses import replace
from typing import TYPE_CHECKING

from mia_lightning.config.schema import RunConfig
from mia_lightning.errors import MIAError
from mia_lightning.pipeline.checks import check_own_views, load_and_check_target
from mia_lightning.records.records import Records
from mia_lightning.runtime.hardware import is_first_process, torch_device

if TYPE_CHECKING:
    from torch import nn

    from mia_lightning.targets.base import Target
    from mia_lightning.targets.readings import ReadingCheck

log = logging.getLogger(__name__)

MOST_WEIGHTS = 3
"""Other sets of weights of a checkpoint that are compared."""

SAMPLE = 32
"""Images of the check for outputs that change from query to query."""


def checked_target(
    config: RunConfig, target: Target, public: Records, private: Records | None
) -> tuple[Target, ReadingCheck | None]:
    """Query the target twice, and compare its accuracy on known members with other readings.

    Returns:
        The target with the sentences of both among its notes, and the check (None in helper processes, or where too
        few members have a label).
    """
    if not is_first_process():  # the first process reports
        return target, None
    from mia_lightning.outputs.request import check_labels
    from mia_lightning.records.normalization import normalization
    from mia_lightning.targets.callables import FunctionNetwork
    from mia_lightning.targets.determinism import nondeterminism, saturation
    from mia_lightning.targets.reading_search import Evaluator
    from mia_lightning.targets.readings import check_readings
    from mia_lightning.targets.wrapper import unwrap

    check_labels(public, target)
    check_own_views(config, public)
    mean, std = normalization(public, config.data.mean, config.data.std)
    device = torch_device(config.hardware.accelerator)
    with Evaluator(target, public.images[:SAMPLE], mean, std, device) as evaluator:
        images = evaluator.inputs(SAMPLE)
        unstable, saturated = nondeterminism(target.network, images), saturation(target.network, images)
    records = len(public) + (0 if private is None else len(private))
    reading = None
    # A function takes records as given, and may be paid by the query.
    if public.multi_hot is None and type(unwrap(target.network)) is not FunctionNetwork:
        reading = check_readings(
            target,
            public,
            mean,
            std,
            records=records,
            device=device,
            weight_sets=lambda: _other_weights(config, target, public),
        )
    if reading is not None:
        log.log(logging.WARNING if reading.status == "warn" else logging.INFO, "%s", reading.sentence)
    notes = [sentence for sentence in (unstable, saturated) if sentence]
    if reading is not None and reading.status != "pass":
        notes.insert(0, reading.sentence)
    return replace(target, notes=(*notes, *target.notes), deterministic=unstable is None), reading


def _other_weights(config: RunConfig, target: Target, public: Records) -> dict[str, nn.Module]:
    """Return the target with other sets of weights of its checkpoint, by name; unusable ones are left out."""
    networks: dict[str, nn.Module] = {}
    for name in target.other_weights[:MOST_WEIGHTS]:
        other = replace(config, target=replace(config.target, weights=name))
        with suppress(MIAError):
            networks[name] = load_and_check_target(other, public).network
    return networks
