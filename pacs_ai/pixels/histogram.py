"""How often each value is there, over any number of frames: percentiles in eight megabytes."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

_SHIFT = 12
"""Bits that the bins leave out of a 32-bit float: a bin is a 2048th of its value wide."""


class Histogram:
    """Values of frames that are gone through one by one.

    Attributes
    ----------
    least, most : float
        Of all values, exactly; infinite while there is none.
    """

    def __init__(self) -> None:
        self.least, self.most = math.inf, -math.inf
        self._counts = np.zeros(1 << (32 - _SHIFT), np.int64)

    @property
    def empty(self) -> bool:
        """Whether it has no value yet."""
        return not math.isfinite(self.least)

    def add(self, values: NDArray[np.float32], weights: NDArray[np.int64] | int = 1) -> None:
        """Count values, each as often as its weight says."""
        if values.size:
            self.least = min(self.least, float(values.min()))
            self.most = max(self.most, float(values.max()))
            np.add.at(self._counts, _keys(values), weights)

    def range(self, low: float, high: float) -> tuple[float, float]:
        """Return two percentiles, or the least and the most value where those two are one.

        Whole numbers up to 2048 are exact, all others to a 2048th.
        """
        ranks = np.array((low, high)) / 100 * (self._counts.sum() - 1)
        bins = np.searchsorted(np.cumsum(self._counts), ranks, side="right")
        lower, upper = np.clip(_from_keys(bins), self.least, self.most)
        return (float(lower), float(upper)) if lower < upper else (self.least, self.most)


def _keys(values: NDArray[np.float32]) -> NDArray[np.int64]:
    """Return bins that grow with the value: the float's own bits, the sign turned round."""
    bits = values.astype(np.float32).view(np.uint32)
    ordered = np.where(bits >> 31, ~bits, bits | np.uint32(1 << 31))
    return (ordered >> np.uint32(_SHIFT)).astype(np.int64)


def _from_keys(keys: NDArray[np.int64]) -> NDArray[np.float32]:
    ordered = (keys.astype(np.uint32) << np.uint32(_SHIFT)).astype(np.uint32)
    bits = np.where(ordered >> 31, ordered & np.uint32((1 << 31) - 1), ~ordered)
    return bits.astype(np.uint32).view(np.float32)
