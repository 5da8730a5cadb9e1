"""One voxel goes out to the model's space and comes back to itself, whatever the slices' geometry."""

from __future__ import annotations

import gzip
import tempfile
from itertools import permutations
from pathlib import Path

import nibabel
import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from pacs_ai.pixels.nifti import from_nifti, to_nifti
from pacs_ai.pixels.placement import Placement, Turn
from pacs_ai.pixels.stacks import Stack
from pacs_ai.pixels.volume import Volume, assemble, grey
from pacs_ai.settings import Window
from tests.unit.pixels.made import at, enhanced, slices

LPS_TO_RAS = np.diag([-1.0, -1.0, 1.0, 1.0])
sizes = st.integers(min_value=2, max_value=7)
angles = st.floats(min_value=-180, max_value=180)
ORDERS = [*permutations("RAS"), *permutations("LPI")]


@settings(max_examples=25, deadline=None)
@given(data=st.data(), shape=st.tuples(sizes, sizes, sizes))
def test_a_voxel_comes_back_to_its_own_slice_row_and_column(
    data: st.DataObject, shape: tuple[int, int, int]
) -> None:
    turn = Rotation.from_euler("xyz", data.draw(st.tuples(angles, angles, angles)), degrees=True)
    axes = turn.as_matrix()
    spacing = data.draw(st.tuples(*[st.floats(min_value=0.3, max_value=5)] * 3))
    backwards = data.draw(st.booleans())
    order = data.draw(st.permutations(range(shape[0])))
    target = tuple(data.draw(st.integers(0, size - 1)) for size in shape)
    stored = np.zeros(shape, np.uint16)
    stored[target] = 2000
    step = axes[:, 2] * spacing[0] * (-1 if backwards else 1)
    places = [step * number + (10, -20, 30) for number in range(shape[0])]
    geometry = [f"{value:.9f}" for value in (*axes[:, 0], *axes[:, 1])]
    with tempfile.TemporaryDirectory() as name:
        if data.draw(st.booleans(), label="multi-frame"):
            own = at(*([f"{value:.6f}" for value in places[k]] for k in order))
            shared = {
                "PlaneOrientationSequence": {"ImageOrientationPatient": geometry},
                "PixelMeasuresSequence": {"PixelSpacing": [f"{one:.6f}" for one in spacing[1:]]},
            }
            made = [enhanced(Path(name), stored[order], own=own, shared=shared)]
        else:
            where = {
                k: {"ImagePositionPatient": [f"{value:.6f}" for value in places[k]]}
                for k in range(shape[0])
            }
            given_spacing = [f"{one:.6f}" for one in spacing[1:]]
            made = slices(
                Path(name), stored, orientation=geometry, spacing=given_spacing, changes=where
            )
            made = [made[k] for k in order]
        volume = assemble(made)
        drawn = grey(volume, Window(width=2000, level=0))
        sent = nibabel.Nifti1Image.from_bytes(
            gzip.decompress(to_nifti(volume, drawn.planes(), most=10**8))
        )
    codes = data.draw(st.sampled_from(ORDERS))
    turned = sent.as_reoriented(
        nibabel.orientations.ornt_transform(
            nibabel.io_orientation(sent.affine), nibabel.orientations.axcodes2ornt(codes)
        )
    )
    found = np.argwhere(from_nifti(turned.to_bytes(), volume) > 200)
    ((plane, row, column),) = found.tolist()
    # The same slice of the source, by its position, and the same place in the patient.
    source = volume.stack.planes[plane]
    assert (row, column) == target[1:]
    np.testing.assert_allclose(source.position, places[target[0]], atol=1e-5)
    seen = LPS_TO_RAS @ sent.affine @ (column, row, plane, 1)
    wanted = places[target[0]] + axes[:, 0] * spacing[2] * column + axes[:, 1] * spacing[1] * row
    np.testing.assert_allclose(seen[:3], wanted, atol=1e-3)


def test_a_reversed_order_or_a_flipped_axis_would_be_seen(tmp_path: Path) -> None:
    """What the test above rests on: other stacks put the same voxel elsewhere."""
    volume = assemble(slices(tmp_path, np.zeros((3, 4, 5), np.uint16)))
    point = np.array((1, 2, 0, 1))
    reversed_ = Volume(Stack(volume.stack.planes[::-1], volume.affine))
    assert reversed_.order != volume.order
    for axis in range(3):
        flipped = volume.affine.copy()
        flipped[:3, axis] *= -1
        if point[axis]:
            assert not np.allclose(flipped @ point, volume.affine @ point)


@settings(max_examples=60, deadline=None)
@given(
    rows=st.integers(1, 61),
    columns=st.integers(1, 61),
    size=st.sampled_from([64, 97, 128]),
    flags=st.tuples(st.booleans(), st.booleans(), st.booleans()),
    data=st.data(),
)
def test_a_pixel_comes_back_through_turn_padding_and_resizing(
    rows: int, columns: int, size: int, flags: tuple[bool, bool, bool], data: st.DataObject
) -> None:
    turn = Turn(rows, columns, *flags)
    target = data.draw(st.integers(0, rows - 1)), data.draw(st.integers(0, columns - 1))
    image = np.zeros((rows, columns), np.uint8)
    image[target] = 255
    shown = turn.apply(image)
    placement = Placement(*turn.displayed, size)
    back = turn.undo(placement.undo(placement.apply(shown)))
    assert np.unravel_index(int(back.argmax()), back.shape) == target
