"""The reference model behind the contract of CXRReportGen: a draft report with boxes.

It says what it measures and nothing more: dense opacities inside the lung fields, with a box on the
frontal picture, and the width of the heart against the chest. What it does not look for it does not
mention, not even as absent.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from pacs_ai.reference import frame
from pacs_ai.reference.frame import BadInputError
from pacs_ai.reference.lungfield import SIDE, Chest, Square, find_chest

Mask = NDArray[np.bool_]
Sentence = list[Any]
"""``[text, null | [[x_min, y_min, x_max, y_max], ...]]`` as it goes over the wire."""

_ENLARGED = 0.55
"""Cardiothoracic ratio from which the silhouette is called enlarged; masks are not exact."""

_NORMAL = 0.50
"""Cardiothoracic ratio up to which it is called not enlarged; between the two nothing is said."""

_DENSER = 0.15
"""Difference of median grey rank from which one lung is denser as a whole than the other."""

_ZONES = ("upper", "mid", "lower")


@dataclass(frozen=True, slots=True)
class Opacity:
    """A dense opacity on the working picture.

    Attributes
    ----------
    side : str
        The patient's side, ``left`` or ``right``.
    zone : str
        Third of the lung field: ``upper``, ``mid`` or ``lower``.
    rows, columns : tuple of int
        First and one past the last row and column.
    """

    side: str
    zone: str
    rows: tuple[int, int]
    columns: tuple[int, int]


def answer(input_data: object, params: object) -> list[dict[str, Any]]:
    """Answer a scoring request: one draft report a row, JSON within a string.

    Raises
    ------
    BadInputError
        When a row has no frontal image.
    """
    rows = frame.rows(
        input_data,
        required=("frontal_image",),
        optional=(
            *("lateral_image", "prior_image", "indication", "technique", "comparison"),
            "prior_report",
        ),
    )
    return [{"output": json.dumps(_row_report(row))} for row in rows]


def _row_report(row: frame.Row) -> list[Sentence]:
    frontal = frame.picture(row, "frontal_image")
    if frontal is None:
        raise BadInputError("the column frontal_image is empty")
    # Read to refuse what cannot be decoded; boxes are on the frontal picture alone.
    for column in ("lateral_image", "prior_image"):
        frame.picture(row, column)
    return report(frontal)


def report(frontal: NDArray[np.uint8]) -> list[Sentence]:
    """Draft a report on a frontal chest radiograph.

    Parameters
    ----------
    frontal : ndarray of uint8, shape (rows, columns)
        Dense tissue bright, seen as a reader sees it.

    Returns
    -------
    list of [str, None or list of box]
        Boxes are fractions of the centre square of the picture, on the grid 0.005 + k × 0.01.
    """
    chest = find_chest(frontal)
    if not chest.found:
        return [["The lung fields could not be delineated on this image.", None]]
    square = Square(frontal.shape)
    found, clear, dense = opacities(chest)
    sentences: list[Sentence] = []
    for side in ("right", "left"):
        here = [one for one in found if one.side == side]
        for one in here:
            box = _box(one.rows, one.columns, square)
            text = f"There is a dense opacity in the {side} {one.zone} lung zone."
            sentences.append([text, None if box is None else [box]])
        if side in dense:
            extent = _extent(chest.left if side == "left" else chest.right)
            box = _box(*extent, square)
            sentences.append(
                [f"There is diffuse opacity in the {side} lung.", None if box is None else [box]]
            )
        elif not here and side in clear:
            sentences.append([f"No dense opacity is seen in the {side} lung.", None])
    return sentences + _silhouette(chest)


def _silhouette(chest: Chest) -> list[Sentence]:
    ratio = cardiothoracic_ratio(chest)
    if ratio is None or _NORMAL < ratio < _ENLARGED:
        return []
    if ratio >= _ENLARGED:
        return [["The cardiac silhouette is enlarged.", None]]
    return [["The cardiac silhouette is not enlarged.", None]]


def cardiothoracic_ratio(chest: Chest) -> float | None:
    """Return the heart's greatest width over that of the lung fields, or None without a heart."""
    if not chest.heart.any():
        return None
    heart = np.nonzero(chest.heart.any(axis=0))[0]
    lungs = np.nonzero((chest.left | chest.right).any(axis=0))[0]
    return float(np.ptp(heart) + 1) / float(np.ptp(lungs) + 1)


