"""Lungs, bone and body on a thorax CT by thresholds, components and distances.

Everything works on a volume whose axes run to the patient's right, front and head (RAS+), in
Hounsfield units. Structures are found on a coarser grid, where noise is averaged out, and their
border is then drawn by the full grid's own values.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from skimage import filters, morphology, segmentation

Mask = NDArray[np.bool_]
Floats = NDArray[np.float32]
Spacing = tuple[float, float, float]

_filters: Any = filters  # scikit-image is annotated in part only
_morphology: Any = morphology
_segmentation: Any = segmentation

_COARSE = 1.6
"""Voxel edge (mm) that the coarse grid comes near to."""

_AIR = -400.0
"""Halfway between lung and soft tissue, HU."""

_SKIN = -350.0
_DARKER = (_AIR, -550.0, -700.0, -800.0, -870.0)
_WALL = -650.0
_WIDEST_AIRWAY = 800.0
"""Area of the air of one slice that may still be windpipe or main bronchi, mm²."""

_WIDEST_VESSEL = 700.0
"""Area of a hole in one slice of a lung that is still filled as its vessels, mm²."""

_BESIDE = 30.0
"""What lies further than this from the body's middle is on one side for certain, mm."""

_LEAST_LUNG = 60_000.0
"""A lung has at least this volume, mm³; what is smaller is not called one."""


@dataclass(frozen=True, slots=True)
class Grid:
    """A volume on one grid: RAS+ axes, Hounsfield units, spacing in mm."""

    values: Floats
    spacing: Spacing

    @property
    def voxel(self) -> float:
        """Volume of a voxel, mm³."""
        return float(np.prod(self.spacing))


class Thorax:
    """The structures of one CT volume, found on demand and kept.

    Parameters
    ----------
    values : ndarray of float32, shape (x, y, z)
        Hounsfield units; axes rise to the patient's right, front and head.
    spacing : tuple of float
        Voxel edges along the axes, mm.
    """

    def __init__(self, values: Floats, spacing: Spacing) -> None:
        self._full = Grid(values, spacing)
        self._factors = tuple(max(1, round(_COARSE / edge)) for edge in spacing)
        self._coarse = Grid(
            _block_mean(values, self._factors),
            (
                spacing[0] * self._factors[0],
                spacing[1] * self._factors[1],
                spacing[2] * self._factors[2],
            ),
        )
        self._body: Mask | None = None
        self._lungs: tuple[Mask, Mask] | None = None

    def body(self) -> Mask:
        """Return everything inside the skin; table and bedding left out."""
        return self._refine(self._coarse_body(), self._full.values > _SKIN)

    def lungs(self) -> tuple[Mask, Mask]:
        """Return the patient's left and right lung with their vessels, without the airways.

        A lung that is not found is an empty mask.
        """
        if self._lungs is None:
            left, right = coarse_lungs(self._coarse, self._coarse_body())
            airy = self._full.values < _AIR
            self._lungs = (self._refine(left, airy), self._refine(right, airy))
            # The border band of two touching lungs may be claimed by both.
            self._lungs[1][self._lungs[0]] = False
        return self._lungs

    def bone(self) -> Mask:
        """Return bone with its marrow."""
        found = coarse_bone(self._coarse, self._coarse_body())
        return self._refine(found, self._full.values > 180)

    def nothing(self) -> Mask:
        """Return an empty mask."""
        return np.zeros(self._full.values.shape, bool)

    def _coarse_body(self) -> Mask:
        if self._body is None:
            self._body = coarse_body(self._coarse)
        return self._body

    def _refine(self, coarse: Mask, fitting: Mask) -> Mask:
        """Draw a coarse structure's border on the full grid: near it, the values decide."""
        if not coarse.any():
            return self.nothing()
        near = ndimage.binary_dilation(coarse, _CROSS)
        core = ndimage.binary_erosion(coarse, _CROSS)
        near_full = _enlarge(near, self._factors, self._full.values.shape)
        core_full = _enlarge(core, self._factors, self._full.values.shape)
        return core_full | (near_full & fitting)


