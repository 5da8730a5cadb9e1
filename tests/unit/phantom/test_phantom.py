"""The phantom: one body, headers that agree with it, and nothing that gives the truth away."""

from __future__ import annotations

import ast
import subprocess
from datetime import UTC, date, datetime
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from pydicom.dataset import Dataset

from pacs_ai import phantom

WHEN = datetime(2026, 3, 4, 10, 11, 12, tzinfo=UTC)
SMALL = {"slices": 16, "rows": 128}


@pytest.fixture(scope="module")
def normal() -> tuple[Dataset, ...]:
    return phantom.chest_radiographs(name="normal", when=WHEN, opacity=False)


@pytest.fixture(scope="module")
def abnormal() -> tuple[Dataset, ...]:
    return phantom.chest_radiographs(name="abnormal", when=WHEN, opacity=True)


@pytest.fixture(scope="module")
def small_ct() -> tuple[Dataset, ...]:
    return phantom.thorax_ct(name="ct", when=WHEN, **SMALL)


def written(instance: Dataset) -> bytes:
    buffer = BytesIO()
    instance.save_as(buffer, enforce_file_format=True)
    return buffer.getvalue()


def affine(instance: Dataset) -> NDArray[np.float64]:
    """Columns, rows to patient coordinates (mm, LPS) of one slice."""
    row_direction = np.array(instance.ImageOrientationPatient[:3], float)
    column_direction = np.array(instance.ImageOrientationPatient[3:], float)
    down, across = map(float, instance.PixelSpacing)
    origin = np.array(instance.ImagePositionPatient, float)
    return np.column_stack((row_direction * across, column_direction * down, origin))


def hounsfield(instance: Dataset) -> NDArray[np.float64]:
    slope, intercept = float(instance.RescaleSlope), float(instance.RescaleIntercept)
    return np.asarray(instance.pixel_array * slope + intercept, float)


def test_the_same_call_makes_the_same_bytes(small_ct: tuple[Dataset, ...]) -> None:
    again = phantom.thorax_ct(name="ct", when=WHEN, **SMALL)
    assert [written(one) for one in again] == [written(one) for one in small_ct]


def test_different_names_make_different_studies(small_ct: tuple[Dataset, ...]) -> None:
    other = phantom.thorax_ct(name="another", when=WHEN, **SMALL)
    assert {one.StudyInstanceUID for one in other}.isdisjoint(
        one.StudyInstanceUID for one in small_ct
    )
    assert {one.SOPInstanceUID for one in other}.isdisjoint(one.SOPInstanceUID for one in small_ct)


def test_every_instance_conforms(
    tmp_path: Path, abnormal: tuple[Dataset, ...], small_ct: tuple[Dataset, ...]
) -> None:
    for number, instance in enumerate((*abnormal, small_ct[0])):
        path = tmp_path / f"{number}.dcm"
        path.write_bytes(written(instance))
        answer = subprocess.run(
            ["dciodvfy", "-new", path], capture_output=True, text=True, check=False
        )
        said = answer.stdout + answer.stderr
        # It names the IOD when it has read the Instance at all.
        assert "Image" in said
        assert "Error" not in said


def test_the_patient_is_plainly_a_phantom_and_adult(normal: tuple[Dataset, ...]) -> None:
    for instance in normal:
        assert str(instance.PatientName).startswith("Phantom")
        assert instance.PatientID.startswith("PHANTOM")
        birth = instance.PatientBirthDate
        born = date(int(birth[:4]), int(birth[4:6]), int(birth[6:]))
        today = WHEN.date()
        had_birthday = (today.month, today.day) >= (born.month, born.day)
        years = today.year - born.year - (not had_birthday)
        assert instance.PatientAge == f"{years:03d}Y"
        assert years >= 18


def test_both_views_belong_to_one_study(normal: tuple[Dataset, ...]) -> None:
    frontal, lateral = normal
    assert frontal.StudyInstanceUID == lateral.StudyInstanceUID
    assert (frontal.ViewPosition, lateral.ViewPosition) == ("PA", "LL")
    assert frontal.Rows > frontal.Columns


def test_the_frontal_view_is_seen_face_to_face(normal: tuple[Dataset, ...]) -> None:
    truth = phantom.frontal_truth()
    columns = {label: np.nonzero(mask)[1].mean() for label, mask in truth.items()}
    assert list(normal[0].PatientOrientation) == ["L", "F"]
    assert columns["right lung"] < columns["heart"] < columns["left lung"]
    assert columns["heart"] > normal[0].Columns / 2


