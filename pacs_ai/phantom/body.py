"""The phantom's voxel body: one asymmetric thorax, in mm of the patient coordinate system.

Shapes are painted one after the other on a 1 mm grid, the later over the earlier, much as an
anatomist would build a model: skin and fat, lungs, rib cage, heart and great vessels, airways,
spine. Nothing here knows of any image; :mod:`pacs_ai.phantom.radiograph` and
:mod:`pacs_ai.phantom.computed_tomography` look at this one body.
"""

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Iterable
from dataclasses import dataclass
from enum import IntEnum

import numpy as np
from numpy.typing import NDArray
from scipy.interpolate import PchipInterpolator

Floats = NDArray[np.float32]
Point = tuple[float, float, float]

SHAPE = (450, 250, 400)
"""Voxels of the body along z (to the head), y (to the back), x (to the left); 1 mm each."""

ORIGIN = (-225.0, -125.0, -200.0)
"""Patient coordinates z, y, x (mm, LPS) of the outer corner of the first voxel."""

OPACITY_CENTRE: Point = (-76.0, 14.0, -42.0)
OPACITY_RADII: Point = (25.0, 24.0, 21.0)


class Region(IntEnum):
    """What a voxel belongs to; the truth that tests measure against."""

    OUTSIDE = 0
    SOFT = 1
    LEFT_LUNG = 2
    RIGHT_LUNG = 3
    HEART = 4
    BONE = 5
    GAS = 6
    MEDIASTINUM = 7
    ABDOMEN = 8


@dataclass(frozen=True, slots=True)
class Body:
    """The voxel body.

    Attributes
    ----------
    hounsfield : ndarray of int16, shape :data:`SHAPE`
        Attenuation in Hounsfield units, without noise.
    region : ndarray of uint8, shape :data:`SHAPE`
        A :class:`Region` for each voxel; a lung's vessels belong to the lung.
    """

    hounsfield: NDArray[np.int16]
    region: NDArray[np.uint8]


@functools.lru_cache(maxsize=2)
def body(*, opacity: bool) -> Body:
    """Build the body; with a dense opacity in the right lower lung, or without."""
    hounsfield = np.full(SHAPE, -1000, np.int16)
    region = np.zeros(SHAPE, np.uint8)
    made = Body(hounsfield, region)
    _paint_torso(made)
    _paint_cavity(made)
    _paint_ribs(made)
    _paint_heart_and_great_vessels(made)
    _paint_airways(made)
    _paint_spine(made)
    _paint_shoulder_girdle(made)
    _paint_lung_vessels(made)
    if opacity:
        _paint_opacity(made)
    hounsfield.setflags(write=False)
    region.setflags(write=False)
    return made


def axis(number: int) -> Floats:
    """Patient coordinates (mm) of the voxel centres along axis 0 (z), 1 (y) or 2 (x)."""
    return np.arange(SHAPE[number], dtype=np.float32) + np.float32(ORIGIN[number] + 0.5)


_Box = tuple[slice, slice, slice]


def _window(low: Point, high: Point) -> tuple[_Box, Floats, Floats, Floats]:
    """Return the part of the grid between two corners (x, y, z) and its open mesh z, y, x."""
    parts: list[slice] = []
    for number in range(3):
        first = math.floor(low[2 - number] - ORIGIN[number])
        last = math.ceil(high[2 - number] - ORIGIN[number])
        parts.append(slice(max(first, 0), min(last, SHAPE[number])))
    box = (parts[0], parts[1], parts[2])
    z, y, x = (axis(number)[part] for number, part in enumerate(box))
    return box, z[:, None, None], y[None, :, None], x[None, None, :]


def _profile(z: Floats, *knots: tuple[float, float]) -> Floats:
    """Interpolate a measure of the body along z, through (z, value) pairs in ascending z."""
    at, values = zip(*knots, strict=True)
    smooth = PchipInterpolator(at, values)
    return np.asarray(smooth(np.clip(z, at[0], at[-1])), np.float32)


def _paint(
    made: Body, box: _Box, inside: NDArray[np.bool_], hounsfield: int, region: Region
) -> None:
    made.hounsfield[box][inside] = hounsfield
    made.region[box][inside] = region


