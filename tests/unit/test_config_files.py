from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import yaml

from pacs_ai import routing
from pacs_ai.errors import ConfigError
from pacs_ai.phantom import header
from pacs_ai.settings import FolderDestination, Identity, Profile, Settings, Use, load, loads
from pacs_ai.worklist import Priority
from pacs_ai.worklist import rules as worklist_rules
from tests.unit.routing.studies import instance, radiograph, slices, study

CONFIG = Path(__file__).parents[2] / "config"
NOW = datetime(2026, 11, 23, tzinfo=UTC)

FILLED = {
    "name": "General Hospital",
    "time_zone": "Europe/Berlin",
    "use": "research",
    "responsible": "Head of Radiology",
    "host": "192.0.2.10",
    "port": 104,
    "url": "https://models.example.org/score",
    "key": "env:PACS_AI_KEY",
    "version": "1",
}


def _filled(value: Any, key: str = "") -> Any:
    if value == "REQUIRED":
        return FILLED[key]
    if isinstance(value, dict):
        return {name: _filled(item, str(name)) for name, item in value.items()}
    if value == ["REQUIRED"]:
        return {"ae_titles": ["PACS"], "addresses": ["192.0.2.10"]}[key]
    return [_filled(item) for item in value] if isinstance(value, list) else value


@pytest.fixture(scope="module")
def hospital() -> Settings:
    text = (CONFIG / "hospital.yaml").read_text()
    return loads(yaml.safe_dump(_filled(yaml.safe_load(text)), sort_keys=False))


@pytest.fixture(scope="module")
def demo() -> Settings:
    return load(CONFIG / "demo.yaml")


def test_every_required_of_the_hospital_file_is_reported_on_its_line() -> None:
    path = CONFIG / "hospital.yaml"
    with pytest.raises(ConfigError) as caught:
        load(path)
    lines = path.read_text().splitlines()
    code = [line.split("#")[0] for line in lines]
    assert all("REQUIRED: fill it in" in fault.message for fault in caught.value.faults)
    for fault in caught.value.faults:
        assert fault.file == path
        assert "REQUIRED" in code[(fault.line or 0) - 1]
    assert len(caught.value.faults) == sum(line.count("REQUIRED") for line in code)


def test_the_hospital_file_passes_once_it_is_filled_in(hospital: Settings) -> None:
    names = [rule.name for rule in routing.parse(hospital).rules]
    assert names == ["cxr-adult", "cxr-portable", "ct-chest", "ct-abdomen", "mr-brain", "us"]
    assert worklist_rules.parse(hospital)


def test_a_new_site_starts_in_shadow_and_strict(hospital: Settings) -> None:
    assert hospital.delivery == "hold"
    assert hospital.identity is Identity.STRICT
    assert hospital.defaults.max_age == timedelta(hours=48)
    assert not hospital.site.production
    assert all(peer.profile is Profile.BASIC for peer in hospital.peers.values())
    assert not any(peer.narrative for peer in hospital.peers.values())


def test_no_priority_rises_at_a_new_site(hospital: Settings) -> None:
    raised = [rule for rule in worklist_rules.parse(hospital) if rule.priority and rule.enabled]
    assert raised == []


def _jobs(settings: Settings, *instances: Any) -> list[tuple[str, str]]:
    routed = routing.route(study(*instances), routing.parse(settings), now=NOW)
    return [(job.rule, job.endpoint) for job in routed.jobs]


def test_adult_models_do_not_see_children_or_unknown_ages(hospital: Settings) -> None:
    assert _jobs(hospital, radiograph())
    assert not _jobs(hospital, radiograph(PatientAge="012Y"))
    assert not _jobs(hospital, radiograph(PatientAge=None))


def test_a_portable_image_is_not_measured(hospital: Settings) -> None:
    routed = routing.route(study(radiograph(ViewPosition="AP")), routing.parse(hospital), now=NOW)
    assert {job.rule for job in routed.jobs} == {"cxr-portable"}
    assert [job.parameters["measure"] for job in routed.jobs if job.kind == "parse2d"] == [
        {"ctr": False}
    ]


CAPTURE = "1.2.840.10008.5.1.4.1.1.7"
PRESENTATION = "1.2.840.10008.5.1.4.1.1.11.1"


@pytest.mark.parametrize(
    ("elements", "why"),
    [
        ({"SOPClassUID": CAPTURE}, "a secondary capture (SOPClassUID is Secondary Capture"),
        ({"ImageType": ["ORIGINAL", "PRIMARY", "SCREEN SAVE"]}, "a screenshot (ImageType has"),
        ({"SeriesDescription": "Dose Report"}, "a dose report (SeriesDescription has"),
        ({"SOPClassUID": PRESENTATION, "Modality": "PR"}, "presentation state"),
        ({"SeriesDescription": "Chest PA bone suppressed"}, "a post-processed picture"),
        ({"PresentationIntentType": "FOR PROCESSING"}, "raw detector data"),
        ({"ImageComments": "rejected"}, "a rejected image (ImageComments has"),
        ({"QualityControlImage": "YES"}, "an image of a phantom"),
        ({"BurnedInAnnotation": "YES"}, "an image with burned-in text"),
        ({"PatientAge": "003Y"}, "the age is 3 years, not at least 18Y"),
        ({"PatientAge": None}, "the age is unknown"),
        ({"PatientAge": "060Y", "PatientBirthDate": "20200101"}, "the age is 6 or 60 years"),
        ({"StudyDescription": "Chest PAED"}, "PAED"),
    ],
)
def test_what_is_no_adult_s_radiograph_reaches_no_model_of_the_hospital_file(
    hospital: Settings, elements: dict[str, Any], why: str
) -> None:
    """As a modality or console writes it onto an image that is a chest radiograph otherwise."""
    routed = routing.route(study(radiograph(**elements)), routing.parse(hospital), now=NOW)
    assert not routed.jobs
    assert why in routing.explain_text(routed)


