"""Where an image lies in the picture that a model sees, and the exact way back.

Two frozen records, each with its inverse: :class:`Turn` (stored columns and rows to the image as
it is displayed: a quarter turn or mirror, no resampling) and :class:`Placement` (the displayed
image to a square of the model's size: centred padding, then resizing).

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
class Turn:
    """How a stored image becomes the displayed one: first transposed, then flipped.

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
    """

    rows: int
    columns: int
    transpose: bool = False
    flip_columns: bool = False
    flip_rows: bool = False

    @property
    def displayed(self) -> tuple[int, int]:
        """Rows and columns of the displayed image."""
        return (self.columns, self.rows) if self.transpose else (self.rows, self.columns)

    def apply(self, image: NDArray[Number]) -> NDArray[Number]:
        """Return a stored image as it is displayed; shape (rows, columns) of each."""
        turned = image.T if self.transpose else image
        return np.ascontiguousarray(turned[self._steps])

    def undo(self, image: NDArray[Number]) -> NDArray[Number]:
        """Return a displayed image, or a mask on it, on the stored grid."""
        turned = image[self._steps]
        return np.ascontiguousarray(turned.T if self.transpose else turned)

    def undo_point(self, x: float, y: float) -> tuple[float, float]:
        """Return a point of the displayed image in stored columns and rows."""
        rows, columns = self.displayed
        x = columns - x if self.flip_columns else x
        y = rows - y if self.flip_rows else y
        return (y, x) if self.transpose else (x, y)

    @property
    def _steps(self) -> tuple[slice, slice]:
        return (
            slice(None, None, -1 if self.flip_rows else 1),
            slice(None, None, -1 if self.flip_columns else 1),
        )


@dataclass(frozen=True, slots=True)
class Placement:
    """An image centred on a black square and resized to the size that a model takes.

    Where the difference of the sides is odd, the extra line of padding is at the bottom or right;
    the offsets are exact, and the way back uses the same ones.

    Attributes
    ----------
    rows, columns : int
        Size of the image.
    size : int
        Side of the square that the model takes.
    """

    rows: int
    columns: int
    size: int

    @property
    def side(self) -> int:
        """Side of the padded square before resizing."""
        return max(self.rows, self.columns)

    @property
    def top(self) -> int:
        """Lines of padding above the image."""
        return (self.side - self.rows) // 2

    @property
    def left(self) -> int:
        """Columns of padding left of the image."""
        return (self.side - self.columns) // 2

    def apply(self, image: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Pad and resize an image.

        Parameters
        ----------
        image : ndarray of uint8, shape (rows, columns)

        Returns
        -------
        ndarray of uint8, shape (size, size)
        """
        self._check(image.shape, (self.rows, self.columns))
        square = np.zeros((self.side, self.side), np.uint8)
        square[self._inside] = image
        return np.asarray(_resized(square, self.size, PIL.Image.Resampling.BICUBIC), np.uint8)

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
        square = _resized(smooth, self.side, PIL.Image.Resampling.BILINEAR)
        return np.ascontiguousarray(np.asarray(square, np.float32)[self._inside])

    def undo_point(self, x: float, y: float) -> tuple[float, float]:
        """Return a point of the model's square in the image's own columns and rows."""
        scale = self.side / self.size
        return x * scale - self.left, y * scale - self.top

    @property
    def _inside(self) -> tuple[slice, slice]:
        return (
            slice(self.top, self.top + self.rows),
            slice(self.left, self.left + self.columns),
        )

    @staticmethod
    def _check(shape: tuple[int, ...], wanted: tuple[int, ...]) -> None:
        if shape != wanted:
            raise ValueError(f"an array of shape {wanted} belongs here, not {shape}")


def _resized(
    square: NDArray[Any], side: int, resampling: PIL.Image.Resampling
) -> PIL.Image.Image | NDArray[Any]:
    if square.shape == (side, side):
        return square
    # Pillow widens its filter when it shrinks an image, so that fine structure does not alias.
    return PIL.Image.fromarray(square).resize((side, side), resampling)
