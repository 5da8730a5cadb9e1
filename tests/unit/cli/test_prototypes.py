"""``pacs-ai prototypes make`` on labelled folders, with the reference embeddings over real HTTP."""

from __future__ import annotations

import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from pacs_ai.cli.prototypes import make
from pacs_ai.errors import ConfigError
from pacs_ai.models import insight
from pacs_ai.prototypes import prototypes_of
from pacs_ai.reference import descriptors
from pacs_ai.results import Done, Embedding, Finding
from pacs_ai.settings import Settings, load
from pacs_ai.study import Instance, Job
from tests.unit.models.fake_endpoint import Asked, FakeEndpoint, endpoint
from tests.unit.pixels.made import grey, slices, written

DEMO = Path(__file__).parents[3] / "config/demo.yaml"


def reference(asked: Asked) -> Any:
    return descriptors.answer(asked.body["input_data"], asked.body["params"])


@pytest.fixture
def models() -> Iterator[FakeEndpoint]:
    with endpoint(reference) as fake:
        yield fake


def settings(tmp_path: Path, fake: FakeEndpoint, **changes: Any) -> Settings:
    values = yaml.safe_load(DEMO.read_text())
    known = {"kind": "insight", "url": fake.url, "name": "Reference", "version": "1"}
    values["endpoints"] = {"insight": known | changes}
    values["rules"], values["worklist"] = [], []
    values["data"] = str(tmp_path / "gateway")
    path = tmp_path / "settings.yaml"
    path.write_text(yaml.safe_dump(values))
    return load(path)


def picture(kind: str, number: int) -> np.ndarray[Any, np.dtype[np.uint8]]:
    """Return two dark fields beside each other (frontal), or one (lateral); each a bit different."""
    random = np.random.default_rng(number)
    rows, columns = np.mgrid[0:96, 0:96]
    centres = {"frontal": (28, 68), "lateral": (48,)}[kind]
    made = np.full((96, 96), 170.0)
    for centre in centres:
        across = (columns - centre - random.uniform(-3, 3)) / random.uniform(11, 14)
        made[across**2 + ((rows - 46) / random.uniform(28, 34)) ** 2 < 1] = 60
    return np.clip(made + random.normal(0, 6, made.shape), 0, 255).astype(np.uint8)


def radiograph(folder: Path, kind: str, number: int, **elements: Any) -> Instance:
    folder.mkdir(parents=True, exist_ok=True)
    study = f"2.25.9{number}"
    return written(
        folder,
        grey(
            picture(kind, number),
            uid=f"{study}.1",
            StudyInstanceUID=study,
            SeriesInstanceUID=f"{study}.2",
            PatientID=f"SECRET{number}",
            **elements,
        ),
    )


@pytest.fixture
def labelled(tmp_path: Path) -> Path:
    folder = tmp_path / "labelled"
    for place, kind in enumerate(("frontal", "lateral")):
        for number in range(30):
            radiograph(folder / "view" / kind, kind, 100 * (place + 1) + number)
    return folder


def test_labelled_folders_become_the_file_that_finds_a_contradiction(
    tmp_path: Path, labelled: Path, models: FakeEndpoint, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "prototypes.json"
    # The settings may name the file that is about to be made.
    named = settings(tmp_path, models, prototypes={"file": str(out)})
    assert make(labelled, named, None, out) == 0
    assert "view frontal: pictures of 30 patients were given this name rightly, of 0 wrongly, " in (
        capsys.readouterr().out
    )
    assert stat.S_IMODE(out.stat().st_mode) == 0o600
    assert "SECRET" not in out.read_text()
    assert "2.25." not in out.read_text()
    target = named.endpoints["insight"]
    assert prototypes_of(target) is not None

    unlike = radiograph(tmp_path / "new", "lateral", 900, ViewPosition="PA")
    outcome = insight.infer(Job("r", "insight", "insight", {"frontal": (unlike,)}, {}), target)
    assert isinstance(outcome, Done)
    assert len(outcome.results) == 1  # it is nearest to lateral, and farther than its examples

    wrong = radiograph(tmp_path / "new", "lateral", 909, ViewPosition="PA")
    outcome = insight.infer(Job("r", "insight", "insight", {"frontal": (wrong,)}, {}), target)
    assert isinstance(outcome, Done)
    embedding, finding = outcome.results
    assert isinstance(embedding, Embedding)
    assert [(one.about, one.label) for one in embedding.likenesses] == [("view", "lateral")]
    assert isinstance(finding, Finding)
    assert finding.label == "view contradicts header"


def test_a_volume_is_one_example_and_is_not_told_apart_from_what_is_made_otherwise(
    tmp_path: Path, models: FakeEndpoint, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "labelled" / "modality"
    for number in range(10):
        (folder / "CT" / str(number)).mkdir(parents=True)
        study = f"2.25.7{number}"
        random = np.random.default_rng(number)
        slices(
            folder / "CT" / str(number),
            random.integers(800, 1300, (3, 16, 16)).astype(np.int16),
            StudyInstanceUID=study,
            SeriesInstanceUID=f"{study}.1",
        )
        radiograph(folder / "CR", "frontal", number)
    out = tmp_path / "prototypes.json"
    assert make(folder.parent, settings(tmp_path, models), None, out) == 1
    assert len(models.asked) == 20
    assert [len(one.body["input_data"]["data"]) for one in models.asked].count(3) == 10
    assert "nothing to tell apart" in capsys.readouterr().err
    assert not out.exists()


def test_too_few_examples_make_no_file(
    tmp_path: Path, models: FakeEndpoint, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "labelled"
    for kind in ("frontal", "lateral"):
        radiograph(folder / "view" / kind, kind, 1 + (kind == "lateral"))
    out = tmp_path / "prototypes.json"
    assert make(folder, settings(tmp_path, models), None, out) == 1
    assert "view: frontal has 1 examples of 1 patients" in capsys.readouterr().err
    assert not out.exists()


@pytest.mark.parametrize(
    ("below", "why"),
    [
        ("view/oblique", "is no view"),
        ("age/old", "is none of view, body, modality"),
        ("", "no folder"),
    ],
)
def test_folder_that_is_not_of_labels_is_refused(
    tmp_path: Path, models: FakeEndpoint, below: str, why: str
) -> None:
    folder = tmp_path / "labelled"
    (folder / below).mkdir(parents=True)
    with pytest.raises(ConfigError, match=why):
        make(folder, settings(tmp_path, models), None, tmp_path / "out.json")
    assert models.asked == []
