"""Where an image lies in the picture that a model sees, and the exact way back.

Two frozen records, each with its inverse: :class:`Turn` (stored columns and rows to the image as
it is displayed: a border left out, a quarter turn or mirror, no resampling) and :class:`Placement`
(the displayed image to a square of the model's size: centred padding, then resizing).

Points are sub-pixel image coordinates: 0, 0 is the top left corner of the top left pixel, x runs
along columns (PS3.3 C.18.6.1.1).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
import PIL.Image
from numpy.typing import NDArray

Number = TypeVar("Number", bound=np.generic)


@dataclass(frozen=True, slots=True)
class Cut:
    """How many rows and columns at the edges of a stored image are left out.

    Attributes
    ----------
    top, bottom, left, right : int
        From 0.
    """

    top: int = 0
    bottom: int = 0
    left: int = 0
    right: int = 0

    def inside(self, rows: int, columns: int) -> tuple[slice, slice]:
        """Return the rows and the columns that are left of an image of a size."""
        return slice(self.top, rows - self.bottom), slice(self.left, columns - self.right)

    def towards_square(self, rows: int, columns: int) -> Cut:
        """Return the cut without the lines that an image of a size needs to become square again.

        Who takes the square in the middle then loses no line of the image for one of the border.
        """
        tall = rows - self.top - self.bottom
        wide = columns - self.left - self.right
        return Cut(
            *_without(self.top, self.bottom, wide - tall),
            *_without(self.left, self.right, tall - wide),
        )


WHOLE = Cut()
"""Nothing is left out."""


def _without(before: int, after: int, lines: int) -> tuple[int, int]:
    """Take lines, as far as there are any, from two numbers: half from each, the rest from one."""
    lines = min(max(lines, 0), before + after)
    first = min(before, max(lines // 2, lines - after))
    return before - first, after - (lines - first)


@dataclass(frozen=True, slots=True)
class Turn:
    """How a stored image becomes the displayed one: first cut, then transposed, then flipped.

    Attributes
    ----------
    rows, columns : int
        Size of the stored image.
    transpose : bool
        Rows become columns.
    flip_columns : bool
        After that, left and right change places.
    flip_rows : bool
        After that, top and bottom change places.
    cut : Cut
        What of the stored image is not displayed.
    """

    rows: int
    columns: int
    transpose: bool = False
    flip_columns: bool = False
    flip_rows: bool = False
    cut: Cut = WHOLE

    @property
    def displayed(self) -> tuple[int, int]:
        """Rows and columns of the displayed image."""
        rows = self.rows - self.cut.top - self.cut.bottom
        columns = self.columns - self.cut.left - self.cut.right
        return (columns, rows) if self.transpose else (rows, columns)

    def apply(self, image: NDArray[Number]) -> NDArray[Number]:
        """Return a stored image as it is displayed; shape (rows, columns) of each, or with 3."""
        kept = image[self.cut.inside(self.rows, self.columns)]
        turned = kept.swapaxes(0, 1) if self.transpose else kept
        return np.ascontiguousarray(turned[self._steps])

    def undo(self, image: NDArray[Number]) -> NDArray[Number]:
        """Return a displayed image, or a mask on it, on the stored grid; 0 where it was cut."""
        turned = image[self._steps]
        stored = turned.swapaxes(0, 1) if self.transpose else turned
        if self.cut == WHOLE:
            return np.ascontiguousarray(stored)
        whole = np.zeros((self.rows, self.columns, *image.shape[2:]), image.dtype)
        whole[self.cut.inside(self.rows, self.columns)] = stored
        return whole

    def apply_point(self, x: float, y: float) -> tuple[float, float]:
        """Return a point of the stored columns and rows on the displayed image."""
        rows, columns = self.displayed
        x, y = x - self.cut.left, y - self.cut.top
        x, y = (y, x) if self.transpose else (x, y)
        return (columns - x if self.flip_columns else x, rows - y if self.flip_rows else y)

    def undo_point(self, x: float, y: float) -> tuple[float, float]:
        """Return a point of the displayed image in stored columns and rows."""
        rows, columns = self.displayed
        x = columns - x if self.flip_columns else x
        y = rows - y if self.flip_rows else y
        x, y = (y, x) if self.transpose else (x, y)
        return x + self.cut.left, y + self.cut.top

    @property
    def _steps(self) -> tuple[slice, slice]:
        return (
            slice(None, None, -1 if self.flip_rows else 1),
            slice(None, None, -1 if self.flip_columns else 1),
        )


@dataclass(frozen=True, slots=True)
class Placement:
    """An image centred on a black square and resized to the size that a model takes.

    Pixels that are not square are made square first, by enlarging their short side, so that a
    circle stays a circle. Where the difference of the sides is odd, the extra line of padding is at
    the bottom or right; the offsets are exact, and the way back uses the same ones.

    Attributes
    ----------
    rows, columns : int
        Size of the image.
    size : int
        Side of the square that the model takes.
    aspect : float
        Height of a pixel over its width.
    """

    rows: int
    columns: int
    size: int
    aspect: float = 1.0

    @property
    def tall(self) -> int:
        """Rows of the image once its pixels are square."""
        return max(1, round(self.rows * max(self.aspect, 1.0)))

    @property
    def wide(self) -> int:
        """Columns of the image once its pixels are square."""
        return max(1, round(self.columns / min(self.aspect, 1.0)))

    @property
    def side(self) -> int:
        """Side of the padded square before resizing."""
        return max(self.tall, self.wide)

    @property
    def top(self) -> int:
        """Lines of padding above the image."""
        return (self.side - self.tall) // 2

    @property
    def left(self) -> int:
        """Columns of padding left of the image."""
        return (self.side - self.wide) // 2

    def apply(self, image: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Make pixels square, pad and resize an image.

        Parameters
        ----------
        image : ndarray of uint8, shape (rows, columns) or (rows, columns, 3)

        Returns
        -------
        ndarray of uint8, shape (size, size) or (size, size, 3)
        """
        self._check(image.shape[:2], (self.rows, self.columns))
        square = np.zeros((self.side, self.side, *image.shape[2:]), np.uint8)
        square[self._inside] = _resized(image, self.tall, self.wide, _BICUBIC)
        return np.asarray(_resized(square, self.size, self.size, _BICUBIC), np.uint8)

    def undo(self, probability: NDArray[Any]) -> NDArray[np.float32]:
        """Bring a map on the model's square back to the image's own grid.

        Parameters
        ----------
        probability : ndarray, shape (size, size)
            A smooth map, resampled as it is: threshold what is returned, not what is given.

        Returns
        -------
        ndarray of float32, shape (rows, columns)
        """
        self._check(probability.shape, (self.size, self.size))
        smooth = probability.astype(np.float32)
        square = np.asarray(_resized(smooth, self.side, self.side, _BILINEAR), np.float32)
        inside = np.ascontiguousarray(square[self._inside])
        own = _resized(inside, self.rows, self.columns, _BILINEAR)
        return np.ascontiguousarray(np.asarray(own, np.float32))

    def apply_point(self, x: float, y: float) -> tuple[float, float]:
        """Return a point of the image's own columns and rows on the model's square."""
        scale = self.size / self.side
        return (
            (x * self.wide / self.columns + self.left) * scale,
            (y * self.tall / self.rows + self.top) * scale,
        )

    def undo_point(self, x: float, y: float) -> tuple[float, float]:
        """Return a point of the model's square in the image's own columns and rows."""
        scale = self.side / self.size
        return (
            (x * scale - self.left) * self.columns / self.wide,
            (y * scale - self.top) * self.rows / self.tall,
        )

    @property
    def _inside(self) -> tuple[slice, slice]:
        return (
            slice(self.top, self.top + self.tall),
            slice(self.left, self.left + self.wide),
        )

    @staticmethod
    def _check(shape: tuple[int, ...], wanted: tuple[int, ...]) -> None:
        if shape != wanted:
            raise ValueError(f"an array of shape {wanted} belongs here, not {shape}")


_BICUBIC = PIL.Image.Resampling.BICUBIC
_BILINEAR = PIL.Image.Resampling.BILINEAR


def _resized(
    image: NDArray[Any], rows: int, columns: int, resampling: PIL.Image.Resampling
) -> PIL.Image.Image | NDArray[Any]:
    if image.shape[:2] == (rows, columns):
        return image
    # Pillow widens its filter when it shrinks an image, so that fine structure does not alias.
    return PIL.Image.fromarray(image).resize((columns, rows), resampling)
