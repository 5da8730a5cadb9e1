"""The project's own phantoms in the form of every modality, of which pictures may be kept.

Shared images stay where they are: some have no terms for copies, and all are of patients. Each phantom is
stored as its modality stores images (frames, colour, polarity, bits, shape of a pixel), and bears an L at
the patient's left that is no longer one when it is mirrored.
"""

from __future__ import annotations

from collections.abc import Callable
from copy import deepcopy
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
from numpy.typing import NDArray
from pydicom.dataset import Dataset
from pydicom.uid import (
    DigitalMammographyXRayImageStorageForPresentation,
    MRImageStorage,
    NuclearMedicineImageStorage,
    OphthalmicPhotography8BitImageStorage,
    PositronEmissionTomographyImageStorage,
    SecondaryCaptureImageStorage,
    UltrasoundMultiFrameImageStorage,
    VLWholeSlideMicroscopyImageStorage,
    XRayAngiographicImageStorage,
)

from pacs_ai import phantom
from tests.end_to_end.sheets import OPPOSITE
from tests.integration.encoded import plain, saved, to_ybr_full

Pixels = NDArray[Any]


def marked(film: Dataset) -> Dataset:
    """Return a radiograph with an L of lead beside the patient's left shoulder, or above a lateral one."""
    made = deepcopy(film)
    pixels = film.pixel_array.copy()
    high, wide = pixels.shape
    top, left, size = high // 20, wide * 7 // 8, high // 12
    pixels[top : top + size, left : left + size // 5] = 4095
    pixels[top + size * 4 // 5 : top + size, left : left + size * 3 // 5] = 4095
    made.PixelData = pixels.tobytes()
    return made


def stored(film: Dataset, way: str) -> Dataset:
    """Return a radiograph as another system stores it; its header says how."""
    made = deepcopy(film)
    pixels = film.pixel_array
    across, down = film.PatientOrientation
    if way == "mirrored MONOCHROME1":
        # Inverted within the 12 bits, and so is the window.
        pixels = 4095 - pixels[:, ::-1]
        made.PatientOrientation = [OPPOSITE[across], down]
        made.PhotometricInterpretation, made.PresentationLUTShape = "MONOCHROME1", "INVERSE"
        made.WindowCenter = str(4096 - float(film.WindowCenter))
    elif way == "lying":
        # A quarter to the left: a lateral image may be turned, never mirrored.
        pixels = np.rot90(pixels)
        made.PatientOrientation = [down, OPPOSITE[across]]
    elif way == "upside down":
        pixels = pixels[::-1, ::-1]
        made.PatientOrientation = [OPPOSITE[across], OPPOSITE[down]]
    made.Rows, made.Columns = pixels.shape
    made.PixelData = np.ascontiguousarray(pixels).tobytes()
    return made


# ---------------------------------------------------------------------- single images and frames


def _share(film: Dataset, *, rows: int, columns: int) -> NDArray[np.float64]:
    """Return a film, 0 to 1, as large as asked for and without its grain."""
    pixels = PIL.Image.fromarray(film.pixel_array.astype(np.float32))
    resized = pixels.resize((columns, rows), PIL.Image.Resampling.BOX)
    return np.asarray(resized, np.float64) / 4095


def _coloured(share: NDArray[np.float64]) -> Pixels:
    """Return red, green and blue of different curves."""
    curves = (share, share**1.7, 0.2 + 0.6 * share)
    return np.rint(np.stack(curves, axis=-1) * 255).astype(np.uint8)


def _frames(share: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return three frames, the first and last of them shifted up and down."""
    return np.stack([np.roll(share, step, axis=0) for step in (-24, 0, 24)])


def _grey(share: NDArray[np.float64], bits: int) -> Pixels:
    return np.rint(share * ((1 << bits) - 1)).astype(np.uint8 if bits == 8 else np.uint16)


def _mammogram(film: Dataset) -> Dataset:
    share = _share(film, rows=612, columns=478)
    made = plain(_grey(share, 12)[np.newaxis], 12)
    made.WindowCenter, made.WindowWidth = "2048", "4096"
    return made


def _ultrasound(film: Dataset) -> Dataset:
    """Palette colour, three frames."""
    made = plain(_grey(_frames(_share(film, rows=300, columns=400)), 8), 8)
    made.PhotometricInterpretation = "PALETTE COLOR"
    for name, curve in zip(
        ("Red", "Green", "Blue"),
        np.moveaxis(_coloured(np.arange(256) / 255), -1, 0),
        strict=True,
    ):
        setattr(made, f"{name}PaletteColorLookupTableDescriptor", [256, 0, 8])
        setattr(made, f"{name}PaletteColorLookupTableData", curve.tobytes())
    return made


def _slide(film: Dataset) -> Dataset:
    """Red, green and blue by plane, three tiles."""
    pixels = _coloured(_frames(_share(film, rows=256, columns=256)))
    made = plain(pixels, 8, PlanarConfiguration=1)
    made.PixelData = pixels.transpose(0, 3, 1, 2).tobytes()
    return made


def _fundus(film: Dataset) -> Dataset:
    made = plain(_grey(_share(film, rows=384, columns=384), 8)[np.newaxis], 8)
    made.WindowCenter, made.WindowWidth = "128", "256"
    return made


def _photograph(film: Dataset) -> Dataset:
    """Y, Cb and Cr, wider than high."""
    share = _share(film, rows=243, columns=378)
    return plain(to_ybr_full(_coloured(share))[np.newaxis], 8, PhotometricInterpretation="YBR_FULL")


def _angiogram(film: Dataset) -> Dataset:
    """Ten bits, three frames, a window of its own."""
    made = plain(_grey(_frames(_share(film, rows=512, columns=512)), 10), 10)
    made.WindowCenter, made.WindowWidth = "500", "900"
    return made


def _whole_body(film: Dataset) -> Dataset:
    """Four times as high as wide, its pixels twice as wide as high; no window."""
    made = plain(_grey(_share(film, rows=512, columns=128), 16)[np.newaxis], 16)
    made.PixelSpacing = ["1.2", "2.4"]
    return made


IMAGES: dict[str, tuple[str, Callable[[Dataset], Dataset]]] = {
    "MG": (DigitalMammographyXRayImageStorageForPresentation, _mammogram),
    "US": (UltrasoundMultiFrameImageStorage, _ultrasound),
    "SM": (VLWholeSlideMicroscopyImageStorage, _slide),
    "OP": (OphthalmicPhotography8BitImageStorage, _fundus),
    "OT": (SecondaryCaptureImageStorage, _photograph),
    "XA": (XRayAngiographicImageStorage, _angiogram),
    "NM": (NuclearMedicineImageStorage, _whole_body),
}


def image(modality: str, film: Dataset, folder: Path) -> tuple[Path, int]:
    """Write a phantom of a modality; return its file, and the middle frame, 0 where there is one only."""
    uid, make = IMAGES[modality]
    made = make(film)
    made.Modality, made.SOPClassUID = modality, uid
    return saved(made, folder / f"{modality}.dcm"), 2 if made.NumberOfFrames == 3 else 0


# ---------------------------------------------------------------------- volumes


def _as_mr(one: Dataset) -> None:
    one.SOPClassUID = MRImageStorage
    del one.RescaleSlope, one.RescaleIntercept


def _as_pet(one: Dataset) -> None:
    """Each slice has a slope of its own, and air is dark in a narrower range."""
    slope = 2.0 + int(one.InstanceNumber) % 3
    activity = np.clip(one.pixel_array.astype(float), 0, 1500) ** 2 / 100
    one.SOPClassUID = PositronEmissionTomographyImageStorage
    one.RescaleSlope, one.RescaleIntercept = str(slope), "0"
    one.PixelData = np.rint(activity / slope).astype(np.int16).tobytes()


def _as_ct(one: Dataset) -> None:
    """It is one."""


VOLUMES: dict[str, Callable[[Dataset], None]] = {"CT": _as_ct, "MR": _as_mr, "PT": _as_pet}


def volume(modality: str, when: datetime, folder: Path) -> list[Path]:
    """Write a Series of a modality."""
    paths = []
    for one in phantom.thorax_ct(name="sheets", when=when, slices=32, rows=128):
        VOLUMES[modality](one)
        one.Modality = modality
        one.file_meta.MediaStorageSOPClassUID = one.SOPClassUID
        paths.append(path := folder / f"{one.SOPInstanceUID}.dcm")
        one.save_as(path, enforce_file_format=True)
    return paths