@pytest.mark.parametrize(
    "elements",
    [
        {"SeriesDescription": "Chest PORTABLE"},
        {"ManufacturerModelName": "Mobile DR"},
        {"StationName": "PORTABLE 3"},
    ],
)
def test_a_portable_unit_is_known_by_its_words_whatever_the_view(
    hospital: Settings, elements: dict[str, str]
) -> None:
    assert {rule for rule, _ in _jobs(hospital, radiograph(**elements))} == {"cxr-portable"}


@pytest.mark.parametrize(
    ("instances", "rule"),
    [
        (slices(40, StudyDescription="TC TÓRAX"), "ct-chest"),
        (slices(40, StudyDescription="Abdomen/Pelvis"), "ct-abdomen"),
        (slices(40, Modality="MR", StudyDescription="Schädel nativ"), "mr-brain"),
    ],
)
def test_a_volume_finds_its_rule(hospital: Settings, instances: list[Any], rule: str) -> None:
    assert {name for name, _ in _jobs(hospital, *instances)} == {rule}


TWO_PARTS = [
    ("CT", "CT Head and Chest", ("HEAD", "CHEST"), "ct-chest"),
    ("CT", "CT Neck Thorax Abdomen", ("NECK", "CHESTABDPELVIS"), "ct-chest"),
    ("CT", "CT Chest Abdomen Pelvis", ("CHEST", "ABDOMEN"), "ct-abdomen"),
    ("MR", "MR Brain and C-Spine", ("CSPINE", "BRAIN"), "mr-brain"),
]


@pytest.mark.parametrize(("modality", "said", "parts", "rule"), TWO_PARTS)
def test_a_series_of_another_body_part_is_not_taken_for_what_the_study_says(
    hospital: Settings, modality: str, said: str, parts: tuple[str, str], rule: str
) -> None:
    common = {"Modality": modality, "StudyDescription": said}
    other, right = (
        slices(40, series=number, BodyPartExamined=part, SliceThickness=str(number), **common)
        for number, part in enumerate(parts, start=1)  # the other one is the thinner
    )
    decided = routing.route(study(*other, *right), routing.parse(hospital), now=NOW)
    (taken,) = [job for job in decided.jobs if job.rule == rule]
    assert {str(one.header.BodyPartExamined) for one in taken.instances} == {parts[1]}
    assert rule not in {name for name, _ in _jobs(hospital, *other)}


def test_ultrasound_says_why_nothing_is_run(hospital: Settings) -> None:
    routed = routing.route(study(instance(Modality="US")), routing.parse(hospital), now=NOW)
    assert [one.rule for one in routed.refusals] == ["us"]


def test_the_demo_is_on_loopback_with_reference_models(demo: Settings) -> None:
    assert demo.listener.host == "127.0.0.1"
    assert {one.kind for one in demo.endpoints.values()} == set(demo.endpoints)
    assert all(one.reference and one.manufacturer == "PACS AI" for one in demo.endpoints.values())
    assert all(one.url.startswith("http://127.0.0.1:") for one in demo.endpoints.values())
    assert (demo.site.use, demo.site.production) == (Use.RESEARCH, False)
    assert demo.peer_of("DEMO", "127.0.0.1") == "demo"


def test_the_demo_has_everything_on(demo: Settings) -> None:
    (destination,) = (demo.destination(name) for name in demo.destinations_for("demo"))
    assert isinstance(destination, FolderDestination)
    assert (destination.profile, destination.narrative) == (Profile.ALL, True)
    assert demo.defaults.max_age is None
    assert demo.identity is Identity.LENIENT
    assert demo.quiet("CT", "demo") == timedelta(seconds=2)
    assert all(rule.enabled for rule in worklist_rules.parse(demo))


def test_the_demo_lists_a_present_and_grounded_opacity_first(demo: Settings) -> None:
    rule = worklist_rules.parse(demo)[0]
    assert (rule.label, rule.priority, rule.performers) == (
        "AI-CXR-REVIEW",
        Priority.HIGH,
        ("thoracic",),
    )
    assert isinstance(rule.when, worklist_rules.OnFinding)
    assert (rule.when.label, rule.when.grounded) == ("lung opacity", True)


def test_what_the_phantom_says_of_its_patient_suits_the_demo(demo: Settings) -> None:
    made = header.instance(
        "1.2.840.10008.5.1.4.1.1.1.1",  # type: ignore[arg-type] # any UID will do
        identity="0" * 64,
        number=1,
        series=1,
        when=NOW,
    )
    said = {
        word: made.get(word)
        for word in ("PatientAge", "PatientBirthDate", "StudyDate", "StudyTime")
    }
    jobs = _jobs(demo, radiograph(1, **said), radiograph(2, ViewPosition="LL", **said))
    assert [endpoint for _, endpoint in jobs] == ["insight", "parse2d", "cxrreport"]
    volume = slices(64, BodyPartExamined="CHEST", **said)
    assert _jobs(demo, *volume) == [("ct-chest", "parse3d")]