def _paint_torso(made: Body) -> None:
    box, z, y, x = _window((-200, -125, -225), (200, 125, 225))
    half_width = _profile(
        z,
        *((-220, 156), (-60, 160), (0, 163), (60, 170), (105, 183)),
        *((135, 184), (165, 140), (188, 72), (225, 62)),
    )
    half_depth = _profile(
        z, (-220, 110), (-60, 113), (0, 111), (60, 99), (110, 84), (150, 72), (188, 60), (225, 56)
    )
    across = np.abs((x - 1.5) / half_width) ** np.float32(2.5)
    through = np.abs(y / half_depth) ** np.float32(2.5)
    radius = across + through
    _paint(made, box, radius < 1.0, -100, Region.SOFT)
    _paint(made, box, radius < 0.80, 48, Region.SOFT)


def _cage(z: Floats, y: Floats, x: Floats) -> tuple[Floats, Floats]:
    """Return the rib cage's normalised radius and the distance (mm) outside its inner face."""
    half_width = _profile(
        z,
        *((-160, 133), (-60, 136), (-20, 133), (20, 126), (60, 109)),
        *((95, 82), (118, 55), (132, 26), (140, 4)),
    )
    half_depth = _profile(
        z, (-160, 92), (-60, 92), (0, 89), (60, 77), (95, 60), (118, 42), (132, 20), (140, 3)
    )
    centre = _profile(z, (0, 0), (130, 12))
    across = np.abs(x / half_width) ** np.float32(2.2)
    through = np.abs((y - centre) / half_depth) ** np.float32(2.2)
    radius = (across + through) ** np.float32(1 / 2.2)
    reach = np.sqrt(x**2 + (y - centre) ** 2)
    return radius, (radius - 1) * reach / np.maximum(radius, 1e-3)


def _diaphragm(y: Floats, x: Floats) -> Floats:
    """Height z (mm) of the diaphragm: two domes, the right one higher."""
    right = -84 - 52 * (((x + 62) / 82) ** 2 + ((y + 12) / 88) ** 2)
    left = -99 - 48 * (((x - 66) / 80) ** 2 + ((y + 10) / 86) ** 2)
    return np.maximum(np.where(x < 0, right, left), np.float32(-168))


def _paint_cavity(made: Body) -> None:
    box, z, y, x = _window((-142, -96, -172), (142, 96, 142))
    radius, _ = _cage(z, y, x)
    above = z > _diaphragm(y, x)
    inner = radius < 1
    _paint(made, box, inner & above, -55, Region.MEDIASTINUM)
    _paint(made, box, inner & ~above & (x < 18), 60, Region.ABDOMEN)
    _paint(made, box, inner & ~above & (x >= 18), 30, Region.ABDOMEN)
    side = np.interp(y, (-95, -58, -44, -26, 20, 45, 95), (1.3, 1.3, 9, 25, 26, 24, 21)).astype(
        np.float32
    )
    front = np.clip((-30 - y) / 58, 0, 1).astype(np.float32)
    width = side + _profile(z, (70, 0), (105, 6), (140, 14)) + np.float32(1.5) * np.sin(z / 31)
    # Above the heart the lungs nearly touch in front; below, the heart lies on the chest wall.
    width = np.maximum(width + front * _profile(z, (-142, 20), (-30, 17), (15, 0)), np.float32(1.2))
    parenchyma = np.broadcast_to(-868 + 0.45 * y, inner.shape)
    for region, beside in (
        (Region.LEFT_LUNG, x > width + 1),
        (Region.RIGHT_LUNG, x < -(width + 2)),
    ):
        lung = inner & above & beside
        made.hounsfield[box][lung] = parenchyma[lung]
        made.region[box][lung] = region
    _ellipsoid(made, (56, -6, -150), (34, 26, 15), -985, Region.GAS)


def _paint_ribs(made: Body) -> None:
    box, z, y, x = _window((-152, -108, -215), (152, 108, 135))
    _, outside = _cage(z, y, x)
    angle = np.arctan2(np.abs(x), y - 4) / np.float32(np.pi)
    shift = np.where(x > 0, np.float32(3), np.float32(0))
    phase = (z + 82 * angle - shift + 168) / 25
    number = np.rint(phase)
    across = (phase - number) * 25
    section = (across / 7.0) ** 2 + ((outside - 5.5) / 4.2) ** 2
    reach = np.where(number < 2, np.float32(0.55), np.float32(0.78))
    rib = (section < 1) & (number >= 0) & (number <= 11)
    bony = rib & (angle < reach)
    _paint(made, box, rib & (angle >= reach) & (angle < 0.95) & (number >= 2), 110, Region.SOFT)
    _paint(made, box, bony, 640, Region.BONE)
    _paint(made, box, bony & (section < 0.4), 260, Region.BONE)
    box, z, y, x = _window((-20, -108, -60), (20, -84, 104))
    plate = (np.abs(x / 17) ** 4 + np.abs((y + 93 - np.maximum(z - 10, 0) * 0.22) / 6) ** 4) < 1
    _paint(made, box, plate & (z > -55) & (z < 100), 330, Region.BONE)


