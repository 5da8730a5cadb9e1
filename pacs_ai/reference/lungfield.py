"""Lung fields and heart on a frontal chest radiograph, by fitting an outline and then the grey values.

Dense tissue is bright and the picture is seen as a reader sees it: the patient's right lung on the left.
An outline of two lungs with a dozen parameters is fitted so that it is darker inside than around it on
all sides; local grey values then move the border. A picture on which no outline fits has no lungs.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage, optimize
from skimage import draw, segmentation, transform

Mask = NDArray[np.bool_]
Floats = NDArray[np.float64]

SIDE = 384
"""Edge of the square working picture, pixels."""

_FIT_SIDE = 64
_NEUTRAL = 0.55
_LEAST_CONTRAST = 0.15
"""Mean difference of grey rank across the outline below which nothing is called a lung."""

_LEAST_PIXELS, _NO_LUNGS = 40, 2.0
"""Pixels of the small picture below which an outline holds no lungs, and what that costs."""

_LEAST_OVERLAP = 0.75
"""Dice with the fitted outline below which the grey values have led astray and the outline stays."""

_draw: Any = draw
_segmentation: Any = segmentation
_transform: Any = transform


@dataclass(frozen=True, slots=True)
class Chest:
    """What was found on the working picture (:data:`SIDE` square); empty masks where nothing was.

    Attributes
    ----------
    left, right, heart : ndarray of bool, shape (SIDE, SIDE)
        The *patient's* left and right.
    rank : ndarray of float, shape (SIDE, SIDE)
        Each pixel's rank among the grey values of the body, 0 darkest to 1 brightest.
    contrast : float
        How much darker the outline is inside than around it.
    """

    left: Mask
    right: Mask
    heart: Mask
    rank: Floats
    contrast: float

    @property
    def found(self) -> bool:
        """Whether there are lungs."""
        return bool(self.left.any() and self.right.any())


@dataclass(frozen=True, slots=True)
class Square:
    """A picture padded to a square with black and brought to the working size, and the way back."""

    shape: tuple[int, int]

    @property
    def edge(self) -> int:
        """Edge of the padded square in pixels of the picture."""
        return max(self.shape)

    @property
    def offset(self) -> tuple[int, int]:
        """Rows and columns of padding before the picture."""
        return (self.edge - self.shape[0]) // 2, (self.edge - self.shape[1]) // 2

    def to_working(self, picture: NDArray[np.uint8]) -> Floats:
        """Return the working picture, 0 to 1."""
        padded = np.zeros((self.edge, self.edge))
        top, left = self.offset
        padded[top : top + self.shape[0], left : left + self.shape[1]] = picture / 255
        return np.asarray(_transform.resize(padded, (SIDE, SIDE), order=1, anti_aliasing=True))

    def to_picture(self, working: Floats) -> Floats:
        """Bring a map on the working picture back to the picture's own rows and columns."""
        full: Floats = np.asarray(_transform.resize(working, (self.edge, self.edge), order=1))
        top, left = self.offset
        return full[top : top + self.shape[0], left : left + self.shape[1]]


def find_chest(picture: NDArray[np.uint8]) -> Chest:
    """Find lung fields and heart.

    Parameters
    ----------
    picture : ndarray of uint8, shape (rows, columns)
        A frontal chest radiograph, dense tissue bright; black bars round it do not matter.
    """
    return _find_chest(picture.shape, picture.tobytes())


@functools.lru_cache(maxsize=4)
def _find_chest(shape: tuple[int, int], grey: bytes) -> Chest:
    """Find the chest; kept for a while, because clients ask for one structure after the other."""
    picture = np.frombuffer(grey, np.uint8).reshape(shape)
    rank, body = _rank(Square(shape).to_working(picture))
    empty = np.zeros((SIDE, SIDE), bool)
    if body.mean() < 0.1 or np.ptp(picture) == 0:
        return Chest(empty, empty, empty, rank, 0.0)
    outlines, contrast = _fit(rank, body)
    if contrast < _LEAST_CONTRAST:
        return Chest(empty, empty, empty, rank, contrast)
    right, left = _refine(rank, outlines)
    if min(left.sum(), right.sum()) < 0.01 * SIDE**2:
        return Chest(empty, empty, empty, rank, contrast)
    return Chest(left, right, _heart(right, left), rank, contrast)


