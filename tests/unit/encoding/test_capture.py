"""A results page shows the right thing on the right side, says what it is, and names nobody."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from pacs_ai.encoding import ENCODERS, Encoding
from pacs_ai.encoding.canvas import Canvas, font, picture, plain_text, wrapped
from pacs_ai.encoding.capture import WIDTH, render
from pacs_ai.encoding.scenes import MOST, Scene, scenes
from pacs_ai.models.inputs import projection
from pacs_ai.models.pictures import pictures_of
from pacs_ai.results import (
    Assertion,
    Box,
    Done,
    Embedding,
    Finding,
    Held,
    JobResults,
    Narrative,
    NothingFound,
    NotSuitable,
    Result,
    Segmentation,
    Sentence,
)
from pacs_ai.study import Instance, Job, read_instance
from tests.unit.encoding import sources as make
from tests.unit.pixels.made import SHARED


@pytest.fixture
def said(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Every text that is drawn on a page."""
    drawn: list[str] = []
    text, end = Canvas.text, Canvas.text_end

    def noting(self: Canvas, where: tuple[int, int], words: str, *rest: Any) -> None:
        drawn.append(words)
        text(self, where, words, *rest)

    def noting_end(self: Canvas, where: tuple[int, int], words: str, *rest: Any) -> None:
        drawn.append(words)
        end(self, where, words, *rest)

    monkeypatch.setattr(Canvas, "text", noting)
    monkeypatch.setattr(Canvas, "text_end", noting_end)
    return drawn


def film_work(film: Instance, *entries: JobResults, **changes: Any) -> Encoding:
    return make.encoding(make.study([film]), *entries, **changes)


def mask(film: Instance, array: NDArray[np.bool_], label: str = "left lung") -> Segmentation:
    return Segmentation(label, array, (film.SOPInstanceUID,), "p")


def as_frontal(film: Instance, *results: Result, view: str = "PA") -> JobResults:
    """Return what a model said of an image that its rule took as frontal."""
    return make.entry(*results, sources=[film.SOPInstanceUID], parameters={"view": view})


def test_the_page_says_first_that_nobody_verified_it(tmp_path: Path, said: list[str]) -> None:
    render(make.everything(tmp_path))
    assert said[0] == "AI - NOT VERIFIED"
    assert "REFERENCE MODEL - NOT FOR CLINICAL USE" in said
    assert "NOT PRODUCTION - DEMONSTRATION OR TEST" in said


def test_a_production_page_of_a_real_model_has_one_banner(tmp_path: Path, said: list[str]) -> None:
    film = make.radiograph(tmp_path)
    render(film_work(film, make.entry(mask(film, make.square((60, 50))))))
    assert said[0] == "AI - NOT VERIFIED"
    assert not any("REFERENCE" in one or "NOT PRODUCTION" in one for one in said)


def test_no_patient_identifier_is_drawn(tmp_path: Path, said: list[str]) -> None:
    work = make.everything(tmp_path)
    render(work)
    header = work.study.header
    words = " ".join(said)
    for keyword in (
        "PatientID",
        "AccessionNumber",
        "StudyID",
        "IssuerOfPatientID",
        "PatientBirthDate",
    ):
        assert f" {header[keyword].value} " not in f" {words} "
    for name in ("Doe", "Jane", "House"):
        assert name not in words


def test_no_sentence_of_a_draft_is_drawn(tmp_path: Path, said: list[str]) -> None:
    film = make.radiograph(tmp_path)
    uid = film.SOPInstanceUID
    opacity = Finding(
        "lung opacity", Assertion.PRESENT, (uid,), side="right", sentence="Unreleased."
    )
    draft = Narrative((Sentence("Unreleased."),), (uid,))
    render(film_work(film, make.entry(opacity, draft, kind="cxrreport", sources=[uid])))
    assert "Unreleased" not in " ".join(said)
    assert any("Present: lung opacity, right" in one for one in said)


def test_a_contradiction_of_the_header_is_drawn_in_words(tmp_path: Path, said: list[str]) -> None:
    film = make.radiograph(tmp_path)
    uid = film.SOPInstanceUID
    against = Finding(
        "body part contradicts header",
        Assertion.PRESENT,
        (uid,),
        score=0.953,
        sentence="BodyPartExamined is KNEE, and the pixels are like chest, not like knee",
    )
    embedding = Embedding(np.ones(2, np.float32), uid, "r")
    render(film_work(film, make.entry(embedding, against, kind="insight", sources=[uid])))
    words = " ".join(" ".join(said).split())
    assert "Body part contradicts header: BodyPartExamined is KNEE, and the pixels" in words
    assert "not like knee (certainty 95%)" in words
    assert "as the model gives it" not in words