def _paint_heart_and_great_vessels(made: Body) -> None:
    box, z, y, x = _window((-62, -95, -135), (110, 55, 5))
    long_axis = np.array((0.74, -0.44, -0.51))
    long_axis /= np.linalg.norm(long_axis)
    dx, dy, dz = x - 25, y + 22, z + 62
    along = dx * long_axis[0] + dy * long_axis[1] + dz * long_axis[2]
    squared = dx**2 + dy**2 + dz**2 - along**2
    # Apex narrower than base: the section shrinks towards the patient's left front.
    girth = 51 - 0.14 * along
    _paint(made, box, (along / 67) ** 2 + squared / girth**2 < 1, 42, Region.HEART)
    vessels: tuple[tuple[float, tuple[Point, ...]], ...] = (
        (16, ((-8, -15, -20), (-11, -18, 52))),
        (13, ((-11, -18, 52), (2, 0, 72), (19, 30, 60), (21, 40, 30), (17, 44, -224))),
        (10, ((-27, -12, -10), (-26, -15, 90))),
        (13, ((10, -20, -12), (14, -8, 36))),
        (10, ((14, -5, 30), (-38, 5, 22))),
        (10, ((14, -5, 38), (42, 12, 34))),
        (8, ((5, 34, 120), (4, 36, -90))),
    )
    for radius, path in vessels:
        for start, end in itertools.pairwise(path):
            _capsule(made, start, end, radius, 45, Region.MEDIASTINUM)


def _paint_airways(made: Body) -> None:
    carina = (-3.0, 14.0, 62.0)
    airways: tuple[tuple[float, Point, Point], ...] = (
        (9, (-1, -16, 230), (-2, 2, 120)),
        (9, (-2, 2, 120), carina),
        (7, carina, (-36, 18, 27)),
        (6, carina, (36, 20, 25)),
    )
    for radius, start, end in airways:
        _capsule(made, start, end, radius + 2, 40, Region.MEDIASTINUM)
    for radius, start, end in airways:
        _capsule(made, start, end, radius, -990, Region.GAS)


def _paint_spine(made: Body) -> None:
    box, z, y, x = _window((-48, 40, -225), (48, 125, 225))
    bend = 3 * np.sin(z / 90)
    dx = x - bend
    dy = y - _profile(z, (-225, 58), (-100, 62), (60, 60), (110, 44), (150, 30), (225, 14))
    level = np.abs(((z + 6) % 26) - 13)
    vertebra = (dx / 18) ** 2 + (dy / 15) ** 2
    _paint(made, box, (vertebra < 1) & (level >= 10.5), 85, Region.SOFT)
    bony = level < 10.5
    _paint(made, box, (vertebra < 1) & bony, 480, Region.BONE)
    _paint(made, box, (vertebra < 0.78) & (level < 9), 190, Region.BONE)
    arch = ((dx / 17) ** 2 + ((dy - 25) / 14) ** 2 < 1) & (level < 8)
    _paint(made, box, arch & (vertebra >= 1), 420, Region.BONE)
    spinous = (np.abs(dx) < 3.5) & (dy > 30) & (dy < 46) & (level < 7)
    transverse = (np.abs(dx) < 32) & (np.abs(dy - 22) + np.abs(dx) / 8 < 6) & (level < 4)
    _paint(made, box, spinous | (transverse & (vertebra >= 1)), 420, Region.BONE)
    _paint(made, box, (dx / 9) ** 2 + ((dy - 24) / 8) ** 2 < 1, 25, Region.SOFT)


def _paint_shoulder_girdle(made: Body) -> None:
    for side, drop in ((1.0, 0.0), (-1.0, 4.0)):
        bones: tuple[tuple[float, Point, Point], ...] = (
            (6, (side * 20, -58, 121 - drop), (side * 80, -42, 137 - drop)),
            (6, (side * 80, -42, 137 - drop), (side * 152, -8, 139 - drop)),
            (5, (side * 143, 44, 112 - drop), (side * 139, 62, 8 - drop)),
            (7, (side * 143, 44, 112 - drop), (side * 160, 8, 126 - drop)),
            (19, (side * 170, 4, 118 - drop), (side * 186, 2, 96 - drop)),
        )
        for radius, start, end in bones:
            _capsule(made, start, end, radius, 560, Region.BONE)
            _capsule(made, start, end, radius * 0.62, 230, Region.BONE)