def test_lungs_are_dark_and_the_heart_is_bright_on_the_projection(
    normal: tuple[Dataset, ...],
) -> None:
    picture = normal[0].pixel_array
    truth = phantom.frontal_truth()
    lung = np.median(picture[truth["left lung"] | truth["right lung"]])
    assert np.median(picture[truth["heart"]]) > lung + 400


def test_an_opacity_shows_on_both_views_and_nowhere_else(
    normal: tuple[Dataset, ...], abnormal: tuple[Dataset, ...]
) -> None:
    left, top, right, bottom = (round(edge) for edge in phantom.opacity_box())
    # The lateral view has the same rows: it sees the opacity between the same heights.
    for before, after in zip(normal, abnormal, strict=True):
        more = after.pixel_array.astype(float) - before.pixel_array
        rows = np.percentile(more, 98, axis=1)
        assert rows[top:bottom].mean() > 3 * abs(rows[: top - 200].mean())
    difference = abnormal[0].pixel_array.astype(float) - normal[0].pixel_array
    assert difference[top:bottom, left:right].mean() > 200
    difference[top - 30 : bottom + 30, left - 30 : right + 30] = 0
    assert abs(difference.mean()) < 2


def test_the_lungs_are_unequal() -> None:
    truth = phantom.thorax_truth(name="ct", when=WHEN, **SMALL)
    left, right = (int(truth[label].sum()) for label in ("left lung", "right lung"))
    assert abs(left - right) > 0.02 * right
    frontal = phantom.frontal_truth()
    mirrored = frontal["left lung"][:, ::-1]
    overlap = 2 * (mirrored & frontal["right lung"]).sum()
    assert overlap / (mirrored.sum() + frontal["right lung"].sum()) < 0.95


def test_the_ct_lies_obliquely_in_the_patient_and_out_of_order(
    small_ct: tuple[Dataset, ...],
) -> None:
    orientation = np.array(small_ct[0].ImageOrientationPatient, float)
    tilt = np.degrees(np.arccos(np.abs(np.cross(orientation[:3], orientation[3:]))[2]))
    assert 1 < tilt < 10
    normal = np.cross(orientation[:3], orientation[3:])
    along = [float(np.dot(normal, np.array(one.ImagePositionPatient, float))) for one in small_ct]
    assert along != sorted(along)
    assert along != sorted(along, reverse=True)
    steps = np.diff(sorted(along))
    assert np.allclose(steps, float(small_ct[0].SliceThickness), atol=1e-4)


def test_truth_and_voxels_agree_through_the_header(small_ct: tuple[Dataset, ...]) -> None:
    truth = phantom.thorax_truth(name="ct", when=WHEN, **SMALL)
    places = {"left lung": [], "right lung": []}
    seen = []
    for number, instance in enumerate(small_ct):
        values = hounsfield(instance)
        for label, found in places.items():
            mask = truth[label][number]
            if mask.any():
                rows, columns = np.nonzero(mask)
                points = affine(instance) @ np.stack((columns, rows, np.ones(rows.size)))
                found.append(points)
                seen.append(values[mask])
    left, right = (np.concatenate(found, axis=1).mean(axis=1) for found in places.values())
    assert np.median(np.concatenate(seen)) == pytest.approx(-865, abs=30)
    # LPS: the patient's left is positive x.
    assert left[0] > 30
    assert right[0] < -30


def test_the_ct_is_noisy_and_in_hounsfield_units(small_ct: tuple[Dataset, ...]) -> None:
    truth = phantom.thorax_truth(name="ct", when=WHEN, **SMALL)
    values = np.stack([hounsfield(one) for one in small_ct])
    tissue = truth["body"] & ~truth["bone"] & (values > 0) & (values < 110)
    assert np.std(values[tissue]) >= 20
    assert np.median(values[tissue]) == pytest.approx(48, abs=15)
    assert np.percentile(values[truth["bone"]], 75) > 300
    assert np.median(values[~truth["body"]]) == pytest.approx(-1000, abs=15)


def test_phantom_and_reference_models_share_nothing() -> None:
    package = Path(phantom.__file__).parents[1]
    for here, other in (("phantom", "reference"), ("reference", "phantom")):
        for path in (package / here).glob("*.py"):
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
                names = [alias.name for alias in getattr(node, "names", ())]
                names.append(getattr(node, "module", None) or "")
                if isinstance(node, ast.Import | ast.ImportFrom):
                    assert not any(name.startswith(f"pacs_ai.{other}") for name in names)
