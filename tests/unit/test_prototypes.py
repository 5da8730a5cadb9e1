"""The file of prototypes: refused where its vectors cannot be compared with the endpoint's."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pacs_ai import commits, prototypes
from pacs_ai.errors import ConfigError
from pacs_ai.prototypes import PATH, Prototype, dumps, prototypes_of
from pacs_ai.results import ModelIdentity
from pacs_ai.settings import Endpoint, loads
from pacs_ai.study import Job

AXES = np.eye(1024)
GROUPS = {
    ("view", "a recipe"): {
        "frontal": Prototype(AXES[0], 0.5, ((0.1, True), (0.2, False))),
        "lateral": Prototype(AXES[1], 0.25, ()),
    }
}


def endpoint(file: Path | None, *, certainty: float = 0.9, **changes: Any) -> Endpoint:
    known = None if file is None else {"file": str(file), "certainty": certainty}
    values = {"kind": "insight", "url": "https://models.example/score", "name": "M", "version": "1"}
    return Endpoint.model_validate(values | {"prototypes": known} | changes)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "prototypes.json"
    path.write_text(dumps(endpoint(None), GROUPS, {"view": {"PA": "frontal"}}))
    return path


def test_what_is_written_comes_back(file: Path) -> None:
    found = prototypes_of(endpoint(file))
    assert found is not None
    assert found.headers["view"] == {"PA": "frontal"}
    (labels,) = found.groups.values()
    for label, one in GROUPS["view", "a recipe"].items():
        np.testing.assert_allclose(labels[label].vector, one.vector)
        assert (labels[label].nearest, labels[label].leads) == (one.nearest, one.leads)


@pytest.mark.parametrize(
    ("changed", "why"),
    [
        ({"model": "Other"}, f"it was made with Other 1 {PATH} and the endpoint is M 1"),
        ({"version": "2"}, f"it was made with M 2 {PATH}"),
        (
            {"path": "insight-512-bicubic/1 pacs-ai-pixels/1"},
            "insight-512-bicubic/1 pacs-ai-pixels/1",
        ),
        ({"format": "something else"}, "it is not of format"),
        ({"headers": None}, "it is damaged"),
        ({"groups": [{"about": "view", "recipe": "r", "labels": {}}]}, "it is damaged"),
        ({"groups": [{"about": "age", "recipe": "r", "labels": {}}]}, "it is damaged"),
    ],
)
def test_file_that_does_not_match_the_endpoint_is_refused(
    file: Path, changed: dict[str, Any], why: str
) -> None:
    file.write_text(json.dumps(json.loads(file.read_text()) | changed))
    with pytest.raises(ConfigError, match="make them with pacs-ai prototypes make") as refused:
        prototypes_of(endpoint(file))
    assert why in str(refused.value)


@pytest.mark.parametrize(
    ("old", "new"),
    [('"frontal": {', '"oblique": {'), ('"nearest": 0.5', '"nearest": NaN'), ("true", "1")],
)
def test_damaged_label_is_refused(file: Path, old: str, new: str) -> None:
    text = file.read_text()
    assert old in text
    file.write_text(text.replace(old, new))
    with pytest.raises(ConfigError, match="it is damaged"):
        prototypes_of(endpoint(file))


def test_vector_that_is_not_of_unit_length_is_refused(file: Path) -> None:
    groups = {
        ("view", "r"): {
            "frontal": Prototype(AXES[0] * 2, 0, ()),
            "lateral": Prototype(AXES[1], 0, ()),
        }
    }
    file.write_text(dumps(endpoint(None), groups, {}))
    with pytest.raises(ConfigError, match="it is damaged"):
        prototypes_of(endpoint(file))


def test_file_that_is_missing_is_told_with_the_endpoint_that_names_it(tmp_path: Path) -> None:
    settings = loads(
        f"""
site: {{name: S, time_zone: Etc/UTC, use: research, responsible: R}}
endpoints:
  insight:
    {{kind: insight, url: "https://models.example/score", name: M, version: "1",
     prototypes: {{file: {tmp_path / "none.json"}}}}}
"""
    )
    with pytest.raises(ConfigError, match=r"endpoints\.insight\.prototypes: .*cannot be read"):
        prototypes.check(settings)


def test_only_embeddings_have_prototypes(file: Path) -> None:
    with pytest.raises(ValueError, match="only an insight endpoint has them"):
        endpoint(file, kind="parse2d")


def test_job_is_another_one_with_other_prototypes(file: Path, tmp_path: Path) -> None:
    def key(one: Endpoint) -> str:
        model = ModelIdentity("M", "1", "Microsoft", reference=False)
        return commits._job_key(Job("r", "insight", "insight", {}, {}), one, {"name": model.name})

    other = tmp_path / "other.json"
    other.write_text(dumps(endpoint(None), GROUPS, {"view": {"AP": "frontal"}}))
    asked = [endpoint(None), endpoint(file), endpoint(file, certainty=0.8), endpoint(other)]
    assert len({key(one) for one in asked}) == len(asked)