_CROSS = np.zeros((3, 3, 3), bool)
_CROSS[:, 1, 1] = _CROSS[1, :, 1] = True


def coarse_body(grid: Grid) -> Mask:
    """Find the patient: the largest thing that is not air, holes filled slice by slice."""
    solid = grid.values > _SKIN
    # The table touches the back along a line: opening parts them.
    reach = max(1, round(6 / grid.spacing[0]))
    disk = _morphology.disk(reach)[:, :, None].astype(bool)
    opened = np.asarray(ndimage.binary_opening(solid, disk))
    largest = _largest(opened)
    for number in range(largest.shape[2]):
        largest[:, :, number] = ndimage.binary_fill_holes(largest[:, :, number])
    return largest


def coarse_bone(grid: Grid, body: Mask) -> Mask:
    """Find bone: dense voxels that hang together with cortical bone, marrow filled in."""
    smooth = ndimage.gaussian_filter(grid.values, (0.6, 0.6, 0))
    dense = _filters.apply_hysteresis_threshold(smooth, 170, 330) & body
    dense = _morphology.remove_small_objects(dense, max_size=round(300 / grid.voxel))
    closed = np.zeros(body.shape, bool)
    for number in range(dense.shape[2]):
        joined = _close(dense[:, :, number], 3.0, grid.spacing[:2])
        closed[:, :, number] = ndimage.binary_fill_holes(joined) & (smooth[:, :, number] > -30)
    return closed


def coarse_lungs(grid: Grid, body: Mask) -> tuple[Mask, Mask]:
    """Find the patient's left and right lung on the coarse grid."""
    empty = np.zeros(body.shape, bool), np.zeros(body.shape, bool)
    air = body & (grid.values < _AIR)
    airways = find_airways(grid, air)
    air &= ~ndimage.binary_dilation(airways, _CROSS)
    air = np.asarray(ndimage.binary_opening(air, _CROSS))
    first, second = _two_largest(air, grid, body)
    if not first.any():
        return empty
    if second.any():
        place = [ndimage.center_of_mass(lung)[0] for lung in (first, second)]
        # RAS+: the lower index lies on the patient's left.
        left, right = (first, second) if place[0] < place[1] else (second, first)
    else:
        middle = ndimage.center_of_mass(body)[0]
        alone = ndimage.center_of_mass(first)[0] < middle
        left, right = (first, second) if alone else (second, first)
    outside = airways | ~body
    left, right = (_with_vessels(lung, grid.spacing) & ~outside for lung in (left, right))
    both = left & right
    return left & ~(both & right), right & ~both


def find_airways(grid: Grid, air: Mask) -> Mask:
    """Follow the windpipe from the top down into the main bronchi, slice by slice.

    The seed is the small round hole near the middle of a high slice; each slice takes the air that
    continues the one above while it stays as small as an airway and has a wall. Where a bronchus
    opens into the lung the walk along it ends.
    """
    airways = np.zeros(air.shape, bool)
    area = grid.spacing[0] * grid.spacing[1]
    seed = _windpipe(grid, air)
    if seed is None:
        return airways
    number, above = seed
    airways[:, :, number] = above
    for down in range(number - 1, -1, -1):
        above = _continued(grid.values[:, :, down], air[:, :, down], above, area)
        if not above.any():
            break
        airways[:, :, down] = above
    above = airways[:, :, number]
    for up in range(number + 1, air.shape[2]):
        above = _continued(grid.values[:, :, up], air[:, :, up], above, area)
        airways[:, :, up] = above
    return airways


