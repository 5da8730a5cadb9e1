"""Slices to a Volume: any order in, one regular grid out, or a refusal that names what is wrong."""

from __future__ import annotations

import gzip
import random
import tarfile
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest
from numpy.typing import NDArray
from pydicom.uid import CTImageStorage, MRImageStorage, PositronEmissionTomographyImageStorage

from pacs_ai.errors import PixelError
from pacs_ai.pixels.display import View, display_image
from pacs_ai.pixels.nifti import from_nifti, to_nifti
from pacs_ai.pixels.volume import Grey, Volume, assemble, grey, planes
from pacs_ai.results import PIXEL_PATH
from pacs_ai.settings import Window
from pacs_ai.study import Instance, read_instance
from tests.unit.pixels.made import SHARED, at, enhanced, slices

STORED = np.random.default_rng(7).integers(0, 2000, (5, 4, 6)).astype(np.uint16)
LPS_TO_RAS = np.diag([-1.0, -1.0, 1.0, 1.0])


def array(volume: Volume) -> NDArray[np.float32]:
    """Return all values of a volume, shape (slices, Rows, Columns)."""
    return np.stack([values for values, _ in planes(volume)])


def drawn_as(drawn: Grey) -> NDArray[np.uint8]:
    """Return a volume in eight bits, shape (slices, Rows, Columns)."""
    return np.stack([*drawn.planes()])


def archive(folder: Path, name: str) -> list[Instance]:
    (path,) = (SHARED / name).glob("*.tar.xz")
    with tarfile.open(path) as opened:
        opened.extractall(folder, filter="data")
    return [
        read_instance(one, digest="")
        for one in folder.rglob("*")
        if one.is_file() and one.suffix != ".txt"
    ]


def test_any_order_of_instances_gives_the_same_volume(tmp_path: Path) -> None:
    made = slices(tmp_path, STORED)
    first = assemble(made)
    shuffled = list(made)
    random.Random(3).shuffle(shuffled)
    second = assemble(shuffled)
    assert first.order == second.order == tuple(f"2.25.{100 + k}" for k in range(5))
    np.testing.assert_array_equal(array(first), array(second))
    np.testing.assert_array_equal(array(first), STORED.astype(np.float32) - 1024)


def test_affine_takes_column_row_slice_to_lps_millimetres(tmp_path: Path) -> None:
    """PS3.3 C.7.6.2.1.1: PixelSpacing is distance of rows first, then of columns."""
    volume = assemble(slices(tmp_path, STORED))
    assert (volume.affine @ [0, 0, 0, 1]).tolist() == pytest.approx([-100, -50, 20, 1])
    assert (volume.affine @ [1, 0, 0, 1]).tolist() == pytest.approx([-99.2, -50, 20, 1])
    assert (volume.affine @ [0, 1, 0, 1]).tolist() == pytest.approx([-100, -49.3, 20, 1])
    assert (volume.affine @ [0, 0, 1, 1]).tolist() == pytest.approx([-100, -50, 22, 1])


def test_slices_go_along_the_normal_even_when_instance_numbers_do_not(tmp_path: Path) -> None:
    """Positions that descend are turned round: the affine stays right-handed."""
    volume = assemble(slices(tmp_path, STORED, step=(0, 0, -2.0)))
    assert volume.order[0] == "2.25.104"
    assert volume.affine[2, 2] == pytest.approx(2.0)
    assert np.linalg.det(volume.affine[:3, :3]) > 0


def test_oblique_slices_keep_their_directions(tmp_path: Path) -> None:
    angle = np.deg2rad(9)
    across, down = [np.cos(angle), np.sin(angle), 0], [0, 0, -1]
    normal = np.cross(across, down)
    volume = assemble(
        slices(tmp_path, STORED, orientation=[*across, *down], step=tuple(normal * 1.5))
    )
    np.testing.assert_allclose(volume.affine[:3, 2], normal * 1.5, atol=1e-9)
    np.testing.assert_allclose(volume.affine[:3, 0], np.array(across) * 0.8, atol=1e-9)


def test_rescale_of_each_slice_is_its_own(tmp_path: Path) -> None:
    changes = {k: {"RescaleSlope": k + 1, "RescaleIntercept": 0} for k in range(5)}
    volume = assemble(slices(tmp_path, STORED, Modality="PT", changes=changes))
    values = array(volume)
    for k in range(5):
        np.testing.assert_array_equal(values[k], STORED[k].astype(np.float32) * (k + 1))


