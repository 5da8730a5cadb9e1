"""Contact sheets: a source as its header says it is displayed, what the model saw of it, what came back.

The first picture never goes through the gateway's own pixel path: GDCM unpacks, DCMTK applies the
modality's scale, the window and the polarity, and the turn upright is found here by trying all eight
ways and following the letters. What the model saw is what came over HTTP.

A row is right when what is seen fits its source better than any mirrored, turned, inverted or shifted
picture of it does: then each of these faults, and a shift of two pixels, is one that is found.
"""

from __future__ import annotations

import importlib
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import PIL.ImageDraw
from numpy.typing import NDArray
from pydicom import dcmread
from pydicom.dataset import Dataset
from pydicom.uid import JPEG2000TransferSyntaxes
from scipy import ndimage

from tests.peers import require

Picture = NDArray[np.uint8]
Mask = NDArray[np.bool_]

STEPS = (-2, -1, 1, 2)
"""Pixels by which a picture is shifted to see whether it fits better there."""

WRONG = {"what the model saw": 1.0, "what came back": 0.01}
"""Mean difference, in grey levels or pixels, from which on it is another picture or mask."""

PANEL = 320
"""Height of a picture on the sheet."""

OPPOSITE = {"L": "R", "R": "L", "A": "P", "P": "A", "F": "H", "H": "F"}


@dataclass(frozen=True)
class Row:
    """One source on a sheet.

    Attributes
    ----------
    name : str
        What stands below it.
    source : ndarray of uint8, shape (rows, columns) or with 3 for colour
        As the header says it is displayed.
    expected, seen : ndarray of uint8
        The same where and as large as the model should get it, and what it got.
    truth, back : ndarray of bool, shape (rows, columns) of the source as displayed, or None
        Where the mask or box must lie, and where it came back; None of what is only sent, a lateral.
    beside : tuple of (str, ndarray of uint8, ndarray of bool)
        Other slices: name, picture and mask, none of which the row may look like.
    """

    name: str
    source: Picture = field(repr=False)
    expected: Picture = field(repr=False)
    seen: Picture = field(repr=False)
    truth: Mask | None = field(repr=False)
    back: Mask | None = field(repr=False)
    beside: tuple[tuple[str, Picture, Mask], ...] = field(default=(), repr=False)


# ---------------------------------------------------------------------- the source, by others


@cache
def displayed(path: Path, scratch: Path, *, wanted: str = "", frame: int = 1) -> Picture:
    """Return a frame of a source as its header says it is displayed, upright for a projection.

    Parameters
    ----------
    path : Path
    scratch : Path
        A folder for what the tools write.
    wanted : str
        Plane of a projection, ``frontal`` or ``lateral``; empty leaves the image as it is stored.
    frame : int
        From 1.
    """
    header = dcmread(path, stop_before_pixels=True)
    picture = by_dcmtk(path, scratch, header, frame=frame)
    return upright(picture, header, wanted=wanted)


def by_dcmtk(path: Path, scratch: Path, header: Dataset, *, frame: int) -> Picture:
    """Return what DCMTK shows with the header's first window, or with the 1st to 99th percentile."""
    out = scratch / f"{path.stem}.png"
    if header.file_meta.TransferSyntaxUID in JPEG2000TransferSyntaxes:
        path = _unpacked_by_gdcm(path, scratch / f"{path.stem}-plain.dcm")
    windowed = header.get("WindowWidth") is not None
    grey = header.SamplesPerPixel == 1 and header.PhotometricInterpretation != "PALETTE COLOR"
    way = ["+on"] if windowed or not grey else ["+Wm", "+on2"]
    if windowed and grey:
        way.append("+Wi")
        way.append("1")
    command = [str(require("dcmj2pnm")), "-O", "+F", str(frame), *way, str(path), str(out)]
    subprocess.run(command, check=True, capture_output=True, timeout=60)
    with PIL.Image.open(out) as opened:
        if windowed or not grey:
            return np.asarray(opened.convert("L" if grey else "RGB"))
        deep = np.asarray(opened).astype(np.float64)
    low, high = np.percentile(deep, (1, 99))
    return np.rint(np.clip((deep - low) / (high - low), 0, 1) * 255).astype(np.uint8)


