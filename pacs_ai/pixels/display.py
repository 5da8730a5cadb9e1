"""One frame as a person sees it: eight bits, white is dense, upright.

The path of :data:`~pacs_ai.results.PIXEL_PATH`, in the order of PS3.3 C.11 and PS3.4 N.2. Grey:
stored values, Modality LUT, the window asked for or the VOI LUT or first window of the header (else
what the values say, :mod:`~pacs_ai.pixels.contrast`), inversion of MONOCHROME1 save for CT and PET.
Colour: red, green and blue as decoded. Then what is padding or behind a shutter turns black, and the
image is turned so that the patient stands upright and, on a frontal image, the patient's left is on
the right. An image without PatientOrientation is taken as displayed. A picture for a model can do
without the border of a radiograph (:mod:`~pacs_ai.pixels.border`).
"""

from __future__ import annotations

import math
import struct
import zlib
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset

from pacs_ai.errors import PixelError
from pacs_ai.pixels import contrast, shutter
from pacs_ai.pixels.decode import stored_frames
from pacs_ai.pixels.description import describe, named, number
from pacs_ai.pixels.legible import is_hidden
from pacs_ai.pixels.modality import (
    FrameValues,
    check_hounsfield,
    finite,
    frames,
    inverted,
    looked_up,
    standing,
)
from pacs_ai.pixels.placement import WHOLE, Cut, Turn
from pacs_ai.results import PIXEL_PATH
from pacs_ai.settings import Window
from pacs_ai.study import Instance
from pacs_ai.study import values as values_of

_LONGEST_PIXEL = 20.0
"""Height over width, or width over height, beyond which a pixel's shape is an error."""

_PNG_UP = 2
"""Filter type Up (PNG specification, section 9.2)."""

_FRONTAL = ("LR", "FH")
_LATERAL = ("AP", "FH")


class View(StrEnum):
    """What a projection shows, as far as turning it upright must know."""

    FRONTAL = "frontal"
    LATERAL = "lateral"
    ANY = "any"


@dataclass(frozen=True, slots=True)
class DisplayImage:
    """A frame as it is displayed.

    Attributes
    ----------
    pixels : ndarray of uint8, shape (rows, columns) of the displayed image, or with 3 for colour
        0 is black; dense is white (MONOCHROME2). Colour is red, green, blue.
    turn : Turn
        How the stored grid became this one, for the way back.
    source : str
        SOP Instance UID.
    aspect : float
        Height of a displayed pixel over its width.
    border : Cut
        Stored rows and columns at the edges that show nothing of the patient.
    blank : bool
        Whether all of it is drawn in one value, and shows nothing.
    why_not : str
        Why nothing, or next to nothing, is to be seen on it, and what can be done; else empty.
    recipe : str
        The path that made it.
    """

    pixels: NDArray[np.uint8] = field(repr=False)
    turn: Turn
    source: str
    aspect: float = 1.0
    border: Cut = WHOLE
    blank: bool = False
    why_not: str = ""
    recipe: str = PIXEL_PATH

    def seen(self) -> DisplayImage:
        """Return it, for a model to look at.

        Raises
        ------
        PixelError
            When next to nothing is to be seen on it: *nothing found* would read like an answer.
        """
        if self.why_not:
            raise PixelError(self.why_not)
        return self

    def without_border(self) -> DisplayImage:
        """Return it without its border, for a model that gets a padded square."""
        return self._cut(self.border)

    def towards_square(self) -> DisplayImage:
        """Return it with no more border than makes it square, for a model that takes the middle."""
        return self._cut(self.border.towards_square(self.turn.rows, self.turn.columns))

    def _cut(self, cut: Cut) -> DisplayImage:
        whole = self.turn
        corners = (
            whole.apply_point(cut.left, cut.top),
            whole.apply_point(whole.columns - cut.right, whole.rows - cut.bottom),
        )
        (left, right), (top, bottom) = (
            sorted(map(int, ends)) for ends in zip(*corners, strict=True)
        )
        pixels = np.ascontiguousarray(self.pixels[top:bottom, left:right])
        return replace(self, pixels=pixels, turn=replace(whole, cut=cut))

    def png(self) -> bytes:
        """Return it as a grey PNG: pixels only, nothing of the header."""
        return png(self.pixels)


def png(pixels: NDArray[np.uint8]) -> bytes:
    """Return pixels of shape (rows, columns), or (rows, columns, 3), as a PNG file without any text.

    Written here because it takes most of a slice's time: one filter for all rows (each less the one
    above it) and runs only are 2.5 times as fast as the library's choice row by row, and as small.
    """
    rows, columns = pixels.shape[:2]
    flat = pixels.reshape(rows, -1)
    lines = np.empty((rows, flat.shape[1] + 1), np.uint8)
    lines[:, 0] = _PNG_UP
    lines[0, 1:] = flat[0]
    np.subtract(flat[1:], flat[:-1], out=lines[1:, 1:])
    packer = zlib.compressobj(1, strategy=zlib.Z_RLE)
    data = packer.compress(lines.data) + packer.flush()
    colour = 2 if pixels.ndim == 3 else 0
    header = struct.pack(">IIBBBBB", columns, rows, 8, colour, 0, 0, 0)
    chunks = ((b"IHDR", header), (b"IDAT", data), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))
        for name, body in chunks
    )


