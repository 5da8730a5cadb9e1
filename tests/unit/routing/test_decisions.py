from __future__ import annotations

import json

import pytest

from pacs_ai.routing import Outcome, explain_text
from pacs_ai.study import Instance
from tests.unit.pixels.made import functional_group
from tests.unit.routing.studies import CT, CXR, instance, radiograph, routed, slices

FAMILY = """
rules:
  - name: cxr
    when: {Modality: DX, age: {min: 18Y, unknown: run_marked}}
    view: {unknown: not_suitable}
    note: basic
    run: [{parse2d: [left lung, right lung, heart]}]
  - name: portable
    extends: cxr
    when: {any: [{text: [PORTABLE]}, {view: AP}]}
    measure: {ctr: false}
    note: at the bedside
"""


def test_a_lateral_goes_along_and_is_never_the_frontal() -> None:
    frontal, lateral = radiograph(1), radiograph(2, ViewPosition="LL")
    (job,) = routed([lateral, frontal], CXR).jobs
    assert job.inputs == {"frontal": (frontal,), "lateral": (lateral,)}
    assert (job.parameters["view"], job.parameters["view_from"]) == ("PA", "ViewPosition")


def test_a_lateral_alone_is_not_suitable() -> None:
    routing = routed([radiograph(ViewPosition="LL")], CXR)
    assert not routing.jobs
    assert routing.refusals[0].reason.startswith("no frontal image: ViewPosition of Instance 2.25")


def test_an_unknown_view_is_not_suitable_and_says_what_to_do() -> None:
    routing = routed([radiograph(ViewPosition=None)], CXR)
    assert not routing.jobs
    assert "enter ViewPosition" in routing.refusals[0].reason


def test_an_unknown_view_is_taken_only_where_the_rule_says_so() -> None:
    text = CXR.replace("unknown: not_suitable", "unknown: frontal")
    (job,) = routed([radiograph(ViewPosition=None)], text).jobs
    assert (job.parameters["view"], job.parameters["view_from"]) == ("", "rule")
    contradictory = radiograph(ViewPosition="PA", SeriesDescription="LAT")
    assert not routed([contradictory], text).jobs


@pytest.mark.parametrize("orientation", [["A", "F"], ["P", "F"], ["F", "PL"]])
@pytest.mark.parametrize("unknown", ["frontal", "not_suitable"])
@pytest.mark.parametrize("position", ["PA", None])
def test_what_its_orientation_shows_to_be_lateral_is_never_sent_as_frontal(
    orientation: list[str], unknown: str, position: str | None
) -> None:
    text = CXR.replace("unknown: not_suitable", f"unknown: {unknown}")
    one = radiograph(ViewPosition=position, PatientOrientation=orientation)
    routing = routed([one], text)
    assert not routing.jobs
    assert "PatientOrientation" in routing.refusals[0].reason
    # Another frontal image of the Study is not lost by it.
    (job,) = routed([one, radiograph(2, PatientOrientation=["R", "F"])], text).jobs
    assert job.inputs["frontal"][0].SOPInstanceUID == "2.25.1.2.1"


def test_a_lateral_that_its_orientation_contradicts_does_not_cost_the_frontal() -> None:
    lateral = radiograph(2, ViewPosition="LL", PatientOrientation=["L", "F"])
    (job,) = routed([radiograph(1), lateral], CXR).jobs
    assert set(job.inputs) == {"frontal"}


def test_orientation_is_a_source_of_the_view_where_the_rule_lists_it() -> None:
    one = radiograph(ViewPosition=None, PatientOrientation=["L", "F"])
    assert not routed([one], CXR).jobs
    text = CXR.replace("view: {", "view: {from: [ViewPosition, PatientOrientation], ")
    (job,) = routed([one], text).jobs
    assert (job.parameters["view"], job.parameters["view_from"]) == ("", "PatientOrientation")
    (note,) = job.parameters["notes"]
    assert note.startswith("Frontal by PatientOrientation alone")
    lateral = radiograph(ViewPosition=None, PatientOrientation=["A", "F"])
    assert not routed([lateral], text).jobs


