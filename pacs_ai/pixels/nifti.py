"""How a Volume travels: NIfTI-1 bytes, and the label map that comes back.

NIfTI counts column, row, slice and means RAS millimetres where DICOM means LPS. Geometry is always
that of the Volume: the header that comes back is only asked which axis order its voxels have.
"""

from __future__ import annotations

import gzip
import io
import math
import zlib
from collections.abc import Iterable
from typing import Any

import nibabel
import numpy as np
from numpy.typing import NDArray

from pacs_ai.errors import PixelError
from pacs_ai.pixels.volume import Volume

_Nifti1Image: Any = nibabel.Nifti1Image  # annotated in part only
_Nifti1Header: Any = nibabel.Nifti1Header
_LPS_TO_RAS = np.diag([-1.0, -1.0, 1.0, 1.0])
_OFFSET = 0.1
"""Share of a voxel by which the grid that comes back may be off (headers hold 32-bit floats)."""
_LEVEL = 4
_HEADER_ROOM = 1024 * 1024
_NOT_NIFTI = (
    zlib.error,
    nibabel.filebasedimages.ImageFileError,
    ArithmeticError,
    LookupError,
    OSError,
    TypeError,
    ValueError,
)
"""What nibabel and NumPy raise of bytes that are no file, or one that is cut off or damaged."""


def to_nifti(volume: Volume, planes: Iterable[NDArray[np.uint8]], *, most: int) -> bytes:
    """Return a gzip NIfTI-1 file of values on a Volume's grid; the same values give the same bytes.

    NIfTI has its first axis fastest, so slices of (Rows, Columns) stand in it one after the other
    as they are, and each is let go once it is compressed.

    Parameters
    ----------
    volume : Volume
        Gives the affine.
    planes : iterable of ndarray of uint8, shape (Rows, Columns)
        One for each slice, along the normal.
    most : int
        Bytes that the file may have.

    Raises
    ------
    PixelError
        When it would have more; the rest of the slices is not asked for.
    """
    header = _Nifti1Header()
    header.set_data_dtype(np.uint8)
    header.set_data_shape(volume.shape[::-1])
    header.set_sform(_LPS_TO_RAS @ volume.affine, code="scanner")
    header.set_qform(_LPS_TO_RAS @ volume.affine, code="scanner")
    header.set_xyzt_units(xyz="mm")
    header["magic"], header["vox_offset"] = b"n+1", header.single_vox_offset
    out = io.BytesIO()
    with gzip.GzipFile(fileobj=out, mode="wb", compresslevel=_LEVEL, mtime=0) as packed:
        packed.write(header.binaryblock + bytes(4))  # no extensions follow
        for plane in planes:
            packed.write(np.ascontiguousarray(plane).data)
            _check_length(out.tell(), most, volume)
    _check_length(out.tell(), most, volume)
    return out.getvalue()


def _check_length(length: int, most: int, volume: Volume) -> None:
    if length > most:
        slices, rows, columns = volume.shape
        raise PixelError(
            f"{slices} slices of {rows} Rows and {columns} Columns are more than {most} bytes when "
            "compressed, all that a request to the endpoint may carry (maximum_request): select a "
            "Series with fewer or thicker slices, or raise it if the endpoint takes more"
        )


def from_nifti(data: bytes, volume: Volume) -> NDArray[Any]:
    """Read a NIfTI-1 file that answers :func:`to_nifti`, on the Volume's own grid.

    A file whose axes are in another order or direction is brought back by its affine; one whose
    affine says nothing (both codes 0) is taken in the order that was sent.

    Returns
    -------
    ndarray, shape (slices, Rows, Columns)

    Raises
    ------
    PixelError
        When the bytes are no NIfTI-1 file, or its grid is not the Volume's.
    """
    sent = volume.shape[::-1]
    # Values that a scale makes infinite are refused below, and so are steps that are.
    with np.errstate(all="ignore"):
        values, theirs = _read(data, sent)
        whole = np.issubdtype(values.dtype, np.integer)
        if not (whole or np.isfinite(values).all()):
            raise PixelError("the NIfTI file that came back has values that are not finite numbers")
        if theirs is not None:
            values = _on_grid(values, theirs, _LPS_TO_RAS @ volume.affine, sent)
    if values.shape != sent:
        raise _other_grid()
    return np.ascontiguousarray(values.transpose(2, 1, 0))


