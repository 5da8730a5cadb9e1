"""Drawing for a results page: text in lines, pictures with thin outlines that hide nothing."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable, Iterator
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont
from scipy import ndimage

from pacs_ai.encoding.scenes import Colour, Frame, Scene
from pacs_ai.errors import EncodingError

BACKGROUND: Colour = (16, 19, 23)
PANEL: Colour = (0, 0, 0)
TEXT: Colour = (228, 232, 236)
FAINT: Colour = (150, 160, 170)
AMBER: Colour = (255, 190, 60)
RED: Colour = (205, 44, 44)
BLACK: Colour = (0, 0, 0)
WHITE: Colour = (255, 255, 255)

_FILL = 0.10
"""How much of a mask's colour lies over its inside: the tissue stays readable."""
_LINE = 2
_CAPTION = 24
"""Height of a line of a caption."""


@lru_cache(maxsize=16)
def font(size: int) -> ImageFont.FreeTypeFont:
    """Return Pillow's own font in a size of pixels: the same on every machine."""
    found = ImageFont.load_default(size)
    if not isinstance(found, ImageFont.FreeTypeFont):
        raise EncodingError("Pillow has no FreeType: install a Pillow wheel that has it")
    return found


def plain_text(text: str) -> str:
    """Return text in the letters that the font has: accents folded, the rest as ``?``."""
    folded = unicodedata.normalize("NFKD", text.replace("–", "-").replace("—", "-"))
    kept = (one for one in folded if not unicodedata.combining(one))
    return "".join(one if " " <= one <= "~" else "?" for one in kept)


