"""Embeddings: unit length, the same every time, near for what is alike."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from pacs_ai.reference import descriptors
from pacs_ai.reference.frame import BadInputError
from tests.unit.reference.pictures import png

Pictures = dict[str, NDArray[np.uint8]]


def frame(*rows: list[str | None]) -> dict[str, object]:
    return {"columns": ["image", "text"], "data": [*rows]}


def test_vectors_have_unit_length(frontals: Pictures) -> None:
    for vector in (
        descriptors.embed_image(frontals["normal"]),
        descriptors.embed_image(np.zeros((20, 30), np.uint8)),
        descriptors.embed_text("x-ray chest anteroposterior No Finding"),
        descriptors.embed_text("?"),
    ):
        assert vector.shape == (1024,)
        assert np.linalg.norm(vector) == pytest.approx(1)


def test_similar_pictures_lie_nearer_than_different_ones(frontals: Pictures) -> None:
    picture = frontals["normal"]
    small = np.asarray(Image.fromarray(picture).resize((480, 480)))
    noise = np.random.default_rng(7).integers(0, 256, picture.shape, dtype=np.uint8)
    same, other, upside_down, rubbish = (
        float(descriptors.embed_image(picture) @ descriptors.embed_image(one))
        for one in (small, frontals["abnormal"], picture[::-1], noise)
    )
    assert same > 0.98
    assert other > upside_down > rubbish
    assert upside_down < 0.9


def test_similar_texts_lie_nearer_than_different_ones() -> None:
    first, second, third = (
        descriptors.embed_text(text)
        for text in ("chest x-ray pneumonia", "pneumonia on a chest x-ray", "ct brain stroke")
    )
    assert first @ second > 0.5 > first @ third


def test_records_carry_what_their_rows_had(frontals: Pictures) -> None:
    image = png(frontals["normal"])
    (both,) = descriptors.answer(frame([image, "chest"]), {})
    (picture,) = descriptors.answer(frame([image, ""]), None)
    (text,) = descriptors.answer(frame([None, "chest"]), {"get_scaling_factor": False})
    assert np.shape(both["image_features"]) == (1, 1024)
    assert np.shape(both["text_features"]) == (1024,)
    assert both["scaling_factor"] == picture["scaling_factor"] == 4.513362407684326
    assert "text_features" not in picture
    assert set(text) == {"text_features"}


@pytest.mark.parametrize(
    ("rows", "params"),
    [
        ([["", ""]], {}),
        ([["", "chest"], [None, ""]], {}),
        ([["", "chest"]], {"get_scaling_factor": "yes"}),
        ([["", "chest"]], {"image_standardization_image_size": True}),
        ([["", "chest"]], "text"),
    ],
)
def test_what_the_signature_forbids_is_refused(rows: list[list[str]], params: object) -> None:
    with pytest.raises(BadInputError):
        descriptors.answer(frame(*rows), params)