def display_image(
    instance: Instance,
    *,
    view: View,
    frame: int | None = None,
    window: Window | None = None,
    common: Window | None = None,
) -> DisplayImage:
    """Return a frame as it is displayed.

    Parameters
    ----------
    instance : Instance
    view : View
        What it is known to show: a frontal image is turned so that the patient's left is on the
        right, a lateral one so that the feet are below.
    frame : int, optional
        From 0; may be left out where there is one only.
    window : Window, optional
        In modality values, of CT in Hounsfield units, in place of the header's own (LINEAR_EXACT, PS3.3
        C.11.2.1.3.2).
    common : Window, optional
        The same where the header has none, in place of what the frame's own values say: that of all
        frames together (:func:`pacs_ai.pixels.contrast.common`).

    Raises
    ------
    PixelError
        When it cannot be decoded, it has several frames and none was named, its polarity is
        contradictory, it has no contrast, a window is asked for and it is CT that is not in Hounsfield
        units, or its PatientOrientation is not one of the view.
    """
    description = describe(instance.header, instance.transfer_syntax_uid)
    if frame is None and description.frames != 1:
        raise PixelError(
            f"{named(instance)} has {description.frames} frames (NumberOfFrames) and none was "
            "chosen: send the single image, or a rule that names a frame"
        )
    chosen = frame or 0
    turn = upright(instance, view=view)
    hidden = shutter.hidden(instance, description.rows, description.columns)
    if description.colour:
        pixels, edges, blank = _colour(instance, chosen, hidden)
        why_not = contrast.one_value(instance) if blank else ""
    else:
        if window is not None:
            check_hounsfield(instance, frame=chosen)
        elif not contrast.is_said(instance, chosen):
            window = common
        pixels, edges, blank, why_not = _grey(instance, chosen, hidden, window)
    shape = aspect(instance, chosen)
    return DisplayImage(
        turn.apply(pixels),
        turn,
        instance.SOPInstanceUID,
        1 / shape if turn.transpose else shape,
        edges,
        blank,
        why_not,
    )


def _colour(
    instance: Instance, index: int, hidden: NDArray[np.bool_]
) -> tuple[NDArray[np.uint8], Cut, bool]:
    """Draw a frame in colour on the stored grid; with its border, and whether it is blank."""
    (pixels,) = stored_frames(instance, [index])
    blank = contrast.is_blank(pixels, ~hidden)
    if hidden.any():
        pixels = np.where(hidden[..., np.newaxis], np.uint8(0), pixels)
    return pixels, WHOLE, blank


def _grey(
    instance: Instance, index: int, hidden: NDArray[np.bool_], window: Window | None
) -> tuple[NDArray[np.uint8], Cut, bool, str]:
    """Draw a frame of a grey image on the stored grid; with its border, whether it is blank, and why.

    Here and below in place: of a radiograph, each further array of its size costs more than its arithmetic.
    """
    dark = inverted(instance)
    (one,) = frames(instance, [index])
    has_say, edges = contrast.picture(instance, one, hidden)
    shown = _voi(instance, one, window, has_say)
    if dark:
        np.subtract(1.0, shown, out=shown)
    shown[one.padding | hidden] = 0.0
    shown *= 255.0
    pixels: NDArray[np.uint8] = np.rint(shown, out=shown).astype(np.uint8)
    if contrast.is_blank(pixels, has_say):
        return pixels, edges, True, _why_blank(instance, one, window, has_say)
    # The window of a prompt may leave little of a slice that does not hold its organ.
    by_header = window is None and contrast.is_said(instance, index)
    if by_header and is_hidden(one.values, pixels, has_say, modality=instance.Modality):
        return pixels, edges, False, contrast.hidden_by_header(instance, index)
    return pixels, edges, False, ""


def _why_blank(
    instance: Instance, one: FrameValues, window: Window | None, has_say: NDArray[np.bool_]
) -> str:
    if contrast.is_blank(one.values, has_say):
        return contrast.one_value(instance)
    if window is None:
        return contrast.hidden_by_header(instance, one.number)
    return contrast.outside(instance, window)