@pytest.mark.parametrize("modality", ["CT", "MR"])
def test_padding_is_black_and_no_part_of_the_range(tmp_path: Path, modality: str) -> None:
    stored = STORED.copy()
    stored[:, 0, 0] = 63536
    made = slices(tmp_path, stored, PixelPaddingValue=63536, Modality=modality)
    drawn = drawn_as(grey(assemble(made), Window(width=2000, level=0)))
    assert drawn[:, 0, 0].tolist() == [0] * 5
    assert drawn.max() > 240


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({2: {"ImageOrientationPatient": [0, 1, 0, 0, 0, -1]}}, "ImageOrientationPatient"),
        ({2: {"ImagePositionPatient": [-100, -50, 22]}}, "lie in one place"),
        ({2: {"ImagePositionPatient": [-100, -50, 24.5]}}, "mm apart"),
        ({4: {"ImagePositionPatient": [-100, -50, 30]}}, r"are 4\.000 mm apart.*missing slices"),
        ({2: {"ImagePositionPatient": [-98, -50, 24]}}, "beside the line"),
        ({2: {"PixelSpacing": [0.7, 0.9]}}, "PixelSpacing"),
        ({2: {"PixelSpacing": [0, 0.8]}}, "PixelSpacing of 0"),
        ({2: {"ImagePositionPatient": None}}, "no ImagePositionPatient"),
        ({2: {"ImageOrientationPatient": [1, 0, 0, 0.2, 1, 0]}}, "right angles"),
        ({2: {"ImageOrientationPatient": [2, 0, 0, 0, 1, 0]}}, "unit length"),
        ({2: {"FrameOfReferenceUID": "2.25.99"}}, "FrameOfReferenceUID"),
        ({2: {"SeriesInstanceUID": "2.25.98"}}, "SeriesInstanceUID"),
        ({2: {"AcquisitionNumber": 2}}, "AcquisitionNumber"),
        ({2: {"RescaleSlope": 0}}, "RescaleSlope 0"),
    ],
)
def test_series_that_is_not_one_grid_is_refused_naming_the_element(
    tmp_path: Path, changes: dict[int, dict[str, Any]], reason: str
) -> None:
    with pytest.raises(PixelError, match=reason):
        assemble(slices(tmp_path, STORED, changes=changes))


def test_slices_of_another_size_are_refused(tmp_path: Path) -> None:
    made = slices(tmp_path, STORED)
    (tmp_path / "b").mkdir()
    other = slices(tmp_path / "b", STORED[:, :3, :], origin=(-100, -50, 30))
    with pytest.raises(PixelError, match=r"holds 2 volumes .* differ in Rows"):
        assemble([*made, *other])


def test_tilted_gantry_is_refused(tmp_path: Path) -> None:
    with pytest.raises(PixelError, match="GantryDetectorTilt"):
        assemble(slices(tmp_path, STORED, step=(0, 0.3, 2.0)))


def test_slow_drift_from_the_grid_is_refused(tmp_path: Path) -> None:
    many = np.zeros((40, 2, 2), np.uint16)
    places = np.cumsum([0] + [2.012] * 20 + [1.994] * 19)
    changes = {
        k: {"ImagePositionPatient": [0, 0, round(float(z), 4)]} for k, z in enumerate(places)
    }
    with pytest.raises(PixelError, match="not evenly spaced"):
        assemble(slices(tmp_path, many, changes=changes))


def test_rounding_of_positions_is_tolerated(tmp_path: Path) -> None:
    many = np.zeros((30, 2, 2), np.uint16)
    changes = {k: {"ImagePositionPatient": [0, 0, round(k * 3.375, 2)]} for k in range(len(many))}
    volume = assemble(slices(tmp_path, many, changes=changes))
    assert volume.affine[2, 2] == pytest.approx(3.375, abs=1e-3)


@pytest.mark.parametrize("count", [0, 1])
def test_fewer_than_two_slices_are_no_volume(tmp_path: Path, count: int) -> None:
    with pytest.raises(PixelError, match="two slices"):
        assemble(slices(tmp_path, STORED[:count]))


@pytest.mark.parametrize("dtype", [np.int16, np.int32])
def test_window_takes_its_edges_to_0_and_255(tmp_path: Path, dtype: type[Any]) -> None:
    hounsfield = np.array([[[-2000, -910, -160, 590, 3000]]] * 2, dtype)
    made = slices(tmp_path, hounsfield, RescaleIntercept=0)
    drawn = grey(assemble(made), Window(width=1500, level=-160))
    assert drawn_as(drawn).tolist() == [[[0, 0, 128, 255, 255]]] * 2
    assert drawn.recipe == f"{PIXEL_PATH} W 1500 L -160"