def opacities(chest: Chest) -> tuple[list[Opacity], set[str], set[str]]:
    """Find compact dense areas inside the lung fields.

    A lung field's own slow trend is what a normal field looks like; an opacity stands out against it
    over an area too large and too compact for ribs and vessels, and has lung all round. What is dense
    and touches the border may be wall, heart or scapula: it is not called an opacity, and nothing is
    called absent there either.

    Returns
    -------
    list of Opacity
    set of str
        The sides that are clear: nothing dense and large is in that lung.
    set of str
        The side whose lung as a whole is much denser than the other.
    """
    smooth = np.asarray(ndimage.gaussian_filter(chest.rank, SIDE / 96))
    lungs = {"right": chest.right, "left": chest.left}
    level = {side: float(np.median(smooth[lung])) for side, lung in lungs.items()}
    found: list[Opacity] = []
    dense = {side for side in lungs if level[side] > min(level.values()) + _DENSER}
    clear = set()
    for side, lung in lungs.items():
        parts, doubtful = _dense_parts(_excess(smooth, lung), lung)
        found += [Opacity(side, _zone(part, lung), *_extent(part)) for part in parts]
        if not parts and not doubtful and side not in dense:
            clear.add(side)
    return found, clear, dense


def _excess(smooth: NDArray[np.float64], lung: Mask) -> NDArray[np.float64]:
    """Return by how many of the lung's own spreads a pixel is brighter than the lung's trend."""
    rows, columns = np.nonzero(lung)
    values = smooth[rows, columns]
    # The slow trend: a robust quadratic surface through the field.
    place = np.stack((rows / SIDE, columns / SIDE)) - 0.5
    design = np.stack(
        (np.ones(rows.size), *place, place[0] ** 2, place[1] ** 2, place[0] * place[1]), axis=1
    )
    kept = np.ones(rows.size, bool)
    for _ in range(5):
        weights, *_ = np.linalg.lstsq(design[kept], values[kept], rcond=None)
        rest = values - design @ weights
        spread = 1.4826 * float(np.median(np.abs(rest[kept])))
        kept = rest < 2 * max(spread, 1e-3)
    excess = np.zeros(smooth.shape)
    excess[rows, columns] = rest / max(spread, 0.03)
    return excess


def _dense_parts(excess: NDArray[np.float64], lung: Mask) -> tuple[list[Mask], bool]:
    """Return the parts that are opacities, and whether something large was dense but is none."""
    depth = np.asarray(ndimage.distance_transform_edt(lung))
    dense = np.asarray(ndimage.binary_opening((excess > 2.5) & lung, iterations=3))
    labels: Any
    labels, count = ndimage.label(dense)
    parts, doubtful = [], False
    for number in range(1, count + 1):
        part = labels == number
        inner = part & (depth > SIDE / 40)
        if inner.sum() < 0.012 * lung.sum():
            continue
        (top, bottom), (left, right) = _extent(part)
        filled = float(part.sum()) / ((bottom - top) * (right - left))
        oblong = max(bottom - top, right - left) / min(bottom - top, right - left)
        surrounded = float(depth[part].min()) > SIDE / 96
        if surrounded and filled > 0.55 and oblong < 2.2:
            parts.append(part)
        else:
            doubtful = True
    return parts, doubtful


def _zone(part: Mask, lung: Mask) -> str:
    rows = np.nonzero(lung.any(axis=1))[0]
    centre = float(np.nonzero(part)[0].mean())
    third = int(3 * (centre - rows[0]) / (rows[-1] - rows[0] + 1))
    return _ZONES[min(max(third, 0), 2)]


def _extent(part: Mask) -> tuple[tuple[int, int], tuple[int, int]]:
    rows, columns = np.nonzero(part)
    return (int(rows.min()), int(rows.max()) + 1), (int(columns.min()), int(columns.max()) + 1)


def _box(rows: tuple[int, int], columns: tuple[int, int], square: Square) -> list[float] | None:
    """Return the box in the centre square of the picture; None when it lies outside of it."""
    scale = square.edge / SIDE
    crop = min(square.shape)
    start = [(square.edge - crop) // 2] * 2
    (top, bottom), (left, right) = rows, columns
    values = [
        (edge * scale - begin) / crop
        for edge, begin in zip((left, top, right, bottom), (*start, *start), strict=True)
    ]
    x_min, y_min, x_max, y_max = (_snapped(value) for value in values)
    if x_min >= x_max or y_min >= y_max:
        return None
    return [x_min, y_min, x_max, y_max]


def _snapped(value: float) -> float:
    """Return the centre of the hundredth a fraction falls into."""
    return round(0.005 + 0.01 * min(max(int(np.floor(value * 100)), 0), 99), 3)
