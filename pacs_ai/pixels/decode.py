"""Stored Instances to stored values.

What is decoded: single-frame MONOCHROME1 and MONOCHROME2 images, native (every uncompressed
transfer syntax), RLE, JPEG Baseline and JPEG 2000. Everything else is refused by its name. Sizes
are checked against the header, and with limits, before anything is allocated.
"""

from __future__ import annotations

import io
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import pydicom
from numpy.typing import NDArray
from openjpeg.utils import get_parameters
from pydicom.dataset import Dataset
from pydicom.encaps import generate_frames
from pydicom.errors import InvalidDicomError
from pydicom.pixels.decoders.base import get_decoder
from pydicom.pixels.utils import iter_pixels
from pydicom.uid import (
    JPEG2000,
    UID,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGBaseline8Bit,
    RLELossless,
)

from pacs_ai.errors import PixelError
from pacs_ai.study import Instance

PIXEL_LIMIT = 512 * 1024 * 1024
"""Most bytes of one Instance's decoded pixels."""

_NATIVE = frozenset(
    {
        ImplicitVRLittleEndian,
        ExplicitVRLittleEndian,
        ExplicitVRBigEndian,
        DeflatedExplicitVRLittleEndian,
    }
)
_PLUGINS = {
    RLELossless: "pydicom",
    JPEGBaseline8Bit: "pillow",
    JPEG2000Lossless: "pylibjpeg",
    JPEG2000: "pylibjpeg",
}
_KEEP_BITS: dict[str, Any] = {"correct_unused_bits": False}
"""What stands in unused bits is looked at here, not silently shifted away."""

_DECODER_ERRORS = (ValueError, RuntimeError, AttributeError, NotImplementedError, OSError, KeyError)


def stored_values(instance: Instance) -> NDArray[Any]:
    """Return the stored values of a single-frame grey image (PS3.3 C.7.6.3).

    Returns
    -------
    ndarray of an integer type, shape (Rows, Columns)
        Native grid, before Modality LUT; signed where PixelRepresentation says so.

    Raises
    ------
    PixelError
        When the Instance is colour, multi-frame, encoded in a way that is not decoded, larger than
        :data:`PIXEL_LIMIT`, or its pixel data is not as long as its header says.
    """
    check_header(instance)
    syntax = UID(instance.transfer_syntax_uid)
    if syntax not in _NATIVE:
        _plugin(instance)
    dataset = _read(instance)
    values = _native(instance, dataset) if syntax in _NATIVE else _encapsulated(instance, dataset)
    shape = (int(instance.header.Rows), int(instance.header.Columns))
    if values.shape != shape:
        raise PixelError(
            f"{named(instance)} decodes to another size than its Rows and Columns say: "
            "send it again from its source"
        )
    # Big endian files keep their byte order in numpy; nothing after this should have to know.
    return values.astype(values.dtype.newbyteorder("="), copy=False)


def stored_frames(instance: Instance, numbers: Iterable[int]) -> Iterator[NDArray[Any]]:
    """Yield the stored values of frames of a multi-frame grey image, one at a time.

    Parameters
    ----------
    instance : Instance
    numbers : iterable of int
        From 0; yielded in this order, and no other frame is decoded.

    Yields
    ------
    ndarray of an integer type, shape (Rows, Columns)
        As :func:`stored_values`.

    Raises
    ------
    PixelError
        As :func:`stored_values`.
    """
    _check_grey(instance)
    _check_sizes(instance)
    syntax = UID(instance.transfer_syntax_uid)
    plugin = "" if syntax in _NATIVE else _plugin(instance)
    try:
        # By its path, so that frames are read as they are wanted and not all at once.
        for values in iter_pixels(
            instance.path, indices=numbers, raw=True, decoding_plugin=plugin, **_KEEP_BITS
        ):
            kept = _without_unused_bits(instance, values) if syntax in _NATIVE else values
            yield kept.astype(kept.dtype.newbyteorder("="), copy=False)
    except _DECODER_ERRORS as error:
        raise _undecodable(instance, error) from error


