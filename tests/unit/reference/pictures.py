"""Pictures and volumes for the reference models, made by this file's own few lines.

The gateway's pixel path is left out on purpose: model and client must not agree with each other only.
"""

from __future__ import annotations

import base64
import io
import json
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
from numpy.typing import NDArray
from PIL import Image
from pydicom.dataset import Dataset

WHEN = datetime(2026, 3, 4, 10, 11, 12, tzinfo=UTC)
KEY = "a-test-key"


def shown(instance: Dataset) -> NDArray[np.uint8]:
    """Return a radiograph as a reader sees it, 8 bits, dense tissue bright."""
    values = instance.pixel_array.astype(float)
    low, high = np.percentile(values, [0.5, 99.5])
    grey = np.clip((values - low) / (high - low), 0, 1)
    if instance.PhotometricInterpretation == "MONOCHROME1":
        grey = 1 - grey
    return np.rint(grey * 255).astype(np.uint8)


def png(picture: NDArray[np.uint8]) -> str:
    buffer = io.BytesIO()
    Image.fromarray(picture).save(buffer, "PNG")
    return base64.b64encode(buffer.getvalue()).decode()


def dice(one: NDArray[np.bool_], other: NDArray[np.bool_]) -> float:
    return 2 * float((one & other).sum()) / float(one.sum() + other.sum())


def nifti(instances: list[Dataset]) -> tuple[nibabel.Nifti1Image, list[int]]:
    """Return a CT Series as a windowed NIfTI (x, y, z; RAS+) and the order of its slices."""
    first = instances[0]
    orientation = np.array(first.ImageOrientationPatient, float)
    normal = np.cross(orientation[:3], orientation[3:])
    along = [float(np.dot(normal, np.array(one.ImagePositionPatient, float))) for one in instances]
    order = [int(number) for number in np.argsort(along)]
    slices = [instances[number] for number in order]
    values = np.stack(
        [one.pixel_array * float(one.RescaleSlope) + float(one.RescaleIntercept) for one in slices]
    )
    grey = np.rint(np.clip((values + 910) / 1500, 0, 1) * 255).astype(np.uint8)
    corners = [np.array(one.ImagePositionPatient, float) for one in (slices[0], slices[-1])]
    affine = np.eye(4)
    affine[:3, 0] = orientation[:3] * float(first.PixelSpacing[1])
    affine[:3, 1] = orientation[3:] * float(first.PixelSpacing[0])
    affine[:3, 2] = (corners[1] - corners[0]) / (len(slices) - 1)
    affine[:3, 3] = corners[0]
    return nibabel.Nifti1Image(grey.transpose(2, 1, 0), np.diag([-1.0, -1, 1, 1]) @ affine), order


def start_server(model: str, key_file: Path) -> tuple[subprocess.Popen[str], str]:
    process = subprocess.Popen(
        [
            *(sys.executable, "-m", "pacs_ai.reference.server", "--model", model),
            *("--host", "127.0.0.1", "--port", "0", "--key-file", str(key_file)),
        ],
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    ready: dict[str, Any] = json.loads(process.stdout.readline())
    assert ready["model"] == model
    return process, f"http://127.0.0.1:{ready['port']}"
