"""The publisher's check of a mask, with distributions that the test makes itself."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import stats

from pacs_ai import catalogue
from pacs_ai.catalogue import Prompt
from pacs_ai.distributions import Betas, Distributions
from pacs_ai.models.absence import CUT_OFF, found, likelihood

# An object of grey 100 whose mask says 230: the mean of each Beta distribution lies there.
OBJECT: Betas = ((90.0, 10.0), (40.0, 60.0), (40.0, 60.0), (40.0, 60.0))


def nodule() -> Prompt:
    return catalogue.find("lung nodule", model="parse2d", modality="CT")


def known(prompt: Prompt) -> Distributions:
    return Distributions({(prompt.distribution, prompt.target): OBJECT}, "d")


def picture(grey: int) -> NDArray[np.uint8]:
    pixels = np.full((64, 64), 10, np.uint8)
    pixels[20:40, 20:40] = grey
    return pixels


def mask(value: int = 230) -> NDArray[np.uint8]:
    probability = np.full((64, 64), 5, np.uint8)
    probability[20:40, 20:40] = value
    return probability


def test_the_true_object_is_believed_and_a_wrong_one_is_not() -> None:
    assert likelihood(mask(), picture(102), OBJECT) > 0.5
    assert likelihood(mask(), picture(200), OBJECT) < CUT_OFF
    assert found(mask(), picture(102), nodule(), known(nodule()))
    assert not found(mask(), picture(200), nodule(), known(nodule()))


def test_a_hesitant_mask_is_not_believed() -> None:
    assert not found(mask(135), picture(200), nodule(), known(nodule()))


def test_the_adjusted_p_is_the_fourth_root_of_the_product() -> None:
    # With one value, the exact p of Kolmogorov and Smirnov is 2 (1 - max(F, 1 - F)).
    def p(x: float, a: float, b: float) -> float:
        share = float(stats.beta(a, b).cdf(x))
        return 2 * (1 - max(share, 1 - share))

    wanted = (p(230 / 256, *OBJECT[0]) * p(120 / 256, *OBJECT[1]) ** 3) ** 0.25
    assert likelihood(mask(), picture(120), OBJECT) == pytest.approx(wanted)


def test_each_colour_is_compared_with_its_own_distribution() -> None:
    colour = np.stack([picture(102), picture(102), picture(102)], axis=-1)
    assert likelihood(mask(), colour, OBJECT) == likelihood(mask(), picture(102), OBJECT)
    colour[..., 2] = picture(200)
    betas = (*OBJECT[:3], (78.0, 22.0))
    assert likelihood(mask(), colour, betas) > 0.5
    assert likelihood(mask(), colour[..., ::-1], betas) < CUT_OFF


def test_a_mask_without_a_pixel_above_one_half_is_nothing() -> None:
    assert likelihood(mask(127), picture(102), OBJECT) == 0
    assert not found(mask(127), picture(102), nodule(), known(nodule()))
    assert not found(mask(127), picture(102), nodule(), None)


def test_a_speck_is_nothing() -> None:
    speck = np.zeros((64, 64), np.uint8)
    least = int(nodule().least)
    speck.reshape(-1)[: least - 1] = 255
    assert not found(speck, picture(102), nodule(), None)
    speck.reshape(-1)[least - 1] = 255
    assert found(speck, picture(102), nodule(), None)


def test_a_target_that_the_file_has_not_is_judged_by_size() -> None:
    liver = catalogue.find("liver", model="parse2d", modality="CT")
    assert found(mask(), picture(200), liver, known(nodule()))