def aspect(instance: Instance, index: int) -> float:
    """Return height over width of a stored pixel; 1 where the header does not say it.

    Raises
    ------
    PixelError
        When what it says gives no shape.
    """
    place = standing(instance, index, "PixelMeasuresSequence")
    for header, keyword in (
        (place, "PixelSpacing"),
        (instance.header, "ImagerPixelSpacing"),
        (instance.header, "NominalScannedPixelSpacing"),
        (instance.header, "PixelAspectRatio"),
    ):
        given = values_of(header, keyword)
        if given:
            break
    else:
        return 1.0
    try:
        height, width = (float(text) for text in given)
        ratio = height / width
    except (ValueError, ZeroDivisionError):
        ratio = math.nan
    if not 1 / _LONGEST_PIXEL <= ratio <= _LONGEST_PIXEL:
        raise PixelError(
            f"{named(instance)} has a {keyword} that gives no shape to its pixels: correct it at its "
            "source"
        )
    return ratio


def upright(instance: Instance, *, view: View) -> Turn:
    """Return the turn that shows a projection upright, from PatientOrientation (PS3.3 C.7.6.1.1.1).

    Raises
    ------
    PixelError
        When PatientOrientation is there and does not belong to the view.
    """
    rows, columns = number(instance, "Rows"), number(instance, "Columns")
    directions = [str(one)[:1] for one in _values(instance.header, "PatientOrientation")]
    if view is View.ANY or not any(directions):
        return Turn(rows, columns)
    across, down = (_FRONTAL, _LATERAL)[view is View.LATERAL]
    if len(directions) == 2 and directions[0] in tuple(down) and directions[1] in tuple(across):
        transpose = True
        directions.reverse()
    elif len(directions) == 2 and directions[0] in tuple(across) and directions[1] in tuple(down):
        transpose = False
    else:
        raise PixelError(
            f"{named(instance)} is taken as a {view} image, which its PatientOrientation "
            "contradicts: correct PatientOrientation or the view (ViewPosition)"
        )
    flip_rows = directions[1] == "H"
    # A frontal image has one right way round. A lateral one has two: it is turned, never mirrored.
    flip_columns = directions[0] == "R" if view is View.FRONTAL else transpose != flip_rows
    return Turn(rows, columns, transpose, flip_columns, flip_rows)


def _voi(
    instance: Instance, one: FrameValues, window: Window | None, has_say: NDArray[np.bool_]
) -> NDArray[np.float32]:
    """Map values to 0..1 by the window asked for, the header's VOI, or what the values say."""
    values = one.values
    if window is not None:
        return _ramp(values, window.level - window.width / 2, window.level + window.width / 2)
    if not contrast.is_said(instance, one.number):
        return _ramp(values, *contrast.own(instance, values[has_say]))
    header = standing(instance, one.number, "FrameVOILUTSequence")
    if header.get("VOILUTSequence"):
        item = header.VOILUTSequence[0]
        found, full = looked_up(instance, item, np.rint(values).astype(np.int64))
        return found / np.float32(full)
    return _windowed(instance, header, values)


def _windowed(
    instance: Instance, header: Dataset, values: NDArray[np.float32]
) -> NDArray[np.float32]:
    """Apply the first window of the header or of a frame (PS3.3 C.11.2.1.2 and C.11.2.1.3)."""
    center = finite(instance, "WindowCenter", default=0.0, within=header)
    width = finite(instance, "WindowWidth", default=0.0, within=header)
    function = str(header.get("VOILUTFunction", "") or "LINEAR")
    windows: dict[str, Callable[[], NDArray[np.float32]]] = {
        "LINEAR": lambda: _ramp(
            values, center - 0.5 - (width - 1) / 2, center - 0.5 + (width - 1) / 2
        ),
        "LINEAR_EXACT": lambda: _ramp(values, center - width / 2, center + width / 2),
        "SIGMOID": lambda: _sigmoid(values, center, width),
    }
    if function not in windows:
        raise PixelError(
            f"{named(instance)} has a VOILUTFunction unknown to PS3.3 C.11.2.1.3: correct it at its source"
        )
    if width < 1 if function == "LINEAR" else width <= 0:
        raise PixelError(
            f"{named(instance)} has a WindowWidth that PS3.3 C.11.2.1.2 does not allow: "
            "correct it at its source"
        )
    return windows[function]()


def _ramp(values: NDArray[np.float32], low: float, high: float) -> NDArray[np.float32]:
    if low == high:
        # A window of width 1 is a step (PS3.3 C.11.2.1.2.1).
        return (values > low).astype(np.float32)
    ramp: NDArray[np.float32] = np.subtract(values, low, dtype=np.float32)
    ramp /= high - low
    return np.clip(ramp, 0, 1, out=ramp)


def _sigmoid(values: NDArray[np.float32], center: float, width: float) -> NDArray[np.float32]:
    exponent = np.clip(-4.0 * (values - center) / width, -80, 80)
    curve: NDArray[np.float32] = (1.0 / (1.0 + np.exp(exponent))).astype(np.float32)
    return curve


def _values(header: Dataset, keyword: str) -> list[Any]:
    value = header.get(keyword)
    if value is None or value == "":
        return []
    return list(value) if not isinstance(value, str) and hasattr(value, "__iter__") else [value]