def test_every_model_has_a_line_with_what_came_of_it(tmp_path: Path, said: list[str]) -> None:
    film = make.radiograph(tmp_path)
    one = mask(film, make.square((60, 50)))
    render(
        film_work(
            film,
            make.entry(one),
            make.entry(model=make.REPORTER, outcome=NotSuitable("no frontal image")),
            make.entry(model=make.REFERENCE, outcome=Held("two patients")),
        )
    )
    assert "MedImageParse 5 (Microsoft): done (1 outline)" in said
    assert "CXRReportGen 7 (Microsoft): not suitable. no frontal image" in said
    assert "Reference parser 0.1 (PACS AI): held for a person. two patients" in said


def test_nothing_found_is_not_a_normal_result(tmp_path: Path, said: list[str]) -> None:
    film = make.radiograph(tmp_path)
    entry = make.entry(model=make.REPORTER, outcome=NothingFound(), sources=[film.SOPInstanceUID])
    (dataset,) = ENCODERS["capture"](film_work(film, entry))
    assert "No finding flagged by CXRReportGen 7; not a normal result" in said
    assert dataset.BurnedInAnnotation == "YES"


def test_beside_an_uncertain_finding_nothing_is_flagged_as_present(
    tmp_path: Path, said: list[str]
) -> None:
    film = make.radiograph(tmp_path)
    uid = film.SOPInstanceUID
    unsure = Finding("lung nodule", Assertion.UNCERTAIN, (uid,), (Box(uid, 4, 5, 12, 20),))
    entry = make.entry(model=make.REPORTER, outcome=NothingFound((unsure,)), sources=[uid])
    render(film_work(film, entry))
    assert "Uncertain: lung nodule (box 1)" in said
    assert "No finding flagged as present by CXRReportGen 7; not a normal result" in said
    came_to = "done, no finding flagged as present; not a normal result"
    assert f"CXRReportGen 7 (Microsoft): {came_to}" in said
    assert not any("flagged by" in one or "flagged;" in one for one in said)


def test_silence_of_a_segmenter_is_not_silence_about_findings(
    tmp_path: Path, said: list[str]
) -> None:
    film = make.radiograph(tmp_path)
    render(film_work(film, make.entry(mask(film, make.square((60, 50))))))
    assert "No model looked for findings; not a normal result" in said


@pytest.mark.parametrize(
    "outcome",
    [NotSuitable("no"), Held("no"), Done((Embedding(np.ones(2, np.float32), "1.2", "r"),))],
)
def test_without_something_to_show_there_is_no_page(tmp_path: Path, outcome: Any) -> None:
    film = make.radiograph(tmp_path)
    assert ENCODERS["capture"](film_work(film, make.entry(outcome=outcome))) == ()


def test_the_object_says_that_it_is_burned_in_and_derived(tmp_path: Path) -> None:
    work = make.everything(tmp_path)
    (dataset,) = ENCODERS["capture"](work)
    assert dataset.SOPClassUID == "1.2.840.10008.5.1.4.1.1.7"
    assert (dataset.Modality, dataset.ConversionType) == ("OT", "WSD")
    assert list(dataset.ImageType) == ["DERIVED", "SECONDARY"]
    assert dataset.BurnedInAnnotation == "YES"
    (source,) = dataset.SourceImageSequence
    assert source.ReferencedSOPInstanceUID == work.study.instances[0].SOPInstanceUID
    assert "not verified" in dataset.DerivationDescription
    assert make.REFERENCE.name in dataset.DerivationDescription
    assert len(dataset.PixelData) == dataset.Rows * dataset.Columns * 3
    page = np.frombuffer(dataset.PixelData, np.uint8).reshape(dataset.Rows, WIDTH, 3)
    assert (page == render(work)).all()


# Sides of radiographs.


def turned(film: NDArray[np.uint16], array: NDArray[np.bool_], how: str) -> tuple[Any, Any]:
    return {
        "LF": (film, array),
        "RF": (film[:, ::-1], array[:, ::-1]),
        "LH": (film[::-1], array[::-1]),
        "FL": (film.T, array.T),
    }[how]


