"""Most exposed records: those with the highest scores of the headline attack."""

from base64 import b64encode
from dataclasses import dataclass
from io import BytesIO
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mia_lightning.report.contents import Report

MOST = 24
"""Records shown."""

SIDE = 96
"""Pixels of a thumbnail's longer side, at most."""


@dataclass(frozen=True)
class Exposed:
    """One record."""

    id: str
    label: str
    member: bool
    p_value: float
    p_value_in_class: float | None
    q_value: float

    top_probability: float | None
    """Of being among the 1% whose training moves phi most; None where no reference models measure it."""

    picture: str | None
    """A data URI of a PNG; None where the image is not available."""


def most_exposed(report: Report) -> list[Exposed]:
    """Return the records with the highest scores, members and false positives."""
    records, claims = report.assessment.records, report.assessment.claims[report.headline]
    scores = records.scores[report.headline]
    rows = np.lexsort((np.arange(len(scores)), -scores))[:MOST]
    in_class = claims.p_value_in_class
    top = None if report.run is None else report.run.top_probability
    return [
        Exposed(
            id=str(records.ids[row]),
            label="" if records.labels is None else report.class_name(int(records.labels[row])),
            member=bool(records.membership[row] == 1),
            p_value=float(claims.p_value[row]),
            p_value_in_class=None if in_class is None else float(in_class[row]),
            q_value=float(claims.q_value[row]),
            top_probability=None if top is None or np.isnan(top[row]) else float(top[row]),
            picture=None if report.pixels is None else picture(report.pixels[row]),
        )
        for row in rows.tolist()
    ]


def picture(pixels: NDArray[np.uint8] | NDArray[np.float32]) -> str:
    """Return one image as a data URI of a PNG.

    Args:
        pixels: (C, H, W), uint8 or float32; floats outside [0, 1] are stretched to it. Where C is not 3, the first
            channel is shown in gray.
    """
    from PIL import Image

    image: Any = Image.fromarray(_bytes(pixels))
    image.thumbnail((SIDE, SIDE))
    buffer = BytesIO()
    image.save(buffer, format="PNG", optimize=True)
    return f"data:image/png;base64,{b64encode(buffer.getvalue()).decode()}"


def _bytes(pixels: NDArray[np.uint8] | NDArray[np.float32]) -> NDArray[np.uint8]:
    values = pixels.transpose(1, 2, 0) if len(pixels) == 3 else pixels[0]
    if values.dtype == np.uint8:
        return np.ascontiguousarray(values, dtype=np.uint8)
    low, high = float(min(values.min(), 0)), float(max(values.max(), 1))
    return np.ascontiguousarray(np.round(255 * (values - low) / (high - low)), dtype=np.uint8)