def named(instance: Instance) -> str:
    """Return how messages name an Instance: by its UID and nothing of the patient's."""
    return f"Instance {instance.SOPInstanceUID}"


def number(instance: Instance, keyword: str) -> int:
    """Return an element of the Image Pixel Module that must be one whole number.

    Raises
    ------
    PixelError
        When it is missing, empty or has several values.
    """
    value = instance.header.get(keyword)
    try:
        return int(value)
    except (TypeError, ValueError):
        raise PixelError(
            f"{named(instance)} has no single value of {keyword}: correct it at its source"
        ) from None


def check_header(instance: Instance) -> None:
    """Refuse by its header what this module does not decode; nothing is read or allocated.

    Raises
    ------
    PixelError
        As :func:`stored_values`.
    """
    _check_grey(instance)
    frames = int(instance.header.get("NumberOfFrames") or 1)
    if frames != 1:
        raise PixelError(
            f"{named(instance)} has {frames} frames (NumberOfFrames): "
            "only single-frame images are read; send the single-frame Series"
        )
    _check_sizes(instance)


def _plugin(instance: Instance) -> str:
    syntax = UID(instance.transfer_syntax_uid)
    if syntax not in _PLUGINS:
        raise PixelError(
            f"{named(instance)} is encoded as {syntax.name} ({syntax}), which is not decoded: "
            "have the sender use Explicit VR Little Endian"
        )
    return _PLUGINS[syntax]


def _check_grey(instance: Instance) -> None:
    header = instance.header
    photometric = str(header.get("PhotometricInterpretation", "") or "none")
    samples = number(instance, "SamplesPerPixel")
    if samples != 1 or photometric not in ("MONOCHROME1", "MONOCHROME2"):
        raise PixelError(
            f"{named(instance)} has SamplesPerPixel {samples} and PhotometricInterpretation "
            f"{photometric}: only grey images (MONOCHROME1, MONOCHROME2) are read"
        )