def test_of_several_frontals_the_latest_is_taken_and_said() -> None:
    early = radiograph(1, AcquisitionDate="20261123", AcquisitionTime="0759")
    late = radiograph(2, AcquisitionDate="20261123", AcquisitionTime="080000.5")
    routing = routed([early, late], CXR)
    (job,) = routing.jobs
    assert job.inputs["frontal"] == (late,)
    assert "1 of 2 frontal images, the latest" in job.parameters["notes"]
    assert routing.verdicts[-1].details == (
        "Instance 2.25.1.2.1: frontal, ViewPosition says PA: taken",
        "Instance 2.25.1.1.1: frontal, ViewPosition says PA",
    )


@pytest.mark.parametrize("time", ["0900", None], ids=["later", "no time"])
@pytest.mark.parametrize("unread", [{"ViewPosition": None}, {"PatientOrientation": ["A", "F"]}])
def test_a_radiograph_of_no_known_view_that_may_be_later_is_stated(
    time: str | None, unread: dict[str, object]
) -> None:
    frontal = radiograph(1, AcquisitionDate="20261123", AcquisitionTime="0800")
    other = radiograph(2, **{"AcquisitionDate": "20261123", "AcquisitionTime": time, **unread})
    (job,) = routed([frontal, other], CXR).jobs
    assert job.inputs == {"frontal": (frontal,)}
    (note,) = (one for one in job.parameters["notes"] if "may be later" in one)
    assert note.startswith("1 of 2 radiographs may be later and cannot be used: ")


def test_a_radiograph_of_no_known_view_that_is_older_needs_no_word() -> None:
    frontal = radiograph(1, AcquisitionDate="20261123", AcquisitionTime="0800")
    older = {"AcquisitionDate": "20261122", "AcquisitionTime": "0900", "ViewPosition": None}
    (job,) = routed([frontal, radiograph(2, **older)], CXR).jobs
    assert not any("may be later" in one for one in job.parameters["notes"])


def test_content_time_decides_where_acquisition_time_is_missing() -> None:
    early = radiograph(1, ContentDate="20261122", ContentTime="230000")
    late = radiograph(2, ContentDate="20261123", ContentTime="010000", AcquisitionTime="01")
    (job,) = routed([early, late], CXR).jobs
    assert job.inputs["frontal"] == (late,)


@pytest.mark.parametrize("time", ["080000", None])
def test_frontals_that_no_time_tells_apart_are_not_suitable(time: str | None) -> None:
    two = [radiograph(n, AcquisitionDate="20261123", AcquisitionTime=time) for n in (1, 2)]
    routing = routed(two, CXR)
    assert not routing.jobs
    assert "AcquisitionTime" in routing.refusals[0].reason
    if time:
        assert "2.25.1.1.1 and Instance 2.25.1.2.1" in routing.refusals[0].reason


@pytest.mark.filterwarnings("ignore:Invalid value for VR")
@pytest.mark.parametrize("time", ["90000", "9:00:00", "095", "240000", "096000", "09:0000", "none"])
def test_what_is_no_time_makes_no_image_the_latest(time: str) -> None:
    early = radiograph(1, AcquisitionDate="20261123", AcquisitionTime=time)
    late = radiograph(2, AcquisitionDate="20261123", AcquisitionTime="100000")
    routing = routed([early, late], CXR)
    assert not routing.jobs
    assert "no AcquisitionTime or ContentTime in each of them" in routing.refusals[0].reason


@pytest.mark.filterwarnings("ignore:Invalid value for VR")
@pytest.mark.parametrize("day", ["2026112", "20261131", "2026.1123", "tomorrow"])
def test_what_is_no_date_makes_no_image_the_latest(day: str) -> None:
    early = radiograph(1, AcquisitionDate=day, AcquisitionTime="110000")
    late = radiograph(2, AcquisitionDate="20261123", AcquisitionTime="100000")
    assert not routed([early, late], CXR).jobs


@pytest.mark.filterwarnings("ignore:Invalid value for VR")
def test_content_time_decides_where_acquisition_time_is_no_time() -> None:
    clock = {"AcquisitionDate": "20261123", "ContentDate": "20261123"}
    early = radiograph(1, **clock, AcquisitionTime="90000", ContentTime="090001")
    late = radiograph(2, **clock, AcquisitionTime="100000", ContentTime="100001")
    (job,) = routed([early, late], CXR).jobs
    assert job.inputs["frontal"] == (late,)