@pytest.mark.parametrize(
    ("elements", "reason"),
    [
        ({"RescaleIntercept": None}, "is CT and has no RescaleIntercept,"),
        (
            {"RescaleSlope": None, "RescaleIntercept": ""},
            "no RescaleSlope and no RescaleIntercept,",
        ),
        ({"RescaleType": "US"}, "RescaleType is not HU"),
        ({"RescaleType": "MGML"}, "RescaleType is not HU"),
    ],
)
@pytest.mark.parametrize("where", [{}, {3}], ids=["every slice", "one slice"])
def test_a_ct_is_windowed_in_hounsfield_units_or_refused(
    tmp_path: Path, elements: dict[str, Any], reason: str, where: set[int]
) -> None:
    made = slices(tmp_path, STORED, changes=dict.fromkeys(where or range(5), elements))
    with pytest.raises(PixelError, match=rf"2\.25\.10\d (.*{reason}|lacks RescaleSlope)"):
        grey(assemble(made), Window(width=1500, level=-160))


@pytest.mark.parametrize("level", [-4000, 4000])
def test_a_volume_that_its_window_hides_is_refused(tmp_path: Path, level: float) -> None:
    drawn = grey(assemble(slices(tmp_path, STORED)), Window(width=400, level=level))
    with pytest.raises(
        PixelError, match=r"^Series 2\.25\.2 is all black or all white from .*: correct"
    ):
        drawn_as(drawn)


def test_slices_of_air_are_part_of_a_volume(tmp_path: Path) -> None:
    stored = np.where(np.arange(5)[:, None, None] == 3, STORED, 0).astype(np.uint16)
    drawn = drawn_as(grey(assemble(slices(tmp_path, stored)), Window(width=1500, level=-160)))
    assert [plane.any() for plane in drawn] == [False, False, False, True, False]


def test_frames_of_a_ct_in_other_units_are_refused(tmp_path: Path) -> None:
    flow = {"RescaleSlope": 1, "RescaleIntercept": -1024, "RescaleType": "US"}
    own = at(*[(0, 0, z) for z in range(5)], PixelValueTransformationSequence=flow)
    made = enhanced(tmp_path, STORED, own=own)
    with pytest.raises(PixelError, match="RescaleType is not HU"):
        grey(assemble([made]), Window(width=1500, level=-160))


def test_slices_of_which_only_some_are_rescaled_are_refused(tmp_path: Path) -> None:
    silent = {2: {"RescaleSlope": None, "RescaleIntercept": None}}
    made = slices(tmp_path, STORED, changes=silent, Modality="PT", RescaleSlope=0.5)
    with pytest.raises(PixelError, match=r"2\.25\.102 lacks RescaleSlope or .*: send"):
        assemble(made)


def test_slices_that_say_nothing_lie_beside_those_that_say_that_nothing_changes(
    tmp_path: Path,
) -> None:
    silent = {2: {"RescaleSlope": None, "RescaleIntercept": None}}
    made = slices(tmp_path, STORED, changes=silent, Modality="MR", RescaleIntercept=0)
    np.testing.assert_array_equal(array(assemble(made)), STORED)


@pytest.mark.parametrize("modality", ["MR", "PT", "CT"])
def test_high_values_are_dark_where_the_header_says_so_and_they_have_no_unit(
    tmp_path: Path, modality: str
) -> None:
    kinds = {
        "MR": MRImageStorage,
        "PT": PositronEmissionTomographyImageStorage,
        "CT": CTImageStorage,
    }
    values = np.arange(3 * 40 * 40, dtype=np.uint16).reshape(3, 40, 40)
    elements = {"Modality": modality, "SOPClassUID": kinds[modality]}
    window = Window(width=4800, level=1376)
    plain = drawn_as(grey(assemble(slices(tmp_path, values, **elements)), window)).astype(int)
    dark = {"PhotometricInterpretation": "MONOCHROME1"}
    other = drawn_as(grey(assemble(slices(tmp_path, values, **elements, **dark)), window))
    assert np.ptp(plain) == 255
    assert np.abs(other - (255 - plain if modality == "MR" else plain)).max() <= 1