def _check_sizes(instance: Instance) -> None:
    rows, columns = number(instance, "Rows"), number(instance, "Columns")
    allocated, stored = number(instance, "BitsAllocated"), number(instance, "BitsStored")
    if rows < 1 or columns < 1:
        raise PixelError(f"{named(instance)} has Rows {rows} and Columns {columns}: no image")
    if allocated not in (8, 16, 32) or not 1 <= stored <= allocated:
        raise PixelError(
            f"{named(instance)} has BitsAllocated {allocated} and BitsStored {stored}: "
            "8, 16 or 32 allocated and no more stored than allocated are read"
        )
    high = number(instance, "HighBit")
    if high != stored - 1:
        raise PixelError(
            f"{named(instance)} has HighBit {high} with BitsStored {stored}: HighBit is one less "
            "than BitsStored (PS3.5 8.1.1); correct it at its source"
        )
    if number(instance, "PixelRepresentation") not in (0, 1):
        raise PixelError(f"{named(instance)} has a PixelRepresentation other than 0 and 1")
    if rows * columns * (allocated // 8) > PIXEL_LIMIT:
        raise PixelError(
            f"{named(instance)} has {rows} Rows of {columns} Columns, more than the limit of "
            f"{PIXEL_LIMIT} bytes: send it at its usual size"
        )


def _read(instance: Instance) -> Dataset:
    try:
        dataset = pydicom.dcmread(Path(instance.path))
    except (InvalidDicomError, OSError, EOFError, ValueError) as error:
        raise PixelError(
            f"{named(instance)} cannot be read from the spool ({type(error).__name__}): "
            "send it again"
        ) from error
    if "PixelData" not in dataset or not dataset.PixelData:
        raise PixelError(f"{named(instance)} has no PixelData: send it with its image")
    return dataset


def _native(instance: Instance, dataset: Dataset) -> NDArray[Any]:
    """Read native pixels: exactly as many bytes as the header says, and one to make them even."""
    rows, columns = number(instance, "Rows"), number(instance, "Columns")
    wanted = rows * columns * (number(instance, "BitsAllocated") // 8)
    length = len(dataset.PixelData)
    if length not in (wanted, wanted + wanted % 2):
        raise PixelError(
            f"{named(instance)} has {length} bytes of PixelData where Rows, Columns and "
            f"BitsAllocated say {wanted}: send it again from its source"
        )
    values = _decoded(instance, dataset, plugin="")
    return _without_unused_bits(instance, values)


def _without_unused_bits(instance: Instance, values: NDArray[Any]) -> NDArray[Any]:
    """Return values of BitsStored bits; what stands above them must be nothing, sign or overlay."""
    stored = number(instance, "BitsStored")
    spare = number(instance, "BitsAllocated") - stored
    if spare == 0:
        return values
    # Shifting up and down again drops the unused bits and, for signed values, extends the sign.
    kept: NDArray[Any] = np.right_shift(np.left_shift(values, spare), spare)
    if np.array_equal(kept, values) or _has_embedded_overlay(instance.header):
        return kept
    raise PixelError(
        f"{named(instance)} has values of more than its BitsStored {stored} bits: "
        "correct BitsStored at its source"
    )


def _has_embedded_overlay(header: Dataset) -> bool:
    """Tell whether an overlay lies in the unused bits (OverlayBitPosition, retired)."""
    return any(
        header.get((group, 0x0102)) is not None and header[group, 0x0102].value != 0
        for group in range(0x6000, 0x6020, 2)
    )


def _encapsulated(instance: Instance, dataset: Dataset) -> NDArray[Any]:
    syntax = UID(instance.transfer_syntax_uid)
    if syntax in (JPEGBaseline8Bit, JPEG2000, JPEG2000Lossless):
        _check_codestream(instance, dataset)
    if syntax == JPEGBaseline8Bit and number(instance, "BitsAllocated") != 8:
        raise PixelError(
            f"{named(instance)} is JPEG Baseline with BitsAllocated other than 8: "
            "send it without compression"
        )
    values = _decoded(instance, dataset, plugin=_PLUGINS[syntax])
    return _without_unused_bits(instance, values) if syntax == RLELossless else values


def _check_codestream(instance: Instance, dataset: Dataset) -> None:
    """Compare the size that the compressed frame states with the header's, before decoding it."""
    try:
        frame = next(iter(generate_frames(dataset.PixelData, number_of_frames=1)))
        if UID(instance.transfer_syntax_uid) == JPEGBaseline8Bit:
            with PIL.Image.open(io.BytesIO(frame), formats=["JPEG"]) as image:
                columns, rows = image.size
        else:
            stated = get_parameters(frame)
            columns, rows = int(stated["columns"]), int(stated["rows"])
    except (*_DECODER_ERRORS, StopIteration, PIL.Image.DecompressionBombError) as error:
        raise _undecodable(instance, error) from error
    if (rows, columns) != (number(instance, "Rows"), number(instance, "Columns")):
        raise PixelError(
            f"{named(instance)} has a compressed frame of {rows} rows and {columns} columns, "
            "which its Rows and Columns contradict: send it again from its source"
        )


def _decoded(instance: Instance, dataset: Dataset, *, plugin: str) -> NDArray[Any]:
    try:
        decoder = get_decoder(UID(instance.transfer_syntax_uid))
        values, _ = decoder.as_array(dataset, raw=True, decoding_plugin=plugin, **_KEEP_BITS)
    except _DECODER_ERRORS as error:
        raise _undecodable(instance, error) from error
    return values


def _undecodable(instance: Instance, error: BaseException) -> PixelError:
    # The decoder's own text may quote the data set; only its type is told.
    return PixelError(
        f"{named(instance)} has PixelData that cannot be decoded as "
        f"{UID(instance.transfer_syntax_uid).name} ({type(error).__name__}): send it again"
    )