@pytest.mark.filterwarnings("ignore:Invalid value for VR")
@pytest.mark.parametrize("time", ["10", "1000", "100030", "10:00:30"])
def test_a_time_that_leaves_out_what_tells_two_images_apart_is_not_suitable(time: str) -> None:
    # 1000 is some time between 10:00:00 and 10:00:59.
    one = radiograph(1, AcquisitionDate="20261123", AcquisitionTime=time)
    other = radiograph(2, AcquisitionDate="2026.11.23", AcquisitionTime="100030.5")
    routing = routed([one, other], CXR)
    assert not routing.jobs
    assert "AcquisitionTime does not tell which of" in routing.refusals[0].reason
    (job,) = routed(
        [one, radiograph(3, AcquisitionDate="20261123", AcquisitionTime="11")], CXR
    ).jobs
    assert job.inputs["frontal"][0].SOPInstanceUID == "2.25.1.3.1"


def test_a_radiograph_of_no_known_view_in_the_same_minute_may_be_later() -> None:
    frontal = radiograph(1, AcquisitionDate="20261123", AcquisitionTime="080030")
    unread = radiograph(2, AcquisitionDate="20261123", AcquisitionTime="0800", ViewPosition=None)
    (job,) = routed([frontal, unread], CXR).jobs
    assert any("may be later" in one for one in job.parameters["notes"])


def test_laterals_that_no_time_tells_apart_are_left_out_and_said() -> None:
    laterals = [radiograph(n, ViewPosition="LL") for n in (2, 3)]
    (job,) = routed([radiograph(1), *laterals], CXR).jobs
    assert set(job.inputs) == {"frontal"}
    assert job.parameters["notes"][0].startswith("No lateral image was used: 2")


def test_only_the_report_gets_the_lateral() -> None:
    text = CXR.replace("[cxrreport]", "[insight, cxrreport]")
    insight, report = routed([radiograph(1), radiograph(2, ViewPosition="LL")], text).jobs
    assert set(insight.inputs) == {"frontal"}
    assert set(report.inputs) == {"frontal", "lateral"}


def test_instances_that_a_rule_does_not_hold_for_are_not_in_its_job() -> None:
    text = CXR.replace("{Modality: [CR, DX]}", "{BodyPartExamined: CHEST}")
    knee = radiograph(2, BodyPartExamined="KNEE", ViewPosition="LAT")
    (job,) = routed([radiograph(1), knee], text).jobs
    assert set(job.inputs) == {"frontal"}


def test_the_ratio_is_measured_on_pa_alone() -> None:
    (pa,) = routed([radiograph()], FAMILY).jobs
    assert pa.parameters["measure"] == {"ctr": True}
    doubted = radiograph(SeriesDescription="thorax ap")
    (job,) = routed([doubted], FAMILY.replace("{view: AP}", "{text: [BEDSIDE]}")).jobs
    assert job.parameters["measure"] == {"ctr": False}
    assert job.parameters["notes"][-1] == "View PA from ViewPosition, but SeriesDescription says AP"


def test_a_rule_gives_way_to_the_one_that_extends_it() -> None:
    routing = routed([radiograph(ViewPosition="AP")], FAMILY)
    (job,) = routing.jobs
    assert job.rule == "portable"
    assert job.parameters["measure"] == {"ctr": False}
    assert job.parameters["notes"] == ["basic", "at the bedside"]
    assert routing.verdicts[0].deciding == "gives way to portable, which extends it"


def test_a_rule_keeps_what_the_one_that_extends_it_does_not_hold_for() -> None:
    early = radiograph(1, ViewPosition="AP", ContentDate="20261123", ContentTime="08")
    late = radiograph(2, ViewPosition="PA", ContentDate="20261123", ContentTime="09")
    routing = routed([early, late], FAMILY)
    assert [(job.rule, job.parameters["view"]) for job in routing.jobs] == [
        ("cxr", "PA"),
        ("portable", "AP"),
    ]


def test_an_unknown_age_that_runs_is_marked() -> None:
    (job,) = routed([radiograph(PatientAge=None)], FAMILY).jobs
    assert job.parameters["age_unknown"] is True
    assert any("Age unknown" in note for note in job.parameters["notes"])
    (known,) = routed([radiograph()], FAMILY).jobs
    assert "age_unknown" not in known.parameters