def _unpacked_by_gdcm(path: Path, out: Path) -> Path:
    """Write JPEG 2000, which DCMTK does not read, as plain little endian."""
    if sys.modules.get("gdcm") is None:
        sys.modules.pop("gdcm", None)  # the command line keeps it out of our own processes
    gdcm: Any = importlib.import_module("gdcm")
    reader = gdcm.ImageReader()
    reader.SetFileName(str(path))
    assert reader.Read()
    change = gdcm.ImageChangeTransferSyntax()
    change.SetTransferSyntax(gdcm.TransferSyntax(gdcm.TransferSyntax.ExplicitVRLittleEndian))
    change.SetInput(reader.GetImage())
    assert change.Change()
    writer = gdcm.ImageWriter()
    writer.SetFileName(str(out))
    writer.SetFile(reader.GetFile())
    writer.SetImage(change.GetOutput())
    assert writer.Write()
    return out


def upright(picture: NDArray[Any], header: Dataset, *, wanted: str) -> NDArray[Any]:
    """Turn a stored picture or mask as its PatientOrientation asks for a projection.

    A frontal image ends with the patient's left on the right; a lateral one is only turned.
    """
    given = header.get("PatientOrientation")
    if not wanted or not given:
        return picture
    across, down = (str(one)[0] for one in given)
    for mirrored in (False, True):
        turned, right, below = picture, across, down
        if mirrored:
            turned, right = turned[:, ::-1], OPPOSITE[right]
        for _ in range(4):
            if below == "F" and (right == "L" if wanted == "frontal" else not mirrored):
                return turned
            # A quarter to the left: what was below is now right, what was left is now below.
            turned, right, below = np.rot90(turned), below, OPPOSITE[right]
    raise AssertionError("the header does not say which way is up")


# ---------------------------------------------------------------------- where it should be


