"""What the reference models are shown: phantom and real images, and their running servers."""

from __future__ import annotations

import io
import subprocess
import tarfile
from collections.abc import Callable, Iterator
from pathlib import Path

import nibabel
import numpy as np
import pydicom
import pytest
from numpy.typing import NDArray

from pacs_ai import phantom
from tests.unit.reference.pictures import KEY, WHEN, nifti, shown, start_server


@pytest.fixture(scope="session")
def frontals() -> dict[str, NDArray[np.uint8]]:
    """Frontal pictures of the normal and the abnormal phantom."""
    return {
        name: shown(phantom.chest_radiographs(name=name, when=WHEN, opacity=opacity)[0])
        for name, opacity in (("normal", False), ("abnormal", True))
    }


@pytest.fixture(scope="session")
def small_volume() -> tuple[nibabel.Nifti1Image, dict[str, NDArray[np.bool_]]]:
    """A coarse phantom CT and its truth, both with axes x, y, z."""
    size = {"slices": 32, "rows": 192}
    image, order = nifti(list(phantom.thorax_ct(name="small", when=WHEN, **size)))
    truth = phantom.thorax_truth(name="small", when=WHEN, **size)
    return image, {label: mask[order].transpose(2, 1, 0) for label, mask in truth.items()}


@pytest.fixture(scope="session")
def real_ct(shared_data: Path) -> nibabel.Nifti1Image:
    """The real thorax CT of the shared images."""
    packed = shared_data / "ct-thorax" / "Lung_Dx-A0001_chest-ct_64slices.tar.xz"
    with tarfile.open(packed) as archive:
        members = [archive.extractfile(member) for member in archive if member.isfile()]
        found = [pydicom.dcmread(io.BytesIO(one.read()), force=True) for one in members if one]
    instances = [one for one in found if "ImagePositionPatient" in one]
    assert len(instances) == 64
    return nifti(instances)[0]


@pytest.fixture(scope="session")
def real_frontal(shared_data: Path) -> Callable[[str], NDArray[np.uint8]]:
    """Read a real radiograph of the shared images by name."""

    def read(name: str) -> NDArray[np.uint8]:
        return shown(pydicom.dcmread(shared_data / "cxr" / name, force=True))

    return read


@pytest.fixture(scope="session")
def endpoint(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[str], str]]:
    """Start a model's server on first use and return its address; all end with the session."""
    key_file = tmp_path_factory.mktemp("reference") / "key"
    key_file.write_text(KEY + "\n", encoding="utf-8")
    running: dict[str, tuple[subprocess.Popen[str], str]] = {}

    def start(model: str) -> str:
        if model not in running:
            running[model] = start_server(model, key_file)
        return running[model][1]

    yield start
    for process, _ in running.values():
        process.terminate()
    for process, _ in running.values():
        assert process.wait(30) == 0
        assert process.stdout is not None
        process.stdout.close()