def test_one_childs_header_keeps_the_whole_study_from_an_adult_model() -> None:
    routing = routed([radiograph(1, PatientAge=None), radiograph(2, PatientAge="005Y")], FAMILY)
    assert not routing.jobs


def test_the_best_series_is_taken_and_the_ranking_printed() -> None:
    thick = slices(4, series=1)
    thin = slices(6, series=2, SliceThickness="1")
    scout = slices(3, series=3, ImageType=["ORIGINAL", "PRIMARY", "LOCALIZER"])
    routing = routed([*thick, *thin, *scout], CT)
    (job,) = routing.jobs
    assert job.inputs["volume"] == tuple(thin)
    assert job.parameters["notes"] == ["1 of 2 suitable Series"]
    details = routing.verdicts[0].details
    assert [line[:11] for line in details] == ["1. Series 2", "2. Series 1", "Series 3 (2"]
    assert details[2].endswith("left out: ImageType has LOCALIZER")
    assert details[0] in explain_text(routing)


def test_a_wanted_kernel_goes_before_a_thin_series() -> None:
    text = CT.replace("slices:", "kernel: [B70f], slices:")
    sharp = slices(4, series=1, ConvolutionKernel="B70f")
    thin = slices(6, series=2, SliceThickness="1")
    assert routed([*thin, *sharp], text).jobs[0].inputs["volume"] == tuple(sharp)


def test_equally_good_series_are_ambiguous_and_both_named() -> None:
    routing = routed([*slices(4, series=1), *slices(4, series=2)], CT)
    assert not routing.jobs
    reason = routing.refusals[0].reason
    assert reason.startswith("ambiguous: Series 1 (2.25.1.1) and Series 2 (2.25.1.2)")


@pytest.mark.parametrize(
    ("elements", "why"),
    [
        ({"ImageType": ["DERIVED", "SECONDARY", "MPR"]}, "does not have ORIGINAL"),
        ({"ImageType": ["ORIGINAL", "PRIMARY", "MIP"]}, "ImageType has MIP"),
        ({"SeriesDescription": "cor MIP 10mm"}, "SeriesDescription has MIP"),
        ({"SliceThickness": "8"}, "SliceThickness is 8 mm, not <=5"),
        ({"SliceThickness": None}, "SliceThickness is missing, not <=5"),
        ({"SliceThickness": "0"}, "SliceThickness is no thickness, not <=5"),
        ({"SliceThickness": "-1"}, "SliceThickness is no thickness, not <=5"),
    ],
)
def test_a_series_that_does_not_suit_is_left_out_and_said(
    elements: dict[str, object], why: str
) -> None:
    routing = routed(slices(4, **elements), CT)
    assert not routing.jobs
    assert why in routing.refusals[0].reason


@pytest.mark.filterwarnings("ignore:Invalid value for VR")
@pytest.mark.parametrize("thickness", ["0", "-1", "nan"])
def test_a_series_of_no_thickness_is_not_the_thinnest(thickness: str) -> None:
    text = CT.replace('thickness: "<=5", ', "")
    thick = slices(4, series=1, SliceThickness=thickness)
    for thin in (slices(4, series=2, SliceThickness="2"), slices(4, series=0, SliceThickness="2")):
        (job,) = routed([*thick, *thin], text).jobs
        assert job.inputs["volume"][0].SeriesInstanceUID == thin[0].SeriesInstanceUID


def test_a_series_with_a_reason_for_each_of_its_files_states_three_and_counts_the_rest() -> None:
    """A cine that a scanner filed under CT: it has frames, and nothing says where they lie."""
    routing = routed(slices(40, NumberOfFrames=9), CT)
    (refusal,) = routing.refusals
    assert refusal.reason.count("no PerFrameFunctionalGroupsSequence") == 3
    assert refusal.reason.endswith("and 37 more for such reasons")
    assert sum("PerFrameFunctional" in one for one in routing.verdicts[0].details) == 40


def test_too_few_slices_are_not_suitable() -> None:
    assert "it has 2 slices, not >=3" in routed(slices(2), CT).refusals[0].reason


