"""dcm2niix, which shares no code with us, puts every voxel of a Series where we put it."""

from __future__ import annotations

import subprocess
import tarfile
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest
from numpy.typing import NDArray

from pacs_ai import phantom
from pacs_ai.pixels.volume import Volume, assemble, planes
from pacs_ai.study import Instance, read_instance
from tests.peers import require
from tests.unit.pixels.made import at, enhanced

LPS_TO_RAS = np.diag([-1.0, -1.0, 1.0, 1.0])
MILLIMETRE = 0.005
"""A NIfTI header holds 32-bit floats."""


def converted(folder: Path, out: Path) -> list[Any]:
    """Return the images that dcm2niix makes of a folder, its axes nearest to RAS."""
    out.mkdir()
    ran = subprocess.run(
        [require("dcm2niix"), "-b", "n", "-z", "n", "-f", "%s_%e", "-o", out, folder],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert ran.returncode == 0, ran.stdout + ran.stderr
    return [nibabel.as_closest_canonical(nibabel.load(one)) for one in sorted(out.glob("*.nii"))]


def ours(volume: Volume) -> Any:
    """Return a volume as we understand it, its axes nearest to RAS."""
    values = np.stack([plane for plane, _ in planes(volume)]).transpose(2, 1, 0)
    return nibabel.as_closest_canonical(nibabel.Nifti1Image(values, LPS_TO_RAS @ volume.affine))


def same(one: Any, other: Any, *, step: float = 1e-3) -> bool:
    """Tell whether two images have the same voxels in the same places."""
    corners = np.array(np.meshgrid(*[(0, size - 1) for size in one.shape])).reshape(3, -1).T
    places = [nibabel.affines.apply_affine(image.affine, corners) for image in (one, other)]
    values: list[NDArray[Any]] = [np.asarray(image.get_fdata()) for image in (one, other)]
    return (
        one.shape == other.shape
        and float(np.abs(places[0] - places[1]).max()) < MILLIMETRE
        and bool(np.allclose(values[0], values[1], atol=step, rtol=1e-5))
    )


def unpacked(shared_data: Path, name: str, folder: Path) -> list[Instance]:
    (archive,) = (shared_data / name).glob("*.tar.xz")
    with tarfile.open(archive) as opened:
        opened.extractall(folder, filter="data")
    files = [one for one in folder.rglob("*") if one.suffix == ".dcm"]
    return [read_instance(one, digest="") for one in files]


@pytest.mark.parametrize("name", ["ct-thorax", "mr-brain", "pet-seg"])
def test_real_series_have_the_affine_and_voxels_of_dcm2niix(
    shared_data: Path, tmp_path: Path, name: str
) -> None:
    (folder := tmp_path / "in").mkdir()
    volume = assemble(unpacked(shared_data, name, folder))
    (theirs,) = converted(folder, tmp_path / "out")
    assert same(ours(volume), theirs)


def test_oblique_phantom_has_the_affine_and_voxels_of_dcm2niix(tmp_path: Path) -> None:
    (folder := tmp_path / "in").mkdir()
    when = datetime(2026, 11, 26, tzinfo=UTC)
    for one in phantom.thorax_ct(name="affine", when=when, slices=9, rows=32):
        one.save_as(folder / f"{one.SOPInstanceUID}.dcm", enforce_file_format=True)
    volume = assemble([read_instance(one, digest="") for one in folder.iterdir()])
    (theirs,) = converted(folder, tmp_path / "out")
    image = ours(volume)
    assert same(image, theirs)
    # What a mirrored axis or a turned order would look like is told apart.
    values = np.asarray(image.dataobj)
    for axis in range(3):
        assert not same(nibabel.Nifti1Image(np.flip(values, axis), image.affine), theirs)


def test_real_enhanced_ct_has_the_affine_and_voxels_of_dcm2niix(
    shared_data: Path, tmp_path: Path
) -> None:
    (folder := tmp_path / "in").mkdir()
    source = shared_data / "multiframe/enhanced-ct-2frame.dcm"
    (folder / "ct.dcm").write_bytes(source.read_bytes())
    volume = assemble([read_instance(folder / "ct.dcm", digest="")])
    (theirs,) = converted(folder, tmp_path / "out")
    assert same(ours(volume), theirs)


def test_enhanced_mr_has_the_affine_and_voxels_of_dcm2niix(tmp_path: Path) -> None:
    (folder := tmp_path / "in").mkdir()
    stored = np.random.default_rng(8).integers(0, 900, (5, 12, 14)).astype(np.uint16)
    own = at(*((-20.0, -30.0, 40.0 - 3 * place) for place in range(5)))
    for place, group in enumerate(own, 1):
        group["FrameContentSequence"] = {"StackID": "1", "InStackPositionNumber": place}
    source = enhanced(folder, stored, modality="MR", own=own, SeriesNumber=3)
    (theirs,) = converted(folder, tmp_path / "out")
    assert same(ours(assemble([source])), theirs)