def _paint_lung_vessels(made: Body) -> None:
    random = np.random.default_rng(20)
    for hilum, side in (((-40.0, 8.0, 22.0), -1.0), ((43.0, 12.0, 30.0), 1.0)):
        for rise in (1.3, 0.8, 0.3, -0.2, -0.7, -1.2, -1.8):
            heading = np.array((side, random.uniform(-0.7, 0.7), rise))
            _grow(made, random, np.array(hilum), heading, length=40, radius=4.6)


def _grow(
    made: Body,
    random: np.random.Generator,
    start: NDArray[np.float64],
    heading: NDArray[np.float64],
    *,
    length: float,
    radius: float,
) -> None:
    """Let a vessel branch in two until it is thinner than the grid can hold."""
    heading = heading / np.linalg.norm(heading)
    end = start + heading * length
    _capsule(made, _point(start), _point(end), radius, 40, None)
    if radius < 1.0:
        return
    for _ in range(2):
        turned = heading + random.normal(0, 0.45, 3)
        factor = random.uniform(0.68, 0.84)
        _grow(made, random, end, turned, length=max(length * 0.74, 12), radius=radius * factor)


def _point(at: NDArray[np.float64]) -> Point:
    return (float(at[0]), float(at[1]), float(at[2]))


def _paint_opacity(made: Body) -> None:
    reach = [1.2 * radius for radius in OPACITY_RADII]
    low = tuple(c - r for c, r in zip(OPACITY_CENTRE, reach, strict=True))
    high = tuple(c + r for c, r in zip(OPACITY_CENTRE, reach, strict=True))
    box, z, y, x = _window((low[0], low[1], low[2]), (high[0], high[1], high[2]))
    centre, radii = OPACITY_CENTRE, OPACITY_RADII
    radius = np.sqrt(
        ((x - centre[0]) / radii[0]) ** 2
        + ((y - centre[1]) / radii[1]) ** 2
        + ((z - centre[2]) / radii[2]) ** 2
    )
    share = np.clip((1.1 - radius) / 0.25, 0, 1)
    share = np.where(made.region[box] == Region.RIGHT_LUNG, share, 0)
    made.hounsfield[box] = made.hounsfield[box] * (1 - share) + 38 * share


def _capsule(
    made: Body, start: Point, end: Point, radius: float, hounsfield: int, region: Region | None
) -> None:
    """Paint a round rod; without a region it is a vessel, painted where there is lung."""
    low = tuple(min(a, b) - radius for a, b in zip(start, end, strict=True))
    high = tuple(max(a, b) + radius for a, b in zip(start, end, strict=True))
    box, z, y, x = _window((low[0], low[1], low[2]), (high[0], high[1], high[2]))
    step = [b - a for a, b in zip(start, end, strict=True)]
    dx, dy, dz = x - start[0], y - start[1], z - start[2]
    squared = max(sum(part * part for part in step), 1e-6)
    along = np.clip((dx * step[0] + dy * step[1] + dz * step[2]) / squared, 0, 1)
    distance = (
        (dx - along * step[0]) ** 2 + (dy - along * step[1]) ** 2 + (dz - along * step[2]) ** 2
    )
    inside = distance < radius**2
    if region is None:
        here = made.region[box]
        inside &= _any_of(here, (Region.LEFT_LUNG, Region.RIGHT_LUNG))
        made.hounsfield[box][inside] = hounsfield
        return
    inside &= made.region[box] != Region.OUTSIDE
    _paint(made, box, inside, hounsfield, region)


def _ellipsoid(made: Body, centre: Point, radii: Point, hounsfield: int, region: Region) -> None:
    low = tuple(c - r for c, r in zip(centre, radii, strict=True))
    high = tuple(c + r for c, r in zip(centre, radii, strict=True))
    box, z, y, x = _window((low[0], low[1], low[2]), (high[0], high[1], high[2]))
    radius = (
        ((x - centre[0]) / radii[0]) ** 2
        + ((y - centre[1]) / radii[1]) ** 2
        + ((z - centre[2]) / radii[2]) ** 2
    )
    inside = (radius < 1) & (made.region[box] == Region.ABDOMEN)
    _paint(made, box, inside, hounsfield, region)


def _any_of(regions: NDArray[np.uint8], wanted: Iterable[Region]) -> NDArray[np.bool_]:
    found = np.zeros(regions.shape, bool)
    for region in wanted:
        found |= regions == region
    return found