def _rank(picture: Floats) -> tuple[Floats, Mask]:
    """Return grey ranks inside the body and the body itself; the dark surround counts as neither."""
    smooth = np.asarray(ndimage.gaussian_filter(picture, 1.5))
    frame = SIDE // 40
    bars = ndimage.binary_opening(smooth < 0.22, iterations=4)
    surround = _touching(bars, frame, bottom=False) | _touching(smooth < 0.05, frame, bottom=True)
    surround = np.asarray(ndimage.binary_dilation(surround, iterations=12))
    body = ~surround
    if not body.any():
        return np.full(picture.shape, _NEUTRAL), body
    values = np.sort(picture[body])
    rank = np.searchsorted(values, picture) / values.size
    rank[surround] = _NEUTRAL
    return _levelled(rank), body


def _levelled(rank: Floats) -> Floats:
    """Take half of the slow trend out: an apex is darker than its surround, not than the lung."""
    slow = np.asarray(ndimage.gaussian_filter(rank, SIDE / 8))
    return np.asarray(np.clip(rank - 0.5 * (slow - slow.mean()), 0, 1))


def _touching(mask: Mask, frame: int, *, bottom: bool) -> Mask:
    """Return the parts of a mask that reach into the frame of the picture."""
    labels: Any = ndimage.label(mask)[0]
    edges = [labels[:frame].ravel(), labels[:, :frame].ravel(), labels[:, -frame:].ravel()]
    if bottom:
        edges.append(labels[-frame:].ravel())
    parts = np.unique(np.concatenate(edges))
    return np.asarray(np.isin(labels, parts[parts > 0]))


def _outline(*, dome: Floats, top_width: Floats, heart: Floats | None) -> Floats:
    """Return lung fields in their own box: rows 0 apex to 1 sulcus, columns 0 medial to 1 lateral.

    Parameters
    ----------
    dome : ndarray of float, shape (outlines,)
        Height of the diaphragm's dome.
    top_width : ndarray of float, shape (outlines,)
        Width of the upper third, about 1.
    heart : ndarray of float, shape (outlines,), or None
        How far the heart reaches into the field; None for the right lung.

    Returns
    -------
    ndarray of float, shape (outlines, points, 2)
    """
    lateral: list[tuple[Floats | float, Floats | float]] = [
        *((0, 0.30 * top_width), (0.03, 0.50 * top_width), (0.12, 0.68 * top_width)),
        *((0.27, 0.82 * top_width), (0.46, 0.46 * (1 + top_width)), (0.67, 0.98)),
        *((0.86, 1.0), (1.0, 1.0), (1 - 0.45 * dome, 0.85)),
    ]
    medial: list[tuple[Floats | float, Floats | float]]
    if heart is None:
        medial = [
            *((1 - 0.9 * dome, 0.62), (1 - dome, 0.40), (1 - 0.92 * dome, 0.20)),
            *((1 - 0.8 * dome, 0.06), (0.72, 0.02), (0.58, 0.0), (0.45, 0.0), (0.30, 0.03)),
        ]
    else:
        medial = [
            *((1 - 0.9 * dome, np.maximum(0.62, heart + 0.1)), (1 - dome, np.maximum(heart, 0.2))),
            *((0.80, np.maximum(0.97 * heart, 0.04)), (0.68, 0.83 * heart), (0.55, 0.5 * heart)),
            *((0.44, 0.16 * heart), (0.30, 0.02)),
        ]
    points = [*lateral, *medial, (0.15, 0.08), (0.05, 0.16 * top_width)]
    outline = np.empty((dome.size, len(points), 2))
    for number, (row, column) in enumerate(points):
        outline[:, number, 0], outline[:, number, 1] = row, column
    return outline


def _outlines(values: Floats) -> tuple[Floats, Floats]:
    """Return the outlines of right and left lung (rows, columns of the unit square).

    Parameters
    ----------
    values : ndarray of float, shape (parameters, outlines)

    Returns
    -------
    right, left : ndarray of float, shape (outlines, points, 2)
    """
    middle, right_gap, left_gap, right_width, left_width, top = values[:6, :, None]
    right_height, left_height, heart, dome, top_width = values[6:]
    right = _outline(dome=dome, top_width=top_width, heart=None)
    left = _outline(dome=dome, top_width=top_width, heart=heart)
    for outline, height in ((right, right_height), (left, left_height)):
        outline[:, :, 0] = top + outline[:, :, 0] * height[:, None]
    right[:, :, 1] = middle - right_gap - right[:, :, 1] * right_width
    left[:, :, 1] = middle + left_gap + left[:, :, 1] * left_width
    return right, left


def _filled(outline: Floats, side: int) -> Mask:
    mask = np.zeros((side, side), bool)
    rows, columns = _draw.polygon(
        outline[:, 0] * side - 0.5, outline[:, 1] * side - 0.5, (side, side)
    )
    mask[rows, columns] = True
    return mask