@pytest.mark.parametrize("how", ["LF", "RF", "LH", "FL"])
def test_a_radiograph_is_shown_upright_however_it_is_stored(tmp_path: Path, how: str) -> None:
    upright = np.random.default_rng(2).integers(0, 4095, (40, 30)).astype(np.uint16)
    array = np.zeros((40, 30), np.bool_)
    array[5:9, 20:28] = True  # top, on the patient's left
    stored, stored_mask = turned(upright, array, how)
    film = make.radiograph(
        tmp_path, pixels=np.ascontiguousarray(stored), PatientOrientation=list(how)
    )
    rows, columns = np.nonzero(stored_mask)
    box = Box(
        film.SOPInstanceUID,
        float(columns.min()),
        float(rows.min()),
        float(columns.max() + 1),
        float(rows.max() + 1),
    )
    finding = Finding("lung opacity", Assertion.PRESENT, (film.SOPInstanceUID,), (box,))
    results = (mask(film, np.ascontiguousarray(stored_mask)), finding)
    work = film_work(film, as_frontal(film, *results))
    ((scene,),) = scenes(work)
    assert scene.edges == ("R", "L", "H", "F")
    assert (scene.masks[0][0] == array).all()
    (frame,) = scene.frames
    assert (frame.left, frame.top, frame.right, frame.bottom) == (20, 5, 28, 9)
    expected = np.rint(np.clip((upright - 2047.5 + 0.5) / 4095 + 0.5, 0, 1) * 255)
    assert np.abs(scene.pixels - expected).max() <= 1


def shown_to_the_model(kind: str, **inputs: Instance) -> NDArray[np.uint8]:
    roles = {role: (one,) for role, one in inputs.items()}
    return projection(Job("r", "e", kind, roles, {}), *inputs).pixels


@pytest.mark.parametrize("position", ["", "THORAX", "PA"])
@pytest.mark.parametrize("how", ["RF", "LH", "FL", "FR"])
def test_a_frontal_image_is_shown_as_the_model_saw_it_wherever_its_rule_found_the_view(
    tmp_path: Path, how: str, position: str
) -> None:
    film = make.radiograph(tmp_path, PatientOrientation=list(how), ViewPosition=position or None)
    finding = Finding("lung opacity", Assertion.PRESENT, (film.SOPInstanceUID,))
    ((scene,),) = scenes(film_work(film, as_frontal(film, finding, view=position)))
    assert (scene.pixels == shown_to_the_model("cxrreport", frontal=film)).all()
    assert scene.edges == ("R", "L", "H", "F")
    assert scene.caption.startswith("Frontal")


def test_a_lateral_image_is_shown_as_the_model_saw_it_wherever_its_rule_found_the_view(
    tmp_path: Path,
) -> None:
    frontal = make.radiograph(tmp_path, ViewPosition=None)
    lateral = make.radiograph(
        tmp_path, number=2, ViewPosition="SEITLICH", PatientOrientation=["F", "A"]
    )
    uids = [frontal.SOPInstanceUID, lateral.SOPInstanceUID]
    finding = Finding("lung opacity", Assertion.PRESENT, (uids[0],))
    entry = make.entry(finding, kind="cxrreport", sources=uids, parameters={"view": ""})
    ((first, second),) = scenes(make.encoding(make.study([frontal, lateral]), entry))
    assert (first.pixels == shown_to_the_model("cxrreport", frontal=frontal)).all()
    assert (second.pixels == shown_to_the_model("cxrreport", lateral=lateral)).all()
    assert second.caption == "Lateral (SEITLICH)"


def test_an_image_that_no_rule_took_as_frontal_is_shown_as_the_model_saw_it(tmp_path: Path) -> None:
    film = make.radiograph(tmp_path, PatientOrientation=["R", "F"])
    one = mask(film, make.square((60, 50)))
    ((scene,),) = scenes(film_work(film, make.entry(one, sources=[film.SOPInstanceUID])))
    assert (scene.pixels == shown_to_the_model("parse2d", image=film)).all()
    assert scene.edges == ("L", "R", "H", "F")


