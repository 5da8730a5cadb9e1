"""How often each value is there, over any number of frames: percentiles in some tens of megabytes."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

_MOST = 1 << 20
"""Most values that are told apart; 16 bits have 65,536 for each rescale, so only long Series have more."""


class Histogram:
    """Values of frames that are gone through one by one.

    Each 32-bit float is counted by itself. Where that would be more than a million, neighbours share a bin:
    the last bits of all are left out, as few as will do and twelve at most, with which a bin is a 2048th
    of its value wide.

    Attributes
    ----------
    least, most : float
        Of all values, exactly; infinite while there is none.
    """

    def __init__(self) -> None:
        self.least, self.most = math.inf, -math.inf
        self._shift = 0
        self._keys, self._counts = np.zeros(0, np.uint32), np.zeros(0, np.int64)
        self._waiting: list[tuple[NDArray[np.uint32], NDArray[np.int64]]] = []

    @property
    def empty(self) -> bool:
        """Whether it has no value yet."""
        return not math.isfinite(self.least)

    def add(self, values: NDArray[np.float32], weights: NDArray[np.int64] | None = None) -> None:
        """Count values, each once or as often as its weight says."""
        if values.size:
            self.least = min(self.least, float(values.min()))
            self.most = max(self.most, float(values.max()))
            keys = _keys(values) >> np.uint32(self._shift)
            self._waiting.append(_counted(keys) if weights is None else _summed(keys, weights))
            # One by one, each frame would pay for all values before it.
            if sum(len(waiting) for waiting, _ in self._waiting) > _MOST:
                self._gather()

    def range(self, low: float, high: float) -> tuple[float, float]:
        """Return two percentiles, or the least and the most value where those two are one.

        Between two values in proportion, as those of one array. Of bins that values share the lower edge
        counts for the first and the upper one for the second, so that no more is cut off than asked for.
        """
        self._gather()
        lower = self._percentile(low, self._keys << np.uint32(self._shift))
        ends = ((self._keys.astype(np.uint64) + 1) << np.uint64(self._shift)) - 1
        upper = self._percentile(high, ends.astype(np.uint32))
        return (lower, upper) if lower < upper else (self.least, self.most)

    def _percentile(self, share: float, edges: NDArray[np.uint32]) -> float:
        sums = np.cumsum(self._counts)
        rank = share / 100 * float(sums[-1] - 1)
        around = np.searchsorted(sums, (math.floor(rank), math.ceil(rank)), side="right")
        below, above = np.clip(_from_keys(edges[around]).astype(float), self.least, self.most)
        return float(below + (above - below) * (rank - math.floor(rank)))

    def _gather(self) -> None:
        keys, counts = zip((self._keys, self._counts), *self._waiting, strict=True)
        self._waiting.clear()
        self._keys, self._counts = _summed(np.concatenate(keys), np.concatenate(counts))
        while len(self._keys) > _MOST:
            self._shift += 1
            self._keys, self._counts = _summed(self._keys >> np.uint32(1), self._counts)


def _counted(keys: NDArray[np.uint32]) -> tuple[NDArray[np.uint32], NDArray[np.int64]]:
    """Return each key once, in order, with how often it is there; a sort alone is ten times as fast."""
    keys = np.sort(keys)
    first = _first(keys)
    return keys[first], np.diff(first, append=len(keys))


def _summed(
    keys: NDArray[np.uint32], counts: NDArray[np.int64]
) -> tuple[NDArray[np.uint32], NDArray[np.int64]]:
    """Return each key once, in order, with the sum of its counts."""
    order = np.argsort(keys, kind="stable")
    keys = keys[order]
    first = _first(keys)
    return keys[first], np.add.reduceat(counts[order], first)


def _first(keys: NDArray[np.uint32]) -> NDArray[np.int64]:
    """Return where each of sorted keys stands first."""
    return np.flatnonzero(np.append(True, keys[1:] != keys[:-1]))


def _keys(values: NDArray[np.float32]) -> NDArray[np.uint32]:
    """Return numbers that grow with the value: the float's own bits, the sign turned round."""
    bits = values.astype(np.float32).view(np.uint32)
    ordered: NDArray[np.uint32] = np.where(bits >> 31, ~bits, bits | np.uint32(1 << 31))
    return ordered


def _from_keys(keys: NDArray[np.uint32]) -> NDArray[np.float32]:
    bits = np.where(keys >> 31, keys & np.uint32((1 << 31) - 1), ~keys)
    return bits.astype(np.uint32).view(np.float32)