def _inside(outlines: Floats, small: Floats) -> tuple[Floats, Floats]:
    """Return how many pixels have their centres in each outline, and the sum of their values.

    An edge that goes down takes away what lies left of it, one that goes up adds it.
    """
    side = len(small)
    left_of = np.zeros((side, side + 1))
    np.cumsum(small, axis=1, out=left_of[:, 1:])
    rows, columns = np.moveaxis(outlines * side - 0.5, -1, 0)
    above = rows[:, :, None] <= np.arange(side)
    number, edge, row = np.nonzero(above != np.roll(above, -1, axis=1))
    ahead = (edge + 1) % rows.shape[1]
    start, column = rows[number, edge], columns[number, edge]
    part = (row - start) / (rows[number, ahead] - start)
    column += part * (columns[number, ahead] - column)
    pixels = np.clip(np.ceil(column), 0, side).astype(int)
    sign = np.where(above[number, edge, row], -1, 1)
    count = np.bincount(number, sign * pixels, minlength=len(outlines))
    total = np.bincount(number, sign * left_of[row, pixels], minlength=len(outlines))
    turn = np.where(count < 0, -1, 1)  # whichever way round the outline goes
    return turn * count, turn * total


def _fit(rank: Floats, body: Mask) -> tuple[tuple[Floats, Floats], float]:
    """Fit the two outlines; return them and their mean contrast."""
    block = SIDE // _FIT_SIDE
    smooth = np.asarray(ndimage.gaussian_filter(rank, 5))
    small = smooth.reshape(_FIT_SIDE, block, _FIT_SIDE, block).mean(axis=(1, 3))
    rows, columns = np.nonzero(body)
    left, right = np.percentile(columns, [2, 98]) / SIDE
    top, bottom = np.percentile(rows, [1, 99]) / SIDE
    width, height = right - left, bottom - top
    bounds = [
        (left + 0.38 * width, left + 0.62 * width),
        *((0.02 * width, 0.14 * width),) * 2,
        *((0.20 * width, 0.46 * width),) * 2,
        (top + 0.04 * height, top + 0.40 * height),
        *((0.35 * height, 0.85 * height),) * 2,
        *((0.05, 0.65), (0.05, 0.25), (0.70, 1.15)),
    ]
    box = optimize.Bounds(*np.array(bounds, float).T)
    cost: Any = _cost  # vectorized, which scipy's types do not know
    found: Any = optimize.differential_evolution(
        cost,
        box,
        args=(small, float(width)),
        rng=1,
        popsize=12,
        maxiter=140,
        mutation=(0.4, 0.9),
        tol=1e-3,
        polish=False,
        vectorized=True,
        updating="deferred",
    )
    closer: Any = optimize.minimize(
        lambda values, *rest: _cost(values[:, None], *rest).item(),
        found.x,
        args=(small, float(width)),
        method="Nelder-Mead",
        bounds=box,
        options={"maxfev": 1500, "xatol": 1e-4, "fatol": 1e-5},
    )
    right_outline, left_outline = outlines = _outlines(closer.x[:, None])
    return (right_outline[0], left_outline[0]), _contrast(outlines, small).item()


def _cost(values: Floats, small: Floats, width: float) -> Floats:
    """Return how badly outlines fit, shape (outlines,); values have shape (parameters, outlines)."""
    outlines = _outlines(values)
    # The lungs of one pair of outlines never overlap.
    (count, total), (left_count, left_total) = (_inside(outline, small) for outline in outlines)
    count, total = count + left_count, total + left_total
    share = count / small.size
    mean = total / np.maximum(count, 1)
    step = (small.mean() - mean) / (1 - share)
    between = share * (1 - share) * step * abs(step) / (small.var() + 1e-9)
    _, right_gap, left_gap, right_width, left_width, _, right_height, left_height = values[:8]
    unlike = (
        (right_width - left_width) ** 2
        + 1.5 * (right_height - left_height) ** 2
        + 0.5 * (right_gap - left_gap) ** 2
    ) / width**2
    # Gas under the left dome looks like lung: one lung does not reach far below the other.
    uneven = abs(right_height - left_height) / np.maximum(right_height, left_height)
    unlike += 10 * np.maximum(uneven - 0.06, 0) ** 2
    slender = sum(
        np.maximum(tall / wide - 2.7, 0) ** 2 + np.maximum(1.75 - tall / wide, 0) ** 2
        for tall, wide in ((right_height, right_width), (left_height, left_width))
    )
    cost = -0.5 * between - 2 * _contrast(outlines, small) + 2 * unlike + 0.4 * slender
    return np.asarray(np.where(count < _LEAST_PIXELS, _NO_LUNGS, cost))


