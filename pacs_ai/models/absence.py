"""Is the object there? The publisher's check of a mask, and the least size that counts.

The endpoint answers every prompt with a mask and never says that there is nothing (model-contracts §4.7).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from pacs_ai.catalogue import Prompt
from pacs_ai.distributions import Betas, Distributions

CUT_OFF = 0.05
"""Least adjusted p-value of a mask that is believed, as the publisher recommends."""

_INSIDE = 128
"""Least probability × 255 of a pixel that the mask is measured on."""


def found(
    probability: NDArray[np.uint8],
    picture: NDArray[np.uint8],
    prompt: Prompt,
    known: Distributions | None,
) -> bool:
    """Tell whether what was asked for is there, as far as the mask can say it.

    Parameters
    ----------
    probability : ndarray of uint8, shape (rows, columns)
        Probability × 255, on the picture that was sent.
    picture : ndarray of uint8, shape (rows, columns) or (rows, columns, 3)
    prompt : Prompt
    known : Distributions or None
        A target that it does not hold is judged by size alone; who may be asked for without it is
        decided before (:func:`pacs_ai.distributions.refusal`).
    """
    if int((probability >= _INSIDE).sum()) < max(1, prompt.least):
        return False
    betas = None if known is None else known.of(prompt.distribution, prompt.target)
    return betas is None or likelihood(probability, picture, betas) >= CUT_OFF


def likelihood(probability: NDArray[np.uint8], picture: NDArray[np.uint8], betas: Betas) -> float:
    """Return the adjusted p-value of a mask: 0 for an empty one.

    Mean probability and mean red, green and blue under the mask, each over 256, are compared with their
    Beta distributions (one-sample Kolmogorov-Smirnov); the four p-values' product is adjusted to the power
    of 1/4.
    """
    inside = probability >= _INSIDE
    if not inside.any():
        return 0.0
    colours = picture if picture.ndim == 3 else np.stack([picture] * 3, axis=-1)
    means = [
        float(probability[inside].mean()),
        *(float(one) for one in colours[inside].mean(axis=0)),
    ]
    values = [
        float(stats.ks_1samp([mean / 256], stats.beta(a, b).cdf).pvalue)
        for mean, (a, b) in zip(means, betas, strict=True)
    ]
    return float(np.prod(values) ** 0.25)