def multi_frame(types: list[str]) -> Instance:
    """Return an enhanced CT with a frame of each of these types, 5 mm apart."""
    own = [
        {
            "PlanePositionSequence": {"ImagePositionPatient": [0, 0, 5 * number]},
            "CTImageFrameTypeSequence": {"FrameType": [kind, "PRIMARY", "VOLUME", "NONE"]},
        }
        for number, kind in enumerate(types)
    ]
    shared = {
        "PlaneOrientationSequence": {"ImageOrientationPatient": [1, 0, 0, 0, 1, 0]},
        "PixelMeasuresSequence": {"PixelSpacing": [0.7, 0.7], "SliceThickness": "5"},
    }
    return instance(
        Modality="CT",
        ImageType=["ORIGINAL", "PRIMARY", "VOLUME", "NONE"],
        NumberOfFrames=len(types),
        Rows=8,
        Columns=8,
        FrameOfReferenceUID="2.25.3",
        SharedFunctionalGroupsSequence=[functional_group(shared)],
        PerFrameFunctionalGroupsSequence=[functional_group(one) for one in own],
    )


def test_frames_count_as_slices() -> None:
    (job,) = routed([multi_frame(["ORIGINAL"] * 3)], CT).jobs
    assert "frames" not in job.parameters


def test_of_a_mixed_instance_only_the_original_frames_go_to_the_model() -> None:
    routing = routed([multi_frame(["DERIVED", "ORIGINAL"] * 3)], CT)
    (job,) = routing.jobs
    assert job.parameters["frames"] == [2, 4, 6]
    assert job.parameters["notes"] == ["3 of the 6 frames of the Instance"]
    assert any("FrameType has DERIVED" in line for line in routing.verdicts[0].details)


def test_a_localizer_in_the_series_does_not_cost_the_series() -> None:
    scout = instance(9, Modality="CT", ImageType=["ORIGINAL", "PRIMARY", "LOCALIZER"])
    routing = routed([scout, *slices(4)], CT)
    (job,) = routing.jobs
    assert scout not in job.inputs["volume"]
    assert job.parameters["notes"] == ["4 of the 5 Instances of the Series"]
    assert any("is a localizer" in line for line in routing.verdicts[0].details)


def test_a_series_with_a_slice_missing_gives_way_to_a_whole_one() -> None:
    torn = slices(7, series=1, SliceThickness="1")
    del torn[3]
    routing = routed([*torn, *slices(4, series=2)], CT)
    assert {one.SeriesInstanceUID for one in routing.jobs[0].instances} == {"2.25.1.2"}
    assert any("are 10.000 mm apart" in line for line in routing.verdicts[0].details)
    (alone,) = routed(torn, CT).refusals
    assert "send the missing slices" in alone.reason


def test_of_two_acquisitions_in_a_series_the_rule_takes_the_one_that_it_names() -> None:
    first = slices(4, AcquisitionNumber=1)
    second = slices(8, AcquisitionNumber=2)[4:]
    refusal = routed([*first, *second], CT).refusals[0]
    assert "equally good" in refusal.reason
    assert "its 4 slices of AcquisitionNumber 1 and Series" in refusal.reason
    assert "its 4 slices of AcquisitionNumber 2 are" in refusal.reason
    (job,) = routed([*first, *second], CT.replace("slices:", "AcquisitionNumber: 2, slices:")).jobs
    assert job.inputs["volume"] == tuple(second)


def test_a_series_that_the_rule_holds_for_in_part_is_left_out() -> None:
    text = CT.replace("{Modality: CT}", "{Modality: CT, SeriesDescription: chest}")
    part = [*slices(4, SeriesDescription="chest")]
    part[1].header.SeriesDescription = "other"
    routing = routed(part, text)
    assert not routing.jobs
    assert "only 3 of its 4 Instances" in routing.refusals[0].reason


NEVER = """
never:
  - ImageType: {any: [LOCALIZER, DERIVED]}
    except: {Modality: DX}
    reason: not an image of the patient's body as acquired
"""


