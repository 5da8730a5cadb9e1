"""What every object carries, and that chance and the clock have no part in it."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from pydicom.dataset import Dataset

from pacs_ai.encoding import ENCODERS, Encoding
from pacs_ai.encoding.equipment import (
    Place,
    algorithm_name,
    gateway_uid,
    model_uid,
    plain,
    series_description,
)
from pacs_ai.encoding.identity import identity_of
from pacs_ai.results import ModelIdentity
from tests.unit.encoding import sources as make

ROOT = Path(__file__).parents[3]
LONG = ModelIdentity(
    "A model with a name that goes on and on and on", "1.0", "Maker", reference=True
)


@pytest.fixture(scope="module")
def objects(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Dataset]:
    """One object of every kind."""
    work = make.everything(tmp_path_factory.mktemp("source"))
    return {kind: ENCODERS[kind](work)[0] for kind in ENCODERS}


@pytest.mark.parametrize("kind", list(ENCODERS))
def test_every_object_says_who_made_it_with_which_model(
    objects: dict[str, Dataset], kind: str
) -> None:
    dataset = objects[kind]
    for keyword in (
        "Manufacturer",
        "ManufacturerModelName",
        "SoftwareVersions",
        "DeviceSerialNumber",
        "InstanceCreationDate",
        "InstanceCreationTime",
        "TimezoneOffsetFromUTC",
    ):
        assert dataset[keyword].value
    item = dataset.ContributingEquipmentSequence[0]
    assert item.PurposeOfReferenceCodeSequence[0].CodeValue == "109102"
    assert item.ManufacturerModelName == make.REFERENCE.name
    assert item.Manufacturer == make.REFERENCE.manufacturer
    assert item.SoftwareVersions == make.REFERENCE.version
    assert item.DeviceUID
    assert "not for clinical use" in item.ContributionDescription
    assert "Pixels by pacs-ai-pixels/" in item.ContributionDescription


@pytest.mark.parametrize("kind", list(ENCODERS))
def test_every_series_description_warns_and_fits(objects: dict[str, Dataset], kind: str) -> None:
    text = objects[kind].SeriesDescription
    assert text.startswith("AI ")
    assert "REFERENCE" in text
    assert "NOT PRODUCTION" in text
    assert len(text) <= 64


@pytest.mark.parametrize("kind", list(ENCODERS))
def test_file_and_data_set_name_the_same_instance(objects: dict[str, Dataset], kind: str) -> None:
    dataset = objects[kind]
    assert dataset.file_meta.MediaStorageSOPInstanceUID == dataset.SOPInstanceUID
    assert dataset.file_meta.MediaStorageSOPClassUID == dataset.SOPClassUID
    assert "ImplementationVersionName" in dataset.file_meta


def test_every_object_has_its_own_series_in_the_source_s_study(
    objects: dict[str, Dataset],
) -> None:
    assert len({one.SeriesInstanceUID for one in objects.values()}) == len(objects)
    assert len({one.SOPInstanceUID for one in objects.values()}) == len(objects)
    assert len({one.StudyInstanceUID for one in objects.values()}) == 1
    assert all(one.SeriesNumber >= 9001 for one in objects.values())
    assert len({one.SeriesNumber for one in objects.values()}) == len(objects)


def test_another_version_of_a_model_is_another_device() -> None:
    stamp = make.stamp()
    newer = replace(make.PARSE, version="6")
    assert model_uid(stamp, make.PARSE) == model_uid(make.stamp(identity="x"), make.PARSE)
    assert model_uid(stamp, make.PARSE) != model_uid(stamp, newer)
    assert model_uid(stamp, make.PARSE) != model_uid(make.stamp(installation="b"), make.PARSE)


def test_the_gateway_is_the_same_observer_in_every_report() -> None:
    assert gateway_uid(make.stamp()) == gateway_uid(make.stamp(identity="other"))


def test_uids_follow_the_identity_of_the_work() -> None:
    place = Place("report")
    assert place.instance_uid(make.stamp()) == place.instance_uid(make.stamp(site="renamed"))
    assert place.instance_uid(make.stamp()) != place.instance_uid(make.stamp(identity="job-2"))


def test_a_production_series_of_a_real_model_has_no_warning(tmp_path: Path) -> None:
    study = make.study([make.radiograph(tmp_path)])
    work = make.encoding(study, make.entry())
    assert series_description(work, "segmentation") == "AI MedImageParse segmentation"


@pytest.mark.parametrize("content", ["segmentation", "draft, not verified"])
@pytest.mark.parametrize("prefix", ["AI", "a very long prefix of a site"])
def test_a_long_name_gives_way_and_the_warnings_do_not(
    tmp_path: Path, content: str, prefix: str
) -> None:
    study = make.study([make.radiograph(tmp_path)])
    work = make.encoding(study, make.entry(model=LONG), production=False, prefix=prefix)
    text = series_description(work, content)
    assert len(text) <= 64
    assert text.endswith(f"{content}, REFERENCE, NOT PRODUCTION")


def test_a_reference_model_says_so_in_its_algorithm_name() -> None:
    assert algorithm_name(LONG).endswith("(reference model, not for clinical use)")
    assert len(algorithm_name(LONG)) <= 64
    assert algorithm_name(make.PARSE) == "MedImageParse"


def test_text_for_a_name_has_no_backslash_and_no_control_character() -> None:
    assert plain("a\\b\nc") == "a/b c"


def test_a_private_code_brings_its_scheme(objects: dict[str, Dataset]) -> None:
    schemes = objects["report"].CodingSchemeIdentificationSequence
    assert [one.CodingSchemeDesignator for one in schemes] == ["99PACSAI"]
    assert "CodingSchemeIdentificationSequence" not in objects["segmentation"]


def test_the_source_is_not_changed_by_encoding(tmp_path: Path) -> None:
    work = make.everything(tmp_path)
    before = [one.header.to_json() for one in work.study.instances]
    for kind in ENCODERS:
        ENCODERS[kind](work)
    assert [one.header.to_json() for one in work.study.instances] == before
    assert identity_of(work.study.instances[0]).notes == ()


PROGRAM = """
import datetime, hashlib, pathlib, sys
years = int(sys.argv[2])
class Clock(datetime.datetime):
    @classmethod
    def now(cls, tz=None):
        return super().now(tz).replace(day=1) + datetime.timedelta(days=365 * years)
datetime.datetime = Clock
import highdicom
from pacs_ai.encoding import ENCODERS
from tests.unit.encoding import sources as make
assert highdicom.base.datetime.datetime is Clock
work = make.everything(pathlib.Path(sys.argv[1]))
for kind in ENCODERS:
    for dataset in ENCODERS[kind](work):
        sys.stdout.write(kind + hashlib.sha256(make.to_bytes(dataset)).hexdigest() + "\\n")
"""


def test_two_processes_in_two_years_write_equal_files(tmp_path: Path) -> None:
    answers = []
    for years in (0, 3):
        folder = tmp_path / str(years)
        folder.mkdir()
        ran = subprocess.run(
            [sys.executable, "-c", PROGRAM, str(folder), str(years)],
            cwd=ROOT,
            env={"PYTHONHASHSEED": str(years)},
            capture_output=True,
            text=True,
            check=True,
        )
        answers.append(ran.stdout.split())
    assert len(answers[0]) == len(ENCODERS)
    assert answers[0] == answers[1]


def test_encoding_nothing_writes_nothing(tmp_path: Path) -> None:
    study = make.study([make.radiograph(tmp_path)])
    work = Encoding(study, (make.entry(),), make.stamp())
    assert all(ENCODERS[kind](work) == () for kind in ENCODERS)
