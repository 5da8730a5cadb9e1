"""What pixels are like: named after the nearest prototype, and never more certain than was counted."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pacs_ai.models import insight
from pacs_ai.models.likeness import (
    Example,
    certainty_of,
    contradictions,
    learned,
    likenesses,
    spoken,
    too_few,
)
from pacs_ai.prototypes import Prototype, Prototypes, dumps
from pacs_ai.results import PIXEL_PATH, Assertion, Done, Embedding, Finding, Likeness
from pacs_ai.study import Job
from tests.unit.models.fake_endpoint import Answer, endpoint
from tests.unit.pixels.made import image

RECIPE = f"insight-512-bicubic/1 {PIXEL_PATH}"
AXES = np.eye(1024)


def embedding(*weights: float, recipe: str = RECIPE) -> Embedding:
    vector = np.zeros(1024)
    vector[: len(weights)] = weights
    return Embedding((vector / np.linalg.norm(vector)).astype(np.float32), "2.25.10", recipe)


def prototype(axis: int, *, right: int = 59, wrong: int = 0, nearest: float = 0.5) -> Prototype:
    return Prototype(AXES[axis], nearest, ((0.1, True),) * right + ((0.1, False),) * wrong)


def known(**labels: Prototype) -> Prototypes:
    headers = {"view": {"PA": "frontal", "LL": "lateral"}, "body": {}, "modality": {}}
    return Prototypes({("view", RECIPE): labels}, headers, "an identity")


VIEWS = known(frontal=prototype(0), lateral=prototype(1))


# Certainty.


@pytest.mark.parametrize(("right", "wrong"), [(1, 0), (10, 0), (29, 0), (59, 0), (58, 1), (3, 9)])
def test_certainty_is_the_least_share_that_the_count_allows(right: int, wrong: int) -> None:
    share, count = certainty_of(prototype(0, right=right, wrong=wrong), 1.0), right + wrong
    # So many right ones, or more, come by chance once in twenty if the share is this one.
    chance = sum(
        math.comb(count, k) * share**k * (1 - share) ** (count - k) for k in range(right, count + 1)
    )
    assert chance == pytest.approx(0.05, rel=1e-6)
    assert share < right / count


def test_nothing_is_certain_of_what_was_never_named_rightly() -> None:
    assert certainty_of(prototype(0, right=0, wrong=5), 1.0) == 0
    assert certainty_of(prototype(0, right=0), 1.0) == 0


def test_examples_that_were_clearer_count_for_nothing() -> None:
    one = Prototype(AXES[0], 0.5, ((0.1, False), (0.3, True), (0.5, True)))
    assert certainty_of(one, 0.05) == 0
    assert certainty_of(one, 0.2) == 0
    assert 0 < certainty_of(one, 0.3) < certainty_of(one, 0.5)


# Naming.


def test_picture_is_named_after_the_nearest_prototype() -> None:
    assert likenesses(embedding(1, 0.2), VIEWS, certainty=0.9) == (
        Likeness("view", "frontal", 0.9505),
    )
    assert likenesses(embedding(0.2, 1), VIEWS, certainty=0.9)[0].label == "lateral"


@pytest.mark.parametrize(
    ("one", "certainty"),
    [
        (embedding(1, 0.2), 0.96),
        (embedding(1, 0.95), 0.9),  # ahead by less than any example
        (embedding(1, 0, 2), 0.9),  # ahead by far, and like none of the examples
        (embedding(1, 0.2, recipe="insight-512-bicubic/1 another"), 0.9),
    ],
    ids=["below the certainty", "no lead", "like none", "other recipe"],
)
def test_nothing_is_said_of_what_is_not_certain(one: Embedding, certainty: float) -> None:
    assert likenesses(one, VIEWS, certainty=certainty) == ()


# Headers.


@pytest.mark.parametrize(
    ("role", "elements", "sentence"),
    [
        ("frontal", {"ViewPosition": "PA"}, "ViewPosition is PA"),
        ("image", {"ViewPosition": "PA"}, "ViewPosition is PA"),
        ("frontal", {}, "the rule takes it as frontal"),
        ("image", {}, ""),
        ("frontal", {"ViewPosition": "LL"}, ""),
        ("frontal", {"ViewPosition": "RLO"}, ""),
    ],
)
def test_view_by_pixels_is_held_against_the_header(
    tmp_path: Path, role: str, elements: dict[str, str], sentence: str
) -> None:
    stored = image(tmp_path, np.eye(8, dtype=np.uint8), **elements)
    lateral = Likeness("view", "lateral", 0.97)
    one = Embedding(embedding(0, 1).vector, stored.SOPInstanceUID, RECIPE, likenesses=(lateral,))
    found = list(contradictions(one, VIEWS, Job("r", "e", "insight", {role: (stored,)}, {})))
    if not sentence:
        assert found == []
        return
    (finding,) = found
    assert finding.label == "view contradicts header"
    assert finding.assertion is Assertion.PRESENT
    assert finding.sources == (stored.SOPInstanceUID,)
    assert finding.score == 0.97
    assert finding.sentence == f"{sentence}, and the pixels are like lateral, not like frontal"


def test_result_has_what_the_pixels_are_like_and_the_finding(tmp_path: Path) -> None:
    stored = image(tmp_path, np.eye(8, dtype=np.uint8), ViewPosition="PA")
    body = [{"image_features": list(embedding(0.1, 1).vector.astype(float))}]
    with endpoint(Answer(body)) as fake:
        file = tmp_path / "prototypes.json"
        groups = {("view", RECIPE): dict(VIEWS.groups["view", RECIPE])}
        file.write_text(dumps(fake.settings("insight"), groups, VIEWS.headers))
        target = fake.settings("insight", prototypes={"file": str(file)})
        outcome = insight.infer(Job("r", "e", "insight", {"frontal": (stored,)}, {}), target)
    assert isinstance(outcome, Done)
    made, finding = outcome.results
    assert isinstance(made, Embedding)
    assert made.likenesses == (Likeness("view", "lateral", 0.9505),)
    assert isinstance(finding, Finding)
    assert finding.label == "view contradicts header"


def test_embedding_says_when_no_prototype_is_of_its_recipe(tmp_path: Path) -> None:
    stored = image(tmp_path, np.eye(8, dtype=np.uint8))
    with endpoint(Answer([{"image_features": list(AXES[0])}])) as fake:
        file = tmp_path / "prototypes.json"
        groups = {("view", "another recipe"): dict(VIEWS.groups["view", RECIPE])}
        file.write_text(dumps(fake.settings("insight"), groups, VIEWS.headers))
        target = fake.settings("insight", prototypes={"file": str(file)})
        outcome = insight.infer(Job("r", "e", "insight", {"frontal": (stored,)}, {}), target)
    assert isinstance(outcome, Done)
    (made,) = outcome.results
    assert isinstance(made, Embedding)
    assert made.stated == "the one image; no prototypes of pictures made this way"


# Making.


def example(label: str, patient: int, *weights: float, said: str = "", **options: Any) -> Example:
    return Example(label, f"patient {patient}", said, embedding(*weights, **options))


def two_labels(count: int = 12) -> list[Example]:
    return [
        example(label, 2 * number + axis, *(float(axis == at) + 0.01 * number for at in (0, 1)))
        for axis, label in enumerate(("frontal", "lateral"))
        for number in range(count)
    ]


def test_prototype_is_the_mean_direction_of_its_examples() -> None:
    made = learned(two_labels())[RECIPE]
    for axis, label in enumerate(("frontal", "lateral")):
        own = [one.embedding.vector for one in two_labels() if one.label == label]
        mean = np.mean(own, axis=0, dtype=np.float64)
        np.testing.assert_allclose(made[label].vector, mean / np.linalg.norm(mean), atol=1e-6)
        assert int(np.argmax(made[label].vector)) == axis
        assert [right for _, right in made[label].leads] == [True] * 12
        assert list(made[label].leads) == sorted(made[label].leads)


def test_examples_are_judged_without_their_patient() -> None:
    # Ten pictures of one patient are like each other, else like the other label's more than their own.
    odd = [example("frontal", 99, 0.3, 0.5, 1) for _ in range(10)]
    made = learned([*two_labels(), *odd])[RECIPE]
    assert [right for _, right in made["lateral"].leads].count(False) == 1
    assert [right for _, right in made["frontal"].leads] == [True] * 12


def test_many_pictures_of_one_patient_make_nothing_more_certain() -> None:
    many = [example("frontal", 0, 1.0, 0.001 * number) for number in range(60)]
    made, few = learned([*two_labels(), *many])[RECIPE], learned(two_labels())[RECIPE]
    assert len(made["frontal"].leads) == len(few["frontal"].leads) == 12
    assert certainty_of(made["frontal"], math.inf) == certainty_of(few["frontal"], math.inf) < 0.8


def test_a_patient_speaks_late_for_a_name_and_soon_against_it() -> None:
    pair = [example("lateral", 0, 1.0, 0.5), example("lateral", 0, 1.0, 0.0)]
    against = [
        lead
        for lead, right in learned([*two_labels(), *pair])[RECIPE]["frontal"].leads
        if not right
    ]
    alone = [
        lead
        for one in pair
        for lead, right in learned([*two_labels(), one])[RECIPE]["frontal"].leads
        if not right
    ]
    assert len(against) == 1
    assert against[0] == pytest.approx(min(alone), abs=0.05)


def test_recipes_are_never_mixed() -> None:
    other = [example("CT", n, 0, 0, 1, recipe="another") for n in range(12)]
    assert list(learned([*two_labels(), *other])) == [RECIPE]


def test_too_few_examples_or_patients_are_named() -> None:
    assert too_few(two_labels(10)) == ()
    assert [one.split(" (")[0] for one in too_few(two_labels(9))] == [
        "frontal has 9 examples of 9 patients",
        "lateral has 9 examples of 9 patients",
    ]
    same = [example("chest", n % 4, 1) for n in range(20)]
    assert too_few(same)[0].startswith("chest has 20 examples of 4 patients")


def test_a_header_means_what_most_of_the_examples_with_it_are() -> None:
    said = [example("chest", n, 1, said="Thorax") for n in range(3)]
    said += [example("knee", 9, 1, said="THORAX"), example("knee", 10, 1, said="KNEE")]
    said += [example("chest", 1, 1, said="TRUNK"), example("knee", 2, 1, said="TRUNK")]
    assert spoken("body", said) == {"THORAX": "chest", "KNEE": "knee"}
    assert spoken("view", [])["AP"] == "frontal"