_ZONES = (0.12, 0.5, 0.85)
"""Ends of apex, upper and lower side walls; the diaphragm is the rest. Each must stand out, on its
medial and on its lateral half."""

_OUTWARD, _INWARD = (1.08, 1.16, 1.24), (0.92, 0.84, 0.76)


def _contrast(outlines: tuple[Floats, Floats], small: Floats) -> Floats:
    """Return how much brighter it is around the outlines than inside, mean over zones and lungs."""
    count = 2 * len(_ZONES) + 2
    total = np.zeros(len(outlines[0]))
    for outline in outlines:
        line = _densely(outline)
        step = _around(line, small, _OUTWARD) - _around(line, small, _INWARD)
        rows, columns = line[:, :, 0], line[:, :, 1]
        (top, left), (bottom, right) = (
            np.moveaxis(ends, -1, 0)
            for ends in (line.min(axis=1, keepdims=True), line.max(axis=1, keepdims=True))
        )
        zone = np.searchsorted(_ZONES, (rows - top) / (bottom - top), side="right")
        zone = 2 * zone + (columns > (left + right) / 2) + count * np.arange(len(line))[:, None]
        points = np.bincount(zone.ravel(), minlength=count * len(line))
        sums = np.bincount(zone.ravel(), step.ravel(), minlength=count * len(line))
        means = (sums / np.maximum(points, 1)).reshape(-1, count)
        total += np.minimum(means, 0.35).mean(axis=1) / 2
    return total


def _densely(outlines: Floats) -> Floats:
    """Return points along closed outlines, several on each side of them."""
    ahead = np.roll(outlines, -1, axis=1)
    parts = np.linspace(0, 1, 4, endpoint=False)[:, None]
    points = outlines[:, :, None] + parts * (ahead - outlines)[:, :, None]
    return np.asarray(points.reshape(len(outlines), -1, 2))


def _around(lines: Floats, small: Floats, factors: tuple[float, ...]) -> Floats:
    """Return the mean picture value at outlines' points, moved from their centres by factors."""
    centres = (lines.min(axis=1, keepdims=True) + lines.max(axis=1, keepdims=True)) / 2
    moved = centres + (lines - centres) * np.array(factors)[:, None, None, None]
    index = np.clip((moved * _FIT_SIDE).astype(int), 0, _FIT_SIDE - 1)
    return np.asarray(small[index[..., 0], index[..., 1]].mean(axis=0))


def _refine(rank: Floats, outlines: tuple[Floats, Floats]) -> tuple[Mask, Mask]:
    """Move the border to where the grey value leaves that of the lung nearby for its surround's."""
    smooth = np.asarray(ndimage.gaussian_filter(rank, 2.5))
    outlined = [_filled(outline, SIDE) for outline in outlines]
    masks = list(outlined)
    pull = [_pull(outline, mask) for outline, mask in zip(outlines, outlined, strict=True)]
    for _ in range(6):
        dark = _darkness(smooth, masks[0] | masks[1])
        for number in (0, 1):
            grown = (dark + pull[number] > 0) & ~masks[1 - number]
            # What sticks out of the outline is lung only where it is broad.
            broad = ndimage.binary_opening(grown, iterations=8)
            masks[number] = _smooth_part(np.asarray(broad | (grown & outlined[number])))
    kept = [
        _snapped(smooth, mask) if _overlap(mask, first) > _LEAST_OVERLAP else first
        for mask, first in zip(masks, outlined, strict=True)
    ]
    return kept[0], kept[1] & ~kept[0]


def _pull(outline: Floats, outlined: Mask) -> Floats:
    """Return how strongly the outline holds each pixel inside (positive) or outside of the lung."""
    depth = _signed_distance(outlined) / (0.05 * SIDE)
    pull = np.where(depth > 0, 0.45 * np.minimum(depth, 1), 0.8 * depth)
    pull[depth < -0.9] = -2.0
    # A collar bone across the apex does not end the lung: deep in the upper half it is lung.
    half = round(outline[:, 0].mean() * SIDE)
    pull[:half][depth[:half] > 0.6] = 2.0
    # Soft tissue above the shoulder can be as dark as an apex; the outline knows better.
    pull[: round((outline[:, 0].min() - 0.02) * SIDE)] = -2.0
    return np.asarray(pull)