def test_never_leaves_out_instances_and_says_why() -> None:
    scout = instance(1, series=9, Modality="CT", ImageType=["ORIGINAL", "PRIMARY", "LOCALIZER"])
    routing = routed([scout, *slices(4)], NEVER + CT)
    (job,) = routing.jobs
    assert scout not in job.instances
    verdict = routing.verdicts[0]
    assert (verdict.rule, verdict.matched) == ("never 1", True)
    assert verdict.deciding.startswith("1 of 5 Instances left out: ImageType has LOCALIZER")


def test_never_spares_what_it_excepts() -> None:
    assert routed([radiograph(ImageType=["DERIVED", "PRIMARY"])], NEVER + CXR).jobs


def test_a_study_left_out_altogether_is_not_suitable_with_the_reason() -> None:
    routing = routed(slices(4, ImageType=["DERIVED", "SECONDARY"]), NEVER + CT)
    (refusal,) = routing.refusals
    assert (refusal.rule, refusal.reason) == (
        "never 1",
        "not an image of the patient's body as acquired",
    )
    assert routing.verdicts[1].deciding == "every Instance is left out by a never rule"


def test_a_series_that_never_shortens_says_so() -> None:
    scout = instance(9, Modality="CT", ImageType=["ORIGINAL", "PRIMARY", "LOCALIZER"])
    (job,) = routed([scout, *slices(4)], NEVER + CT).jobs
    assert job.parameters["notes"] == ["4 of the 5 Instances of the Series"]


def test_a_rule_that_runs_nothing_says_why() -> None:
    text = "rules: [{name: us, when: {Modality: US}, run: [], reason: no validated rule}]"
    routing = routed([instance(Modality="US")], text)
    assert [(one.rule, one.reason) for one in routing.refusals] == [("us", "no validated rule")]
    assert routing.verdicts[0].outcome is Outcome.NOT_SUITABLE


def test_the_instance_that_came_nearest_says_why_not() -> None:
    text = CT.replace("{Modality: CT}", "{Modality: CT, text: [THORAX]}")
    routing = routed([instance(5, series=5, Modality="SR"), *slices(3)], text)
    verdict = routing.verdicts[0]
    assert "no word of [THORAX]" in verdict.deciding or "missing" in verdict.deciding
    assert "1 Instances: Modality is SR, not CT" in verdict.details


def test_a_study_that_no_rule_took_says_which_rules_said_no() -> None:
    routing = routed([instance(Modality="MR")], CXR + CT.replace("rules:\n", ""))
    assert routing.reason == (
        "no rule took it: cxr: Modality is MR, not CR or DX; ct: Modality is MR, not CT"
    )
    assert routing.refusals == ()
    assert explain_text(routing).endswith("-> nothing is run")


def test_the_number_of_instances_may_decide() -> None:
    text = CXR.replace("Modality: [CR, DX]", 'instances: ">=2"')
    assert routed([radiograph()], text).verdicts[0].deciding == (
        "the Study has 1 Instances, which is not >=2"
    )
    assert routed([radiograph(1), radiograph(2, ViewPosition="LL")], text).jobs


def test_routing_twice_gives_equal_jobs_of_json_values() -> None:
    images = [radiograph(1), radiograph(2, ViewPosition="LL")]
    first, second = routed(images, FAMILY), routed(images, FAMILY)
    assert first == second
    assert json.loads(json.dumps(first.jobs[0].parameters)) == first.jobs[0].parameters


def test_no_identity_of_the_patient_is_explained() -> None:
    secret = {
        "PatientName": "ZEBRA^QUAGGA",
        "PatientID": "Z-4711",
        "PatientBirthDate": "19651224",
        "StudyDescription": "ZEBRA knee",
        "AccessionNumber": "ACC-4711",
    }
    text = FAMILY.replace("Modality: DX", "Modality: DX, StudyDescription: chest")
    for images in ([radiograph(**secret)], [radiograph(**secret, ViewPosition=None)]):
        for rules in (text, FAMILY):
            said = explain_text(routed(images, rules))
            assert not [word for word in ("ZEBRA", "4711", "1965", "1224") if word in said]


def test_what_cannot_be_told_from_an_excluded_instance_is_excluded() -> None:
    never = "never: [{age: {max: 1Y, unknown: not_suitable}, reason: no newborns}]\n"
    assert not routed([radiograph(PatientAge=None)], never + CXR).jobs
    assert routed([radiograph()], never + CXR).jobs