def square(picture: Picture, size: int, *, high: float = 1.0) -> Picture:
    """Return a picture in the middle of a black square of a size, its pixels made square before.

    ``high`` is the height of a pixel over its width; what is too short is enlarged, never the other
    shrunk.
    """
    image = PIL.Image.fromarray(picture)
    rows, columns = picture.shape[:2]
    rows, columns = round(rows * max(high, 1)), round(columns * max(1 / high, 1))
    if high != 1:
        image = image.resize((columns, rows), PIL.Image.Resampling.BICUBIC)
    down, across = (max(rows, columns) - one for one in (rows, columns))
    margins = [(down // 2, down - down // 2), (across // 2, across - across // 2), (0, 0)]
    padded = PIL.Image.fromarray(np.pad(np.asarray(image), margins[: picture.ndim]))
    return np.asarray(padded.resize((size, size), PIL.Image.Resampling.BICUBIC))


def pixel_height(path: Path) -> float:
    """Return the height of a pixel over its width, as the header says it of a picture."""
    header = dcmread(path, stop_before_pixels=True)
    for keyword in ("PixelSpacing", "ImagerPixelSpacing", "PixelAspectRatio"):
        if header.get(keyword):
            down, across = header[keyword].value
            return float(down) / float(across)
    return 1.0


def grey_of(picture: Picture) -> NDArray[np.float32]:
    """Return one number for each pixel."""
    values = picture.astype(np.float32)
    return values if values.ndim == 2 else values.mean(axis=2)


def smooth(picture: Picture, sigma: float | tuple[float, float]) -> NDArray[np.float32]:
    """Return a picture without its fine grain, black around it."""
    blurred: NDArray[np.float32] = ndimage.gaussian_filter(
        grey_of(picture), sigma, mode="constant", truncate=3
    )
    return blurred


def box_mask(shape: Sequence[int], box: Sequence[float]) -> Mask:
    """Return the pixels whose middle lies in a box of left, top, right, bottom."""
    left, top, right, bottom = box
    down, across = np.ogrid[: shape[0], : shape[1]]
    inside: Mask = (
        (across + 0.5 > left) & (across + 0.5 < right) & (down + 0.5 > top) & (down + 0.5 < bottom)
    )
    return inside


# ---------------------------------------------------------------------- what would be wrong


def other_ways(image: NDArray[Any]) -> Iterator[tuple[str, NDArray[Any]]]:
    """Yield an image as each fault would lay it."""
    yield "mirrored", image[:, ::-1]
    yield "upside down", image[::-1]
    yield "turned by 180 degrees", image[::-1, ::-1]
    if image.shape[0] == image.shape[1]:
        yield "transposed", image.swapaxes(0, 1)
        yield "turned by 90 degrees", np.rot90(image)
    for axis, name in ((0, "down"), (1, "across")):
        for step in STEPS:
            yield f"shifted {name} by {step}", np.roll(image, step, axis)
    if image.dtype == np.uint8:
        yield "inverted", 255 - image


def faults(row: Row) -> list[str]:
    """Return every other way of laying the source that the row fits as well, or better."""
    found = []
    names = [name for name, _, _ in row.beside]
    pictures, masks = ([one[place] for one in row.beside] for place in (1, 2))
    for what, got, wanted, beside in (
        ("what the model saw", row.seen, row.expected, pictures),
        ("what came back", row.back, row.truth, masks),
    ):
        if got is None or wanted is None:
            if got is not wanted:
                found.append(f"{row.name}: {what} is missing, or nothing was to come")
            continue
        if got.shape != wanted.shape:
            found.append(f"{row.name}: {what} is {got.shape}, not {wanted.shape}")
            continue
        if wanted.min() == wanted.max():
            found.append(f"{row.name}: nothing to compare {what} with")
        apart = distance(got, wanted)
        if apart > WRONG[what]:
            found.append(f"{row.name}: {what} is {apart:.4f} away from its source")
        found += [
            f"{row.name}: {what} looks {name} ({apart:.4f} against {other:.4f})"
            for name, laid in (*other_ways(wanted), *zip(names, beside, strict=True))
            if apart >= (other := distance(got, laid))
        ]
    return found


def distance(one: NDArray[Any], other: NDArray[Any]) -> float:
    """Return the mean difference of two pictures in grey levels, or of two masks in pixels."""
    return float(np.abs(one.astype(np.int16) - other).mean())


def farthest(one: Picture, other: Picture) -> float:
    """Return the mean difference of the parts of two pictures of a size that differ most.

    Parts are squares of 8 pixels: a line that moved by a tenth of a pixel changes the few that it runs
    through, and a whole picture's mean by next to nothing.
    """
    apart = np.abs(one.astype(np.int16) - other).mean(axis=2)
    whole = np.pad(apart, [(0, -length % 8) for length in apart.shape])
    rows, columns = whole.shape
    return float(whole.reshape(rows // 8, 8, columns // 8, 8).mean(axis=(1, 3)).max())


# ---------------------------------------------------------------------- to be looked at


def sheet(rows: Sequence[Row]) -> PIL.Image.Image:
    """Draw rows below each other, each with its name."""
    strips = [strip(row) for row in rows]
    caption = 16
    wide = max(one.width for one in strips)
    image = PIL.Image.new("RGB", (wide, len(rows) * (PANEL + caption)), "black")
    draw = PIL.ImageDraw.Draw(image)
    for number, (row, one) in enumerate(zip(rows, strips, strict=True)):
        top = number * (PANEL + caption)
        image.paste(one, (0, top))
        draw.text((4, top + PANEL + 2), f"{row.name}: source | model | back", fill="white")
    return image


def strip(row: Row, *, high: int = PANEL) -> PIL.Image.Image:
    """Draw the pictures of a row beside each other, each so many pixels high."""
    panels = [_panel(one, high) for one in (row.source, row.seen)]
    if row.back is not None:
        outlined = np.repeat(grey_of(row.source).astype(np.uint8)[..., np.newaxis], 3, axis=2)
        thick = max(1, round(row.source.shape[0] / high))
        edge = row.back & ~ndimage.binary_erosion(row.back, iterations=thick)
        outlined[edge] = (255, 80, 0)
        panels.append(_panel(outlined, high))
    image = PIL.Image.new("RGB", (sum(one.width + 4 for one in panels), high), "navy")
    left = 0
    for panel in panels:
        image.paste(panel, (left, 0))
        left += panel.width + 4
    return image


def _panel(picture: Picture, high: int) -> PIL.Image.Image:
    image = PIL.Image.fromarray(picture).convert("RGB")
    wide = max(1, round(image.width * high / image.height))
    return image.resize((wide, high), PIL.Image.Resampling.BOX)