def _read(data: bytes, sent: tuple[int, ...]) -> tuple[NDArray[Any], NDArray[np.float64] | None]:
    """Return the values of a file on as many voxels as were sent, and its affine if it states one.

    A header is small and may claim any size: no voxel is read before the size is known to be right.
    """
    try:
        image = _Nifti1Image.from_bytes(_unpacked(data, sent))
        _check_claims(image.header, sent)
        values = np.asanyarray(image.dataobj)
        stated = int(image.header["sform_code"]) or int(image.header["qform_code"])
        return values.reshape(values.shape[:3]), image.affine if stated else None
    except (nibabel.spatialimages.HeaderDataError, nibabel.wrapstruct.WrapStructError) as error:
        raise PixelError("the NIfTI file that came back has a broken header") from error
    except _NOT_NIFTI as error:
        raise PixelError("what came back is not a NIfTI-1 file") from error


def _unpacked(data: bytes, sent: tuple[int, ...]) -> bytes:
    if data[:2] != b"\x1f\x8b":
        return data
    # A label map has at most eight bytes a voxel; more than that is not an answer to this Volume.
    unpacking = zlib.decompressobj(wbits=31)
    plain = unpacking.decompress(data, math.prod(sent) * 8 + _HEADER_ROOM)
    if not unpacking.eof:
        raise PixelError("the NIfTI file that came back is cut off or far too large")
    return plain


def _check_claims(header: Any, sent: tuple[int, ...]) -> None:
    """Refuse a header that claims other values than one number for each voxel that was sent."""
    dtype = header.get_data_dtype()
    shape = [int(size) for size in header.get_data_shape()]
    while len(shape) > 3 and shape[-1] == 1:
        shape.pop()
    real = np.issubdtype(dtype, np.integer) or np.issubdtype(dtype, np.floating)
    if len(shape) != 3 or not real:
        raise PixelError("the NIfTI file that came back is not a volume of numbers")
    # In which order the axes are is for the affine to say.
    if sorted(shape) != sorted(sent):
        raise _other_grid()


def _on_grid(
    values: NDArray[Any],
    theirs: NDArray[np.float64],
    ours: NDArray[np.float64],
    shape: tuple[int, ...],
) -> NDArray[Any]:
    """Reorder and flip axes so that the voxels stand as they were sent."""
    if not np.isfinite(theirs).all() or abs(np.linalg.det(theirs[:3, :3])) < 1e-12:
        raise _other_grid()
    across = np.linalg.inv(ours) @ theirs
    steps = np.rint(across[:3, :3])
    # Over the whole volume a step may be off by a share of a voxel only; NaN is off as well.
    if not np.abs(across[:3, :3] - steps).max() * max(values.shape) <= _OFFSET:
        raise _other_grid()
    if not (np.abs(steps).sum(axis=0) == 1).all() or not (np.abs(steps).sum(axis=1) == 1).all():
        raise _other_grid()
    axes = [int(np.argmax(np.abs(steps[axis]))) for axis in range(3)]
    turned = values.transpose(axes)
    if turned.shape != shape:
        raise _other_grid()
    for axis in range(3):
        backwards = steps[axis, axes[axis]] < 0
        start = shape[axis] - 1 if backwards else 0
        if not abs(across[axis, 3] - start) <= _OFFSET:
            raise _other_grid()
        if backwards:
            turned = np.flip(turned, axis)
    return turned


def _other_grid() -> PixelError:
    return PixelError(
        "the NIfTI file that came back lies on another grid than the one that was sent: "
        "have the server keep size and affine of its input"
    )