def test_an_image_that_was_only_embedded_is_shown_as_it_was_embedded(tmp_path: Path) -> None:
    film = make.radiograph(tmp_path, PatientOrientation=["R", "F"], ViewPosition=None)
    uid = film.SOPInstanceUID
    against = Finding("body part contradicts header", Assertion.PRESENT, (uid,), sentence="x")
    entry = make.entry(
        Embedding(np.ones(2, np.float32), uid, "r"), against, kind="insight", sources=[uid]
    )
    ((scene,),) = scenes(film_work(film, entry))
    (embedded,) = pictures_of(Job("r", "e", "insight", {"image": (film,)}, {}), None).pixels
    assert (scene.pixels == embedded).all()


def test_without_patient_orientation_there_are_no_letters(tmp_path: Path) -> None:
    film = make.radiograph(tmp_path, PatientOrientation=None)
    ((scene,),) = scenes(film_work(film, make.entry(mask(film, make.square((60, 50))))))
    assert scene.edges == ("", "", "", "")
    assert "sides are not stated" in scene.caption


def test_pixels_that_are_not_square_keep_their_proportions() -> None:
    scene = Scene(np.zeros((100, 100), np.uint8), 2.0, (), (), ("", "", "", ""), "")
    shown, scale = picture(scene, (400, 400))
    assert shown.shape == (400, 200, 3)
    assert scale == (2.0, 4.0)


def test_an_outline_lies_on_its_mask_and_hides_nothing() -> None:
    array = np.zeros((100, 100), np.bool_)
    array[20:60, 10:40] = True
    grey = np.full((100, 100), 100, np.uint8)
    scene = Scene(grey, 1.0, ((array, (255, 0, 0)),), (), ("", "", "", ""), "")
    shown, _ = picture(scene, (100, 100))
    marked = (shown != 100).any(axis=2)
    assert (marked == array).all()
    assert tuple(shown[20, 25]) == (255, 0, 0)
    inside = shown[40, 25].astype(int)
    assert np.abs(inside - 100).max() < 20


# Sides of volumes.

SAGITTAL = (0.0, 1.0, 0.0, 0.0, 0.0, -1.0)
CORONAL = (1.0, 0.0, 0.0, 0.0, 0.0, -1.0)
FLIPPED = (-1.0, 0.0, 0.0, 0.0, -1.0, 0.0)
UPSIDE_DOWN = (1.0, 0.0, 0.0, 0.0, -1.0, 0.0)
ANGLE = np.deg2rad(7)
OBLIQUE = (
    float(np.cos(ANGLE)),
    float(np.sin(ANGLE)),
    0.0,
    -float(np.sin(ANGLE)),
    float(np.cos(ANGLE)),
    0.0,
)


@pytest.mark.parametrize(
    "orientation",
    [make.AXIAL, SAGITTAL, CORONAL, FLIPPED, UPSIDE_DOWN, OBLIQUE],
    ids=["axial", "sagittal", "coronal", "flipped", "upside down", "oblique"],
)
@pytest.mark.parametrize("shuffled", [False, True], ids=["in order", "shuffled"])
def test_a_volume_s_planes_have_head_up_and_left_on_the_right(
    tmp_path: Path,
    orientation: Sequence[float],
    shuffled: bool,  # noqa: FBT001 - parameter
) -> None:
    shape = (14, 16, 18)
    scan = list(make.volume(tmp_path, shape=shape, orientation=orientation, spacing=(2, 1.5, 1)))
    if shuffled:
        scan = [scan[index] for index in np.random.default_rng(3).permutation(len(scan))]
    array = block(scan, shape)
    uids = tuple(one.SOPInstanceUID for one in scan)
    work = make.encoding(
        make.study(scan),
        make.entry(Segmentation("left lung", array, uids, "p"), kind="parse3d", sources=uids),
    )
    ((axial, coronal, sagittal),) = scenes(work)
    assert axial.edges == ("R", "L", "A", "P")
    assert coronal.edges == ("R", "L", "H", "F")
    assert sagittal.edges == ("A", "P", "H", "F")
    assert lies(axial) == (False, True)  # anterior half, patient's left
    assert lies(coronal) == (False, True)  # head half, patient's left
    assert lies(sagittal) == (False, False)  # head half, anterior


def block(scan: list[Instance], shape: tuple[int, int, int]) -> NDArray[np.bool_]:
    """Return a mask of the octant towards left, front and head, found by position alone."""
    positions = np.empty((*shape, 3))
    for index, one in enumerate(scan):
        header = one.header
        row = np.array(header.ImageOrientationPatient[:3], float)
        column = np.array(header.ImageOrientationPatient[3:], float)
        origin = np.array(header.ImagePositionPatient, float)
        down, across = (float(value) for value in header.PixelSpacing)
        rows, columns = np.mgrid[0 : shape[1], 0 : shape[2]]
        positions[index] = (
            origin + columns[..., None] * across * row + rows[..., None] * down * column
        )
    middle = positions.reshape(-1, 3).mean(axis=0)
    away = positions - middle
    found: NDArray[np.bool_] = (away[..., 0] > 2) & (away[..., 1] < -2) & (away[..., 2] > 2)
    return found