@pytest.mark.parametrize(
    ("modality", "uid", "window"),
    [
        ("CT", CTImageStorage, Window(width=2000, level=-100)),
        ("CT", CTImageStorage, None),
        ("PT", PositronEmissionTomographyImageStorage, None),
        ("MR", MRImageStorage, None),
    ],
)
def test_a_slice_alone_is_dark_where_it_is_in_its_volume(
    tmp_path: Path, modality: str, uid: str, window: Window | None
) -> None:
    made = slices(
        tmp_path,
        STORED,
        Modality=modality,
        SOPClassUID=uid,
        PhotometricInterpretation="MONOCHROME1",
    )
    drawn = grey(assemble(made), window or Window(width=2000, level=-100)).plane(2)
    alone = display_image(made[2], view=View.ANY, window=window).pixels
    assert np.corrcoef(alone.ravel(), drawn.ravel())[0, 1] > 0.9


def test_slices_that_are_displayed_in_two_ways_are_refused(tmp_path: Path) -> None:
    values = np.arange(3 * 8 * 8, dtype=np.uint16).reshape(3, 8, 8)
    made = slices(
        tmp_path,
        values,
        changes={1: {"PhotometricInterpretation": "MONOCHROME1"}},
        Modality="MR",
        SOPClassUID=MRImageStorage,
    )
    with pytest.raises(PixelError, match=r"Instance 2\.25\.101 .*MONOCHROME1 and Instance 2\.25\."):
        grey(assemble(made), Window(width=1, level=0))


@pytest.mark.parametrize("dtype", [np.int16, np.int32])
@pytest.mark.parametrize("slope", [1, 0.37])
def test_without_absolute_units_the_percentiles_decide(
    tmp_path: Path, slope: float, dtype: type[Any]
) -> None:
    stored = np.random.default_rng(5).normal(0, 900, (6, 40, 40)).astype(dtype)
    changes = {k: {"RescaleSlope": slope * (1 + k / 10)} for k in range(6)}
    made = slices(tmp_path, stored, Modality="MR", RescaleIntercept=0, changes=changes)
    volume = assemble(made)
    drawn = grey(volume, Window(width=1, level=0))
    assert drawn.recipe == f"{PIXEL_PATH} P 0.5 to 99.5"
    low, high = np.percentile(array(volume), (0.5, 99.5))
    wanted = np.rint(np.clip((array(volume) - low) / (high - low), 0, 1) * 255)
    assert np.abs(drawn_as(drawn) - wanted).max() <= 1


def test_a_large_offset_costs_no_contrast(tmp_path: Path) -> None:
    stored = np.random.default_rng(6).integers(32768, 32809, (4, 40, 40)).astype(np.uint16)
    made = slices(tmp_path, stored, Modality="MR", RescaleIntercept=0)
    drawn = drawn_as(grey(assemble(made), Window(width=1, level=0)))
    assert len(np.unique(drawn)) == 41
    assert (drawn == 255).mean() < 0.05


def test_one_plane_is_the_same_as_in_the_whole(tmp_path: Path) -> None:
    drawn = grey(assemble(slices(tmp_path, STORED)), Window(width=2000, level=0))
    np.testing.assert_array_equal(drawn.plane(3), drawn_as(drawn)[3])


def test_volume_of_one_value_is_no_image(tmp_path: Path) -> None:
    made = slices(tmp_path, np.ones((2, 3, 3), np.uint16), Modality="MR")
    with pytest.raises(PixelError, match="one value"):
        grey(assemble(made), Window(width=1, level=0))


# The way out as NIfTI and back.


def oblique(folder: Path) -> Volume:
    angle = np.deg2rad(5)
    down = [0, np.cos(angle), np.sin(angle)]
    normal = np.cross([1, 0, 0], down)
    return assemble(slices(folder, STORED, orientation=[1, 0, 0, *down], step=tuple(normal * 2)))


def test_nifti_has_the_same_voxels_in_ras(tmp_path: Path) -> None:
    volume = oblique(tmp_path)
    values = drawn_as(grey(volume, Window(width=2000, level=0)))
    image = nibabel.Nifti1Image.from_bytes(gzip.decompress(to_nifti(volume, values, most=10**8)))
    assert image.get_data_dtype() == np.uint8
    assert image.shape == (6, 4, 5)
    assert np.asarray(image.dataobj)[3, 2, 1] == values[1, 2, 3]
    np.testing.assert_allclose(image.affine, LPS_TO_RAS @ volume.affine, atol=1e-4)
    assert (int(image.header["sform_code"]), int(image.header["qform_code"])) == (1, 1)


def test_nifti_of_the_same_values_is_the_same_bytes(tmp_path: Path) -> None:
    volume = oblique(tmp_path)
    values = drawn_as(grey(volume, Window(width=2000, level=0)))
    assert to_nifti(volume, values, most=10**8) == to_nifti(volume, values, most=10**6)


