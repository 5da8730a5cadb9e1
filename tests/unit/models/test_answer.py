"""What a model answered is read strictly: a number that no float holds is refused by name."""

from __future__ import annotations

import pytest

from pacs_ai.errors import InferenceError
from pacs_ai.models import answer

HUGE = 10**400


@pytest.mark.parametrize(
    "text", [f"[{HUGE}]", f"[-{HUGE}]", "[1e400]", '{"shape": [' + "9" * 310 + "]}"]
)
def test_a_number_too_large_for_a_float_is_not_the_json_it_should_be(text: str) -> None:
    with pytest.raises(InferenceError, match="a box is not the JSON it should be"):
        answer.parse(text, what="a box")


@pytest.mark.parametrize("one", [HUGE, -HUGE, float("nan"), float("inf"), True, "1"])
def test_numbers_are_finite_or_refused(one: object) -> None:
    with pytest.raises(InferenceError, match="not a finite number"):
        answer.numbers([0.5, one], length=2, what="a box")


def test_whole_numbers_stay_whole() -> None:
    assert answer.parse("[1, 2.5, -3]", what="a box") == [1, 2.5, -3]
    assert answer.numbers([1, 2.5, -3], length=3, what="a box") == [1.0, 2.5, -3.0]


def test_a_shape_of_huge_sizes_is_refused_by_name() -> None:
    sizes = ", ".join(["1" + "0" * 4000] * 4)
    value = f'{{"data": "", "shape": [{sizes}], "dtype": "uint8"}}'
    with pytest.raises(InferenceError, match="masks is not the JSON it should be"):
        answer.array(value, dimensions=4, what="masks")