class Canvas:
    """An RGB picture that grows downwards.

    Parameters
    ----------
    width, height : int
        In pixels.
    """

    def __init__(self, width: int, height: int) -> None:
        self.image = Image.new("RGB", (width, height), BACKGROUND)
        self.draw = ImageDraw.Draw(self.image)

    @property
    def pixels(self) -> NDArray[np.uint8]:
        """The picture; shape (rows, columns, 3)."""
        return np.asarray(self.image, np.uint8)

    def bar(self, top: int, height: int, colour: Colour) -> None:
        """Draw a bar over the whole width."""
        self.draw.rectangle((0, top, self.image.width, top + height - 1), fill=colour)

    def text(self, where: tuple[int, int], text: str, size: int, colour: Colour = TEXT) -> None:
        """Write one line; ``where`` is its left end and its middle."""
        self.draw.text(where, plain_text(text), fill=colour, font=font(size), anchor="lm")

    def text_end(self, where: tuple[int, int], text: str, size: int, colour: Colour) -> None:
        """Write one line; ``where`` is its right end and its middle."""
        self.draw.text(where, plain_text(text), fill=colour, font=font(size), anchor="rm")

    def swatch(self, where: tuple[int, int], colour: Colour) -> None:
        """Draw the small square that a legend puts before a name."""
        x, y = where
        self.draw.rectangle((x, y - 8, x + 16, y + 8), fill=colour)

    def place(self, picture: NDArray[np.uint8], where: tuple[int, int]) -> None:
        """Paste a picture of shape (rows, columns, 3) with its top left corner somewhere."""
        self.image.paste(Image.fromarray(picture), where)

    def outlined(self, where: tuple[int, int], text: str, size: int, anchor: str) -> None:
        """Write letters that stay readable on any image."""
        self.draw.text(
            where,
            text,
            fill=WHITE,
            font=font(size),
            anchor=anchor,
            stroke_width=2,
            stroke_fill=BLACK,
        )

    def scene(self, scene: Scene, box: tuple[int, int, int, int]) -> None:
        """Draw a picture, its letters and its caption into a box (left, top, right, bottom)."""
        left, top, right, bottom = box
        self.draw.rectangle((left, top, right - 1, bottom - 1), fill=PANEL)
        lines = wrapped(scene.caption, right - left - 24, 17)
        room = (right - left, bottom - top - 10 - _CAPTION * len(lines))
        if scene.pixels.size == 0:
            for number, line in enumerate(lines):
                self.text((left + 12, top + 30 + _CAPTION * number), line, 17, AMBER)
            return
        shown, scale = picture(scene, room)
        rows, columns = shown.shape[:2]
        x = left + (room[0] - columns) // 2
        y = top + (room[1] - rows) // 2
        self.place(shown, (x, y))
        for frame in scene.frames:
            self._frame(frame, (x, y), scale)
        self._letters(scene.edges, (left, top, right, top + room[1]))
        for number, line in enumerate(reversed(lines)):
            self.text((left + 12, bottom - 17 - _CAPTION * number), line, 17, FAINT)

    def _letters(self, edges: Iterable[str], box: tuple[int, int, int, int]) -> None:
        left, top, right, bottom = box
        middle, centre = (top + bottom) // 2, (left + right) // 2
        places = (
            ((left + 14, middle), "lm"),
            ((right - 14, middle), "rm"),
            ((centre, top + 10), "mt"),
            ((centre, bottom - 10), "mb"),
        )
        for letters, (where, anchor) in zip(edges, places, strict=True):
            if letters:
                self.outlined(where, letters, 30, anchor)

    def _frame(self, frame: Frame, origin: tuple[int, int], scale: tuple[float, float]) -> None:
        corners = (
            origin[0] + round(frame.left * scale[0]),
            origin[1] + round(frame.top * scale[1]),
            origin[0] + round(frame.right * scale[0]),
            origin[1] + round(frame.bottom * scale[1]),
        )
        around = (corners[0] - 1, corners[1] - 1, corners[2] + 1, corners[3] + 1)
        self.draw.rectangle(around, outline=BLACK, width=_LINE + 2)
        self.draw.rectangle(corners, outline=frame.colour, width=_LINE)
        size = 24
        wide = int(font(size).getlength(frame.tag)) + 14
        x, y = corners[0], max(corners[1] - 32, origin[1])
        self.draw.rectangle((x, y, x + wide, y + 30), fill=frame.colour)
        self.draw.text((x + wide // 2, y + 15), frame.tag, fill=BLACK, font=font(size), anchor="mm")


def wrapped(text: str, width: int, size: int) -> list[str]:
    """Return text in lines that fit a width in pixels, each as long as it can be."""
    lines, line = [], ""
    for word in plain_text(text).split():
        for piece in _pieces(word, width, size):
            longer = f"{line} {piece}" if line else piece
            if line and font(size).getlength(longer) > width:
                lines.append(line)
                longer = piece
            line = longer
    return [*lines, line]


def _pieces(word: str, width: int, size: int) -> Iterator[str]:
    """Yield a word in parts that fit a width: a UID may be longer than a line."""
    piece = ""
    for letter in word:
        if piece and font(size).getlength(piece + letter) > width:
            yield piece
            piece = ""
        piece += letter
    yield piece


def picture(scene: Scene, room: tuple[int, int]) -> tuple[NDArray[np.uint8], tuple[float, float]]:
    """Return a scene in colour, as large as the room allows at its true proportions.

    Parameters
    ----------
    scene : Scene
    room : tuple of int
        Width and height in pixels.

    Returns
    -------
    ndarray of uint8, shape (rows, columns, 3)
    tuple of float
        Pixels of the page for one column and one row of the scene.
    """
    rows, columns = scene.pixels.shape[:2]
    scale = min(room[0] / columns, room[1] / (rows * scene.aspect))
    size = (max(1, round(columns * scale)), max(1, round(rows * scene.aspect * scale)))
    whole = Image.fromarray(scene.pixels).convert("RGB").resize(size, Image.Resampling.LANCZOS)
    shown = np.array(whole, np.float32)
    for mask, colour in scene.masks:
        _overlay(shown, mask, colour)
    return np.rint(shown).astype(np.uint8), (size[0] / columns, size[1] / rows)


def _overlay(shown: NDArray[np.float32], mask: NDArray[np.bool_], colour: Colour) -> None:
    """Draw a mask's outline, and a breath of its colour inside, into a picture in place."""
    if not mask.any():
        return
    size = (shown.shape[1], shown.shape[0])
    soft = Image.fromarray(np.where(mask, 255, 0).astype(np.uint8))
    inside = np.asarray(soft.resize(size, Image.Resampling.BILINEAR)) > 127
    edge = inside & ~ndimage.binary_erosion(inside, iterations=_LINE, border_value=0)
    tint = np.array(colour, np.float32)
    shown[inside] += (tint - shown[inside]) * _FILL
    shown[edge] = tint
