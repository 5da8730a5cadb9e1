"""Stored Instances to stored values, frame by frame, decoded in a child process.

What is decoded is the table :data:`~pacs_ai.pixels.description.CODECS`; everything else is refused
by its name. Headers are checked here, before the child is asked.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from typing import Any

from numpy.typing import NDArray

from pacs_ai.errors import PixelError
from pacs_ai.pixels.decoder import DECODER, LostError
from pacs_ai.pixels.description import Description, describe, named
from pacs_ai.study import Instance


def stored_frames(
    instance: Instance, numbers: Iterable[int] | None = None
) -> Iterator[NDArray[Any]]:
    """Yield frames of an Instance one by one; only one is held at a time.

    Parameters
    ----------
    instance : Instance
    numbers : iterable of int, optional
        Frames, from 0; all of them when left out. Rising numbers are quickest.

    Yields
    ------
    ndarray, shape (Rows, Columns)
        Grey: stored values before the Modality LUT, of an integer type (signed where
        PixelRepresentation says so) or, for Float Pixel Data, a floating one. Native grid.
    ndarray of uint8, shape (Rows, Columns, 3)
        Colour: red, green, blue, whatever PhotometricInterpretation was.

    Raises
    ------
    PixelError
        When the Instance is encoded in a way that is not decoded, larger than the limits, its pixel
        data is not what its header says, or its decoding ran over a limit or crashed.
    """
    description = describe(instance.header, instance.transfer_syntax_uid)
    for number in range(description.frames) if numbers is None else numbers:
        yield _frame(instance, description, number)


def stored_values(instance: Instance) -> NDArray[Any]:
    """Return the stored values of a single-frame grey image (PS3.3 C.7.6.3).

    Returns
    -------
    ndarray, shape (Rows, Columns)
        As :func:`stored_frames`.

    Raises
    ------
    PixelError
        When the Instance is colour or multi-frame, and as :func:`stored_frames`.
    """
    check_header(instance)
    (only,) = stored_frames(instance)
    return only


def check_header(instance: Instance) -> None:
    """Refuse by its header what is not a single-frame grey image, or is not decoded.

    Raises
    ------
    PixelError
        As :func:`stored_values`; nothing is read or allocated.
    """
    description = describe(instance.header, instance.transfer_syntax_uid)
    if description.colour:
        raise PixelError(
            f"{named(instance)} has SamplesPerPixel {description.samples} and "
            f"PhotometricInterpretation {description.photometric}: only grey images (MONOCHROME1, "
            "MONOCHROME2) are read here; select grey images"
        )
    if description.frames != 1:
        raise PixelError(
            f"{named(instance)} has {description.frames} frames (NumberOfFrames): "
            "only single-frame images are read here; send the single-frame Series"
        )


def same_frames(one: Instance, other: Instance) -> bool:
    """Tell whether two Instances decode to the same frames; False where one cannot be decoded."""
    try:
        return _digest(one) == _digest(other)
    except PixelError:
        return False


def _digest(instance: Instance) -> bytes:
    """Return a digest of an Instance's values, whatever the width they are stored in."""
    found = hashlib.sha256()
    for frame in stored_frames(instance):
        found.update(repr(frame.shape).encode())
        found.update(frame.astype("<f8" if frame.dtype.kind == "f" else "<i8").data)
    return found.digest()


def _frame(instance: Instance, description: Description, number: int) -> NDArray[Any]:
    try:
        return DECODER.frame(instance.path, number, description.shape)
    except LostError as error:
        raise PixelError(
            f"{named(instance)} could not be decoded from {description.syntax.name}: its decoder "
            f"{error}. Have the sender use Explicit VR Little Endian"
        ) from error