def _windpipe(grid: Grid, air: Mask) -> tuple[int, Mask] | None:
    """Return the highest slice, from the upper half, that shows a round hole near the middle."""
    area = grid.spacing[0] * grid.spacing[1]
    solid = grid.values > _SKIN
    for number in range(air.shape[2] - 2, air.shape[2] // 2, -1):
        if not solid[:, :, number].any():
            continue
        middle = ndimage.center_of_mass(solid[:, :, number])[0]
        labels, _ = _label(air[:, :, number])
        best: tuple[float, Mask] | None = None
        for part, box in enumerate(ndimage.find_objects(labels), 1):
            hole = labels == part
            size = float(hole.sum()) * area
            width, depth = (
                (cut.stop - cut.start) * edge
                for cut, edge in zip(box, grid.spacing[:2], strict=True)
            )
            off = abs(ndimage.center_of_mass(hole)[0] - middle) * grid.spacing[0]
            roundish = max(width, depth) < 2.2 * min(width, depth)
            full = size > 0.55 * width * depth
            if 60 < size < 700 and roundish and full and off < 40:
                best = (off, hole) if best is None or off < best[0] else best
        if best is not None:
            return number, best[1]
    return None


def _continued(values: Floats, air: Mask, above: Mask, area: float) -> Mask:
    """Return the parts of a slice's air that continue an airway of the slice before.

    Where a thin wall lets an airway run into the lung at one threshold, a darker one parts them.
    """
    near = np.asarray(ndimage.binary_dilation(above, iterations=2))
    kept = np.zeros(air.shape, bool)
    open_ = air
    for threshold in _DARKER:
        labels, _ = _label(open_ & (values < threshold))
        parts = np.unique(labels[near])
        open_ = np.zeros(air.shape, bool)
        for part in parts[parts > 0]:
            hole = labels == part
            size = float(hole.sum())
            if size * area >= _WIDEST_AIRWAY:
                open_ |= hole
            elif float((hole & near).sum()) > 0.35 * size and _walled(values, hole):
                kept |= hole
        if not open_.any():
            break
    return kept


def _walled(values: Floats, hole: Mask) -> bool:
    """Tell an airway by its wall: what surrounds it is denser than lung."""
    ring = np.asarray(ndimage.binary_dilation(hole, iterations=2)) & ~hole
    return float(np.mean(values[ring] > _WALL)) > 0.5


def _two_largest(air: Mask, grid: Grid, body: Mask) -> tuple[Mask, Mask]:
    """Return the two lungs as components, cut apart where they touch; empty where there is none."""
    labels, count = _label(air)
    sizes = np.bincount(labels.ravel(), minlength=count + 1).astype(float) * grid.voxel
    sizes[0] = 0
    # Gas in stomach and bowel is darker than any lung with blood in it.
    mean = ndimage.mean(grid.values, labels, np.arange(count + 1))
    sizes[np.asarray(mean) < -940] = 0
    order = np.argsort(sizes)[::-1]
    empty = np.zeros(air.shape, bool)
    if count == 0 or sizes[order[0]] < _LEAST_LUNG:
        return empty, empty
    first = np.asarray(labels == order[0])
    second_size = sizes[order[1]] if count > 1 else 0.0
    if second_size > max(_LEAST_LUNG, 0.15 * sizes[order[0]]):
        second = np.asarray(labels == order[1])
    else:
        first, second = _cut_apart(first, grid, body)
    return _with_near_parts((first, second), labels, sizes, mean, grid)


def _cut_apart(joined: Mask, grid: Grid, body: Mask) -> tuple[Mask, Mask]:
    """Cut two lungs that touch, in front of the heart or behind it.

    Shrunk lungs part where they touch in a point. Where they lie against each other over an area, what
    is well to either side of the body's middle belongs to that side's lung, and between the two the
    cut follows the pleura, which is brighter than lung.
    """
    whole = float(joined.sum())
    depth = np.asarray(ndimage.distance_transform_edt(joined, sampling=grid.spacing), np.float32)
    for reach in (2.0, 4.0, 6.0, 8.0):
        labels, count = _label(depth > reach)
        sizes = np.bincount(labels.ravel(), minlength=count + 1)
        sizes[0] = 0
        order = np.argsort(sizes)[::-1]
        if count > 1 and sizes[order[1]] > 0.08 * whole:
            markers = (labels == order[0]).astype(np.int32) + 2 * (labels == order[1])
            parts = _segmentation.watershed(-depth, markers, mask=joined)
            return np.asarray(parts == 1), np.asarray(parts == 2)
    middle = ndimage.center_of_mass(body)[0]
    off = (np.arange(joined.shape[0]) - middle)[:, None, None] * grid.spacing[0]
    markers = (joined & (off < -_BESIDE)).astype(np.int32) + 2 * (joined & (off > _BESIDE))
    if min(np.count_nonzero(markers == side) for side in (1, 2)) < 0.1 * whole:
        return joined, np.zeros(joined.shape, bool)
    parts = _segmentation.watershed(grid.values, markers, mask=joined)
    return np.asarray(parts == 1), np.asarray(parts == 2)


def _with_near_parts(
    lungs: tuple[Mask, Mask], labels: NDArray[Any], sizes: Any, mean: Any, grid: Grid
) -> tuple[Mask, Mask]:
    """Add small pieces (an apex, a sulcus) to the lung they lie next to."""
    if not lungs[1].any():
        return lungs
    distance = [ndimage.distance_transform_edt(~lung, sampling=grid.spacing) for lung in lungs]
    for part in np.flatnonzero((sizes > 500) & (np.asarray(mean) > -920)):
        piece = labels == part
        if (piece & (lungs[0] | lungs[1])).any():
            continue
        near = [float(one[piece].min()) for one in distance]
        if min(near) < 15:
            lungs[int(near[1] < near[0])][piece] = True
    return lungs


def _with_vessels(lung: Mask, spacing: Spacing) -> Mask:
    """Fill a lung's vessels and hilum as a contour drawn round it would."""
    closed = np.zeros_like(lung)
    # A larger hole may be the dome of the diaphragm; it is filled only where lung surrounds it.
    largest = round(_WIDEST_VESSEL / (spacing[0] * spacing[1]))
    for number in range(lung.shape[2]):
        if lung[:, :, number].any():
            joined = _close(lung[:, :, number], 9.0, spacing[:2])
            closed[:, :, number] = _morphology.remove_small_holes(joined, max_size=largest)
    return np.asarray(ndimage.binary_fill_holes(closed))


def _close(mask: Mask, reach: float, spacing: tuple[float, ...]) -> Mask:
    """Close gaps up to twice a reach (mm) by distances; the border of the array is not a wall."""
    edge = [int(np.ceil(reach / step)) + 1 for step in spacing]
    padded = np.pad(mask, [(width, width) for width in edge])
    grown = np.asarray(ndimage.distance_transform_edt(~padded, sampling=spacing)) <= reach
    shrunk = np.asarray(ndimage.distance_transform_edt(grown, sampling=spacing)) > reach
    inner = tuple(slice(width, -width) for width in edge)
    return np.asarray(shrunk[inner] | mask)


def _label(mask: Mask) -> tuple[NDArray[np.int32], int]:
    labels = np.empty(mask.shape, np.int32)
    count = ndimage.label(mask, output=labels)
    return labels, int(count)  # with output= the count alone comes back


def _largest(mask: Mask) -> Mask:
    labels, count = _label(mask)
    if count == 0:
        return np.zeros(mask.shape, bool)
    sizes = np.bincount(labels.ravel())
    sizes[0] = 0
    return np.asarray(labels == int(sizes.argmax()))


def _block_mean(values: Floats, factors: tuple[int, ...]) -> Floats:
    """Average blocks of voxels; a remainder at the end is filled up with its edge."""
    pad = [(0, -size % factor) for size, factor in zip(values.shape, factors, strict=True)]
    padded = np.pad(values, pad, mode="edge") if any(end for _, end in pad) else values
    shape: list[int] = []
    for size, factor in zip(padded.shape, factors, strict=True):
        shape += [size // factor, factor]
    return np.asarray(padded.reshape(shape).mean(axis=(1, 3, 5), dtype=np.float32))


def _enlarge(mask: Mask, factors: tuple[int, ...], shape: tuple[int, ...]) -> Mask:
    for axis, factor in enumerate(factors):
        if factor > 1:
            mask = mask.repeat(factor, axis=axis)
    return mask[: shape[0], : shape[1], : shape[2]]