def lies(scene: Scene) -> tuple[bool, bool]:
    """Tell whether a scene's mask lies in the lower half, and in the right half."""
    rows, columns = np.nonzero(scene.masks[0][0])
    middle = (np.array(scene.pixels.shape) - 1) / 2
    return bool(rows.mean() > middle[0]), bool(columns.mean() > middle[1])


def test_planes_go_through_the_widest_part_at_true_proportions(tmp_path: Path) -> None:
    scan = make.volume(tmp_path, shape=(8, 20, 30), spacing=(4, 0.5, 0.5))
    array = np.zeros((8, 20, 30), np.bool_)
    array[2, 4:6, 4:6] = True
    array[5, 3:15, 3:20] = True
    uids = tuple(one.SOPInstanceUID for one in scan)
    entry = make.entry(Segmentation("heart", array, uids, "p"), kind="parse3d", sources=uids)
    ((axial, coronal, _),) = scenes(make.encoding(make.study(scan), entry))
    assert axial.masks[0][0].sum() == 12 * 17
    assert coronal.aspect == pytest.approx(8)
    assert axial.caption.startswith("Axial, plane 3 of 8")


def test_a_source_that_cannot_be_shown_says_why(tmp_path: Path) -> None:
    film = make.radiograph(tmp_path, PatientOrientation=["A", "F"])
    work = film_work(film, as_frontal(film, mask(film, make.square((60, 50)))))
    ((scene,),) = scenes(work)
    assert scene.pixels.size == 0
    assert "cannot be shown" in scene.caption
    assert "PatientOrientation" in scene.caption
    assert render(work).shape[1] == WIDTH


def test_text_is_folded_to_letters_that_the_font_has() -> None:
    assert plain_text("Modèle – 5") == "Modele - 5"


def test_a_slice_alone_says_its_sides_by_its_orientation(tmp_path: Path) -> None:
    scan = make.volume(tmp_path)
    uid = scan[0].SOPInstanceUID
    shape = (int(scan[0].header.Rows), int(scan[0].header.Columns))
    entry = make.entry(Segmentation("liver", np.ones(shape, bool), (uid,), "p"), sources=(uid,))
    ((shown,),) = scenes(make.encoding(make.study(scan), entry))
    assert shown.edges == ("R", "L", "A", "P")
    assert len(shown.masks) == 1


def test_each_frame_that_was_looked_at_is_a_picture_with_its_own_mask() -> None:
    cine = read_instance(SHARED / "us/us-34frame-ybr422-jpeg.dcm", digest="d")
    uid = cine.SOPInstanceUID
    array = np.zeros((430, 480), bool)
    array[100:200, 50:90] = True
    entries = [
        make.entry(
            Segmentation(label, array, (uid,), "p", (number,)),
            sources=(uid,),
            parameters={"frame": number},
        )
        for label, number in (("left heart ventricle", 3), ("left heart atrium", 17))
    ]
    (shown,) = scenes(make.encoding(make.study([cine]), *entries))
    assert [(one.caption.partition(";")[0], len(one.masks)) for one in shown] == [
        ("As stored, frame 3 of 34", 1),
        ("As stored, frame 17 of 34", 1),
    ]
    assert not np.array_equal(shown[0].pixels, shown[1].pixels)


# What is not on a picture is not spoken of as if it were.


def many(folder: Path, count: int) -> Encoding:
    """Return work on as many radiographs, each with a nodule in a box of its own."""
    films = [make.radiograph(folder, number=number + 1) for number in range(count)]
    entries = []
    for film in films:
        box = Box(film.SOPInstanceUID, 10, 20, 30, 40)
        nodule = Finding("lung nodule", Assertion.PRESENT, (film.SOPInstanceUID,), (box,))
        entries.append(as_frontal(film, nodule))
    return make.encoding(make.study(films), *entries)


def tags(work: Encoding) -> list[str]:
    return [frame.tag for row in scenes(work) for scene in row for frame in scene.frames]


