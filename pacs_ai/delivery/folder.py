"""Results into a folder: DICOM files by Study, and a PNG beside each capture.

A name is complete or absent: bytes go to a temporary file first and are on disk before it is
renamed.
"""

from __future__ import annotations

import filecmp
import os
import shutil
import tempfile
from collections.abc import Callable
from io import BytesIO
from pathlib import Path
from typing import BinaryIO

from PIL import Image
from pydicom import dcmread
from pydicom.config import IGNORE
from pydicom.uid import UID

from pacs_ai.delivery import Answer, Outgoing, Receipt
from pacs_ai.errors import DeliveryError
from pacs_ai.naming import sync_folder
from pacs_ai.settings import FolderDestination
from pacs_ai.uids import digest


def send(batch: tuple[Outgoing, ...], destination: FolderDestination) -> tuple[Receipt, ...]:
    """Put a batch into a folder; never raises for what the disk does.

    Parameters
    ----------
    batch : tuple of Outgoing
        Files at rest.
    destination : FolderDestination

    Returns
    -------
    tuple of Receipt
        One for each Instance, in order. The same bytes again are *stored*; other bytes under a name
        that is taken are *refused*; a folder that cannot be written is *later*.
    """
    return tuple(_put(one, destination.path) for one in batch)


def file_name(one: Outgoing) -> Path:
    """Return where an Instance goes below the folder: Study Instance UID, then kind and a digest.

    Raises
    ------
    DeliveryError
        When the Study Instance UID is not a UID, or the kind not a plain word.
    """
    if (
        not UID(one.StudyInstanceUID, validation_mode=IGNORE).is_valid
        or not one.kind.isidentifier()
    ):
        raise DeliveryError("StudyInstanceUID or kind cannot be part of a path")
    return Path(one.StudyInstanceUID) / f"{one.kind}-{digest(one.SOPInstanceUID)[:12]}.dcm"


def _put(one: Outgoing, root: Path) -> Receipt:
    try:
        target = root / file_name(one)
    except DeliveryError as error:
        return Receipt(one.SOPInstanceUID, Answer.REFUSED, detail=str(error))
    if not one.path.is_file():
        detail = "its stored file is missing: look at the spool"
        return Receipt(one.SOPInstanceUID, Answer.REFUSED, detail=detail)
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        if not target.exists():
            _write(target, lambda stream: _copy(one.path, stream))
        elif not filecmp.cmp(one.path, target, shallow=False):
            detail = f"{target.name} is there with other bytes: move it away, then resume"
            return Receipt(one.SOPInstanceUID, Answer.REFUSED, detail=detail)
        detail = _picture(one, target) if one.kind == "capture" else ""
    except OSError as error:
        detail = f"the folder cannot be written ({error.strerror}): check it and its disk"
        return Receipt(one.SOPInstanceUID, Answer.LATER, detail=detail)
    return Receipt(one.SOPInstanceUID, Answer.STORED, detail=detail)


def _picture(one: Outgoing, target: Path) -> str:
    """Put a PNG of a capture beside it; return a remark when its pixels are not native RGB."""
    picture = target.with_suffix(".png")
    if picture.exists():
        return ""
    capture = dcmread(one.path)
    if capture.get("PhotometricInterpretation") != "RGB" or capture.get("BitsAllocated") != 8:
        return "stored; no PNG beside it, because its pixels are not 8-bit RGB"
    encoded = BytesIO()
    Image.fromarray(capture.pixel_array).save(encoded, format="PNG")
    _write(picture, lambda stream: stream.write(encoded.getvalue()))
    return ""


def _copy(source: Path, stream: BinaryIO) -> None:
    with source.open("rb") as original:
        shutil.copyfileobj(original, stream)


def _write(target: Path, fill: Callable[[BinaryIO], object]) -> None:
    handle, name = tempfile.mkstemp(dir=target.parent, prefix=f".{target.stem}-", suffix=".part")
    temporary = Path(name)
    try:
        with os.fdopen(handle, "wb") as stream:
            fill(stream)
            stream.flush()
            os.fsync(stream.fileno())
        # A new temporary file is private; what a folder destination gets is for its readers.
        temporary.chmod(0o640)
        temporary.replace(target)
    finally:
        temporary.unlink(missing_ok=True)
    for left_over in target.parent.glob(f".{target.stem}-*.part"):
        # Of a killed attempt; one that still runs fails, and finds its bytes here the next time.
        left_over.unlink(missing_ok=True)
    sync_folder(target.parent)
