"""The reference model behind the contract of MedImageParse 3D: prompts on a NIfTI volume.

The volume is read by its own affine (RAS+, NIfTI-1): which way is left is taken from there and
never from the order of the voxels. A volume without an affine is refused.
"""

from __future__ import annotations

import base64
import gzip
import io
import json
import zlib
from collections.abc import Mapping
from typing import Any

import nibabel
import numpy as np
from nibabel.filebasedimages import ImageFileError
from nibabel.spatialimages import HeaderDataError
from nibabel.wrapstruct import WrapStructError
from numpy.typing import NDArray

from pacs_ai.reference import frame
from pacs_ai.reference.frame import BadInputError, UndecodableError
from pacs_ai.reference.thorax import Thorax

WINDOW_LOW, WINDOW_WIDTH = -910.0, 1500.0
"""Hounsfield units of the grey values 0 to 255: the model's lung window, W 1500 / L -160."""

MAX_VOXEL_BYTES = 1 << 31
_nifti: Any = nibabel.Nifti1Image  # nibabel is annotated in part only
_orientations: Any = nibabel.orientations
_RAS = np.array([[0, 1], [1, 1], [2, 1]])


def answer(input_data: object, params: object) -> list[dict[str, Any]]:
    """Answer a scoring request: one label map on the input's grid, label *j* for prompt *j*.

    Raises
    ------
    BadInputError
        When there is more than one row or the volume cannot be read.
    """
    rows = frame.rows(input_data, required=("image", "text"))
    if len(rows) != 1:
        raise BadInputError("one volume per call")
    wanted = frame.prompts(rows[0])
    image = read_nifti(frame.binary(rows[0], "image"))
    labels = label_map(image, wanted)
    data = base64.b64encode(write_nifti(labels, image)).decode()
    return [{"nifti_file": json.dumps({"data": data})}]


def read_nifti(data: bytes) -> Any:
    """Read the bytes of a .nii or .nii.gz file: three axes, one value a voxel, with an affine.

    Raises
    ------
    UndecodableError
        When it is no such file.
    BadInputError
        When it has other axes, or no affine.
    """
    if data[:2] == b"\x1f\x8b":
        data = _gunzip(data)
    try:
        image = _nifti.from_bytes(data)
        shape = image.shape
    except (ImageFileError, WrapStructError, HeaderDataError, ValueError, OSError) as error:
        raise UndecodableError("the column image is not a NIfTI-1 file") from error
    if len(shape) != 3 or min(shape) < 2 or image.get_data_dtype().fields is not None:
        raise BadInputError("the volume must have three axes and one value a voxel")
    if image.header["sform_code"] == 0 and image.header["qform_code"] == 0:
        raise BadInputError("the volume has no affine: left and right cannot be told apart")
    if abs(np.linalg.det(image.affine[:3, :3])) < 1e-6:
        raise BadInputError("the volume's affine is degenerate")
    return image


def _gunzip(data: bytes) -> bytes:
    try:
        with gzip.GzipFile(fileobj=io.BytesIO(data)) as packed:
            found = packed.read(MAX_VOXEL_BYTES)
    except (OSError, EOFError, zlib.error) as error:
        raise UndecodableError("the column image is not a gzip file") from error
    if len(found) == MAX_VOXEL_BYTES:
        raise BadInputError("the volume is too large")
    return found


def write_nifti(labels: NDArray[np.uint8], like: Any) -> bytes:
    """Return a gzip NIfTI of labels with the affine of the input."""
    made = _nifti(labels, like.affine, header=like.header)
    made.set_data_dtype(np.uint8)
    made.header.set_slope_inter(1, 0)
    packed: bytes = gzip.compress(made.to_bytes(), compresslevel=3, mtime=0)
    return packed


def label_map(image: Any, prompts: list[str]) -> NDArray[np.uint8]:
    """Segment what the prompts name; where two overlap, the smaller structure is shown.

    Returns
    -------
    ndarray of uint8, shape of the image
        0 is background, *j* the *j*-th prompt.
    """
    native = _orientations.io_orientation(image.affine)
    try:
        values = np.asanyarray(image.dataobj)
    except (ValueError, OSError) as error:
        raise UndecodableError("the volume's voxels cannot be read") from error
    canonical = _orientations.apply_orientation(values, _orientations.ornt_transform(native, _RAS))
    spacing = np.linalg.norm(image.affine[:3, :3], axis=0)
    edges = [float(spacing[axis]) for axis in np.argsort(native[:, 0])]
    thorax = Thorax(_hounsfield(canonical), (edges[0], edges[1], edges[2]))
    masks = [segment(thorax, prompt) for prompt in prompts]
    labels = np.zeros(canonical.shape, np.uint8)
    for number in sorted(range(len(masks)), key=lambda one: -int(masks[one].sum())):
        labels[masks[number]] = number + 1
    return np.asarray(
        _orientations.apply_orientation(labels, _orientations.ornt_transform(_RAS, native))
    )


def segment(thorax: Thorax, prompt: str) -> NDArray[np.bool_]:
    """Return the mask of one prompt on the canonical grid; empty for what is not known."""
    what, where = frame.target(prompt)
    known: Mapping[str, Any] = {
        "left lung": lambda: thorax.lungs()[0],
        "right lung": lambda: thorax.lungs()[1],
        "lung": lambda: thorax.lungs()[0] | thorax.lungs()[1],
        "lungs": lambda: thorax.lungs()[0] | thorax.lungs()[1],
        "bone": thorax.bone,
        "bones": thorax.bone,
        "body": thorax.body,
    }
    other = {"mri", "mr", "ultrasound", "pet"} & set(where.split())
    if what not in known or other:
        return thorax.nothing()
    found: NDArray[np.bool_] = known[what]()
    return found


def _hounsfield(values: NDArray[Any]) -> NDArray[np.float32]:
    """Bring grey values of the lung window back to Hounsfield units; HU stay as they are."""
    values = values.astype(np.float32)
    if values.min() >= 0 and values.max() <= 255:
        values *= np.float32(WINDOW_WIDTH / 255)
        values += np.float32(WINDOW_LOW)
    return values