def test_pictures_beyond_three_stand_in_further_rows(tmp_path: Path, said: list[str]) -> None:
    work = many(tmp_path, 5)
    assert [len(row) for row in scenes(work)] == [3, 2]
    (dataset,) = ENCODERS["capture"](work)
    assert tags(work) == ["1", "2", "3", "4", "5"]
    assert {f"Present: lung nodule (box {tag})" for tag in tags(work)} <= set(said)
    assert not any("not shown" in one for one in said)
    assert len(dataset.SourceImageSequence) == 5


def test_pictures_that_a_page_has_no_room_for_are_counted_and_no_box_on_them_is_named(
    tmp_path: Path, said: list[str]
) -> None:
    work = many(tmp_path, MOST + 2)
    (dataset,) = ENCODERS["capture"](work)
    assert len(tags(work)) == MOST
    assert "2 more pictures were analysed and are not shown" in said
    named = {f"Present: lung nodule (box {tag})" for tag in tags(work)}
    assert {one for one in said if "(box" in one} == named
    unseen = "Present: lung nodule (localised on a picture that is not shown)"
    assert said.count(unseen) == 2
    assert len(dataset.SourceImageSequence) == MOST


def test_a_box_on_a_picture_that_cannot_be_shown_is_not_named(
    tmp_path: Path, said: list[str]
) -> None:
    film = make.radiograph(tmp_path, PatientOrientation=["A", "F"])
    uid = film.SOPInstanceUID
    nodule = Finding("lung nodule", Assertion.PRESENT, (uid,), (Box(uid, 10, 20, 30, 40),))
    render(film_work(film, as_frontal(film, nodule)))
    assert "Present: lung nodule (localised on a picture that is not shown)" in said


def test_a_box_lies_on_the_frame_that_was_looked_at() -> None:
    cine = read_instance(SHARED / "us/us-34frame-ybr422-jpeg.dcm", digest="d")
    uid = cine.SOPInstanceUID
    nodule = Finding("lung nodule", Assertion.PRESENT, (uid,), (Box(uid, 100, 200, 300, 400),))
    entry = make.entry(nodule, sources=[uid], parameters={"frame": 3})
    ((scene,),) = scenes(make.encoding(make.study([cine]), entry))
    assert [frame.tag for frame in scene.frames] == ["1"]
    assert "frame 3 of 34" in scene.caption


def test_the_caption_of_a_small_picture_is_whole(said: list[str]) -> None:
    caption = "As stored (LEFT DECUBITUS W), frame 17 of 34; sides are not stated in the header"
    grey = np.full((60, 50), 100, np.uint8)
    scene = Scene(grey, 1.0, (), (), ("", "", "", ""), caption)
    canvas = Canvas(300, 300)
    canvas.scene(scene, (0, 0, 300, 300))
    assert " ".join(reversed(said)) == caption
    shown = (canvas.pixels == 100).all(axis=2).any(axis=1).nonzero()[0]
    assert shown.max() < 300 - 24 * len(said)  # no line lies on the picture


@pytest.mark.parametrize(
    "text",
    [
        "HEART SIZE AND MEDIASTINUM MUST NOT BE JUDGED WITHOUT AN UPRIGHT IMAGE. " * 3,
        "W" * 300,
        "series 1.2.826.0.1.3680043." + "8" * 90 + " is not one grid",
        "iiii llll " * 60,
    ],
)
@pytest.mark.parametrize(("width", "size"), [(752, 20), (200, 17)])
def test_no_line_is_wider_than_its_room_and_no_letter_is_lost(
    text: str, width: int, size: int
) -> None:
    lines = wrapped(text, width, size)
    assert max(font(size).getlength(line) for line in lines) <= width
    assert "".join(lines).replace(" ", "") == text.replace(" ", "")


def test_a_note_in_capitals_ends_on_the_page(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ends: list[float] = []
    text = Canvas.text

    def noting(self: Canvas, where: tuple[int, int], words: str, size: int, *rest: Any) -> None:
        ends.append(where[0] + font(size).getlength(plain_text(words)))
        text(self, where, words, size, *rest)

    monkeypatch.setattr(Canvas, "text", noting)
    film = make.radiograph(tmp_path)
    entry = make.entry(mask(film, make.square((60, 50))), parameters={"notes": ["WARM AWAY " * 40]})
    render(film_work(film, entry))
    assert max(ends) <= WIDTH