def _overlap(mask: Mask, other: Mask) -> float:
    """Return the Dice overlap of two masks."""
    return 2 * float((mask & other).sum()) / max(float(mask.sum() + other.sum()), 1.0)


def _snapped(smooth: Floats, mask: Mask) -> Mask:
    """Move the border of a lung field to the first strong edge near it, seen from the lung."""
    band = SIDE // 40
    depth = _signed_distance(mask)
    markers = (depth > band).astype(np.int32) + 2 * (depth < -band)
    edges = np.asarray(ndimage.gaussian_gradient_magnitude(smooth, 1.5)) * (1.1 - smooth)
    return _smooth_part(np.asarray(_segmentation.watershed(edges, markers) == 1))


def _darkness(smooth: Floats, inside: Mask) -> Floats:
    """Return how far each pixel is to the dark side of its neighbourhood's lung and surround."""
    reach = 10

    def local(mask: Mask) -> Floats:
        weight = mask.astype(float)
        total = ndimage.gaussian_filter(weight * smooth, reach)
        return np.asarray(total / np.maximum(ndimage.gaussian_filter(weight, reach), 1e-3))

    lung, other = local(inside), local(~inside)
    dark = (0.55 * lung + 0.45 * other - smooth) / np.maximum(other - lung, 0.08)
    return np.asarray(ndimage.gaussian_filter(np.clip(dark, -1.5, 1.5), 2))


def _smooth_part(mask: Mask) -> Mask:
    """Return the largest part of a mask without spurs, gaps and holes."""
    opened = ndimage.binary_opening(mask, iterations=5)
    labels: Any = ndimage.label(opened)[0]
    sizes = np.bincount(labels.ravel())
    if sizes.size < 2:
        return np.zeros(mask.shape, bool)
    sizes[0] = 0
    part = np.pad(labels == sizes.argmax(), 20)
    closed = ndimage.binary_closing(part, iterations=5)[20:-20, 20:-20]
    filled = ndimage.binary_fill_holes(closed)
    return np.asarray(ndimage.gaussian_filter(np.asarray(filled, float), 3) > 0.5)


def _signed_distance(mask: Mask) -> Floats:
    """Return the distance to the border in pixels, positive inside; far outside when empty."""
    if not mask.any():
        return np.full(mask.shape, -float(max(mask.shape)))
    inside = np.asarray(ndimage.distance_transform_edt(mask))
    outside = np.asarray(ndimage.distance_transform_edt(~mask))
    return np.asarray(np.where(mask, inside - 0.5, 0.5 - outside))


def probability(mask: Mask, *, softness: float = 2.0) -> Floats:
    """Return a smooth probability of a mask: one half on its border, falling over ``softness`` pixels."""
    return np.asarray(1 / (1 + np.exp(-_signed_distance(mask) / softness)))


def _heart(right: Mask, left: Mask) -> Mask:
    """Return the heart: what bulges between the lung fields in their lower half."""
    rows = np.nonzero(right.any(axis=1) & left.any(axis=1))[0]
    height = int(rows[-1] - rows[0])
    floor = _floor(right)
    # The heart's apex lies lower than its right border, on the left dome of the diaphragm.
    last = min(floor + round(0.05 * height), int(rows[-1]))
    inner = SIDE - right[:, ::-1].argmax(axis=1)
    inner[floor:] = inner[floor - round(0.05 * height)]
    outer = left.argmax(axis=1)
    gap = np.zeros(right.shape, bool)
    for row in range(int(rows[0]) + round(0.42 * height), last + 1):
        gap[row, inner[row] : outer[row]] = True
    if gap.sum() < 50:
        return np.zeros(right.shape, bool)
    return _smooth_part(gap & _ellipse_of(gap))


def _floor(right: Mask) -> int:
    """Return the last row where the right lung still reaches the mediastinum."""
    rows = np.nonzero(right.any(axis=1))[0]
    columns = np.nonzero(right.any(axis=0))[0]
    border = SIDE - 1 - right[rows, ::-1].argmax(axis=1)
    near = border > columns[-1] - 0.28 * np.ptp(columns)
    return int(rows[near][-1])


def _ellipse_of(region: Mask) -> Mask:
    """Return the ellipse with the moments of a region, a little widened."""
    places = np.stack(np.nonzero(region)).astype(float)
    centre = places.mean(axis=1)
    inverse = np.linalg.inv(np.cov(places))
    grid = np.indices(region.shape).reshape(2, -1) - centre[:, None]
    reach = np.einsum("in,ij,jn->n", grid, inverse, grid).reshape(region.shape)
    return np.asarray(reach < 2.15**2)