@pytest.mark.parametrize("code", ["RAS", "LPS", "SPL", "AIR", "PSR"])
def test_label_map_in_another_axis_order_comes_back_to_ours(tmp_path: Path, code: str) -> None:
    volume = oblique(tmp_path)
    labels = np.random.default_rng(1).integers(0, 3, STORED.shape).astype(np.uint8)
    image = nibabel.Nifti1Image.from_bytes(gzip.decompress(to_nifti(volume, labels, most=10**8)))
    turn = nibabel.orientations.ornt_transform(
        nibabel.io_orientation(image.affine), nibabel.orientations.axcodes2ornt(tuple(code))
    )
    turned = image.as_reoriented(turn)
    assert nibabel.aff2axcodes(turned.affine) == tuple(code)
    np.testing.assert_array_equal(from_nifti(turned.to_bytes(), volume), labels)


def test_label_map_without_stated_geometry_is_taken_as_it_was_sent(tmp_path: Path) -> None:
    volume = oblique(tmp_path)
    labels = (STORED > 1000).astype(np.uint8)
    image = nibabel.Nifti1Image(labels.transpose(2, 1, 0), None)
    np.testing.assert_array_equal(from_nifti(image.to_bytes(), volume), labels)


@pytest.mark.parametrize("change", ["shift", "scale", "rotate", "identity", "shape", "singular"])
def test_label_map_on_another_grid_is_refused(tmp_path: Path, change: str) -> None:
    volume = oblique(tmp_path)
    affine = LPS_TO_RAS @ volume.affine
    labels = np.zeros((6, 4, 5), np.uint8)
    if change == "shift":
        affine[0, 3] += 0.8
    elif change == "scale":
        affine[:3, :3] *= 1.05
    elif change == "rotate":
        affine = np.array(nibabel.affines.from_matvec(nibabel.eulerangles.euler2mat(0.1))) @ affine
    elif change == "identity":
        affine = np.eye(4)
    elif change == "shape":
        labels = np.zeros((6, 4, 4), np.uint8)
    image = nibabel.Nifti1Image(labels, affine)
    image.set_qform(None, code=0)
    data = bytearray(image.to_bytes())
    if change == "singular":
        data[312:328] = bytes(16)  # srow_z, the third row of the affine
    with pytest.raises(PixelError, match="another grid"):
        from_nifti(bytes(data), volume)


@pytest.mark.parametrize("data", [b"", b"\x1f\x8b garbage", b"nothing like it" * 50])
def test_bytes_that_are_no_nifti_are_refused(tmp_path: Path, data: bytes) -> None:
    with pytest.raises(PixelError, match="came back"):
        from_nifti(data, oblique(tmp_path))


def test_gzip_bomb_is_refused_before_it_is_unpacked(tmp_path: Path) -> None:
    with pytest.raises(PixelError, match="far too large"):
        from_nifti(gzip.compress(bytes(50_000_000)), oblique(tmp_path))


def test_label_map_that_is_not_finite_is_refused(tmp_path: Path) -> None:
    volume = oblique(tmp_path)
    values = np.full((6, 4, 5), np.nan, np.float32)
    image = nibabel.Nifti1Image(values, LPS_TO_RAS @ volume.affine)
    with pytest.raises(PixelError, match="finite"):
        from_nifti(image.to_bytes(), volume)


# Real Series.


def test_real_thorax_ct_has_its_own_geometry_and_left_is_left(tmp_path: Path) -> None:
    volume = assemble(archive(tmp_path, "ct-thorax"))
    assert volume.shape == (64, 512, 512)
    assert volume.affine[2, 2] == pytest.approx(5.0)
    hounsfield = array(volume)
    assert hounsfield.min() == -1024
    # The heart, soft tissue between the lungs, lies to the patient's left: at greater x in LPS.
    middle = hounsfield[28, 180:330, 100:420]
    soft = np.argwhere((middle > 0) & (middle < 200))
    x = (soft[:, 1] + 100) * volume.affine[0, 0] + volume.affine[0, 3]
    assert np.median(x) > -5


@pytest.mark.parametrize(
    ("name", "shape"), [("pet-seg", (299, 128, 128)), ("mr-brain", (64, 256, 256))]
)
def test_real_series_of_other_modalities_are_regular(
    tmp_path: Path, name: str, shape: tuple[int, ...]
) -> None:
    volume = assemble(archive(tmp_path, name))
    assert volume.shape == shape
    values = drawn_as(grey(volume, Window(width=1500, level=-160)))
    np.testing.assert_array_equal(from_nifti(to_nifti(volume, values, most=10**8), volume), values)
