"""Images without a view, from file to results: ultrasound, ophthalmic images and photographs.

The endpoint is scripted: it finds what is bright, so that a mask that was mirrored or shifted on the way
does not lie on the bright pixels of its source.
"""

from __future__ import annotations

import base64
import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import highdicom as hd
import numpy as np
import PIL.Image
import pydicom
import pytest
from numpy.typing import NDArray
from pydicom.uid import VLPhotographicImageStorage

from pacs_ai.cli import process
from pacs_ai.encoding.canvas import Canvas
from pacs_ai.pixels import contrast
from pacs_ai.pixels.display import View, display_image
from pacs_ai.settings import Identity
from pacs_ai.study import read_instance
from tests.peers import free_port
from tests.unit.encoding import sources
from tests.unit.models.fake_endpoint import Asked, FakeEndpoint, endpoint
from tests.unit.pixels.made import SHARED, at, enhanced

CONFIG = """
site: {{name: Test, time_zone: Etc/UTC, use: research, responsible: tests}}
endpoints:
  parse2d: {{kind: parse2d, url: "{url}", name: Parse, version: "1", distributions: {file}}}
defaults: {{max_age: "off"}}
rules:
  - name: ultrasound
    when: {{Modality: US}}
    select: {{take: image{frame}}}
    run: [{{parse2d: [left heart ventricle, fetal head]}}]
  - name: heart
    when: {{Modality: MR}}
    select: {{take: image{frame}}}
    run: [{{parse2d: [left heart ventricle]}}]
  - name: eye
    when: {{Modality: OP}}
    select: {{take: image}}
    run: [{{parse2d: [optic disc, optic cup]}}]
  - name: endoscopy
    when: {{Modality: [ES, OT]}}
    select: {{take: image}}
    run: [{{parse2d: [neoplastic colon polyp]}}]
  - name: skin
    when: {{Modality: XC}}
    select: {{take: image}}
    run: [{{parse2d: [skin lesion]}}]
  - name: retina
    when: {{Modality: OPT}}
    select: {{take: image}}
    run: [{{parse2d: [retinal edema]}}]
  - name: slide
    when: {{Modality: SM}}
    select: {{take: image, frame: all}}
    run: [{{parse2d: [epithelial breast cells]}}]
"""
FLAT = [1, 1]
"""A Beta distribution that holds every value for equally likely."""
BRIGHT = 110
NOT_FOUND = "Not found by the model, which does not say"


def sent(asked: Asked) -> NDArray[np.uint8]:
    with PIL.Image.open(io.BytesIO(base64.b64decode(asked.row()["image"]))) as opened:
        return np.asarray(opened)


def bright(asked: Asked) -> Any:
    """Find the first prompt where the picture is bright, and nothing for the others."""
    picture = sent(asked)
    level = picture.max(axis=2) if picture.ndim == 3 else picture
    masks = np.zeros((asked.row()["text"].count("&") + 1, 1024, 1024), np.uint8)
    if "cup" not in asked.row()["text"]:
        masks[0] = np.where(level > BRIGHT, 250, 3)
    data = {
        "data": base64.b64encode(masks.tobytes()).decode(),
        "shape": masks.shape,
        "dtype": "uint8",
    }
    return [{"image_features": json.dumps(data), "text_features": ["x"] * len(masks)}]


@pytest.fixture
def fake() -> Iterator[FakeEndpoint]:
    with endpoint(bright) as one:
        yield one


def run(folder: Path, fake: FakeEndpoint, path: Path, frame: str = "") -> dict[str, Any]:
    """Process a file; the report, and the results by modality."""
    config, out = folder / "site.yaml", folder / "out"
    file = folder / "target_dist.json"
    if not file.exists():
        _distributions(file, likely=FLAT)
    config.write_text(CONFIG.format(url=fake.url, frame=frame, file=file))
    assert process.run([path], out, config, Identity.LENIENT) == 0
    found = {"out": out, "report": json.loads((out / "report.json").read_text())}
    for one in out.rglob("*.dcm"):
        data_set = pydicom.dcmread(one)
        found[str(data_set.Modality)] = data_set
    return found


def _distributions(file: Path, *, likely: list[int]) -> None:
    """Write a distribution file of the test's own; ``likely`` is of the mask's probability."""
    groups = {"Endoscopy": "neoplastic polyp", "Dermoscopy": "lesion", "OCT": "edema"}
    file.write_text(
        json.dumps({one: {name: [likely, FLAT, FLAT, FLAT]} for one, name in groups.items()})
    )


def overlap(mask: NDArray[np.bool_], truth: NDArray[np.bool_]) -> float:
    return float((mask & truth).sum() / (mask | truth).sum())


@pytest.mark.parametrize(
    ("name", "frame", "number", "which"),
    [
        ("us/us-34frame-ybr422-jpeg.dcm", "", 17, "the one in the middle"),
        ("us/us-34frame-ybr422-jpeg.dcm", ", frame: 3", 3, "the one that the rule names"),
        ("us/us-1frame-palette-rle.dcm", "", None, ""),
        ("us/us-1frame-ybr_full-rle.dcm", "", None, ""),
        ("vl/ophthalmic-ir-heidelberg-jpegll.dcm", "", None, ""),
    ],
)
def test_mask_lies_on_the_frame_that_was_looked_at_and_the_results_say_which(
    tmp_path: Path, fake: FakeEndpoint, name: str, frame: str, number: int | None, which: str
) -> None:
    path = SHARED / name
    found = run(tmp_path, fake, path, frame)
    source = read_instance(path, digest="")
    index = None if number is None else number - 1
    shown = display_image(source, view=View.ANY, frame=index)
    level = shown.pixels.max(axis=2) if shown.pixels.ndim == 3 else shown.pixels
    segmentation = found["SEG"]
    (mask,) = segmentation.pixel_array.astype(bool).reshape(-1, *level.shape)
    assert overlap(mask, level > BRIGHT) > 0.85
    assert overlap(mask[:, ::-1], level > BRIGHT) < 0.7
    assert overlap(mask[::-1], level > BRIGHT) < 0.7
    (group,) = segmentation.PerFrameFunctionalGroupsSequence
    (image,) = group.DerivationImageSequence[0].SourceImageSequence
    assert image.ReferencedSOPInstanceUID == source.SOPInstanceUID
    assert image.get("ReferencedFrameNumber") == number
    if number is not None:
        assert which
        assert sent(fake.asked[0]).shape[:2] == (1024, 1024)
    # Colour stays colour on the wire.
    assert (sent(fake.asked[0]).ndim == 3) is (shown.pixels.ndim == 3)


def test_every_frame_of_a_cine_has_its_own_mask_and_the_page_shows_the_fullest(
    tmp_path: Path, fake: FakeEndpoint, page: list[str]
) -> None:
    fake.script = [bright_rows]
    path = SHARED / "us/us-34frame-ybr422-jpeg.dcm"
    found = run(tmp_path, fake, path, ", frame: all")
    source = read_instance(path, digest="")
    segmentation = found["SEG"]
    masks = segmentation.pixel_array.astype(bool)
    areas = {}
    for mask, group in zip(masks, segmentation.PerFrameFunctionalGroupsSequence, strict=True):
        (image,) = group.DerivationImageSequence[0].SourceImageSequence
        number = int(image.ReferencedFrameNumber)
        level = display_image(source, view=View.ANY, frame=number - 1).pixels.max(axis=2)
        assert overlap(mask, level > BRIGHT) > 0.85
        areas[number] = int(mask.sum())
    assert sorted(areas) == [*range(1, 35)]
    assert "Left heart ventricle found on 34 of 34 frames" in page
    fullest = max(areas, key=lambda number: areas[number])
    assert any(line.startswith(f"As stored, frame {fullest} of 34") for line in page)
    assert "SR" not in found  # there is nothing to measure on frames without a place


def grey_cine(folder: Path, *blank: int) -> Path:
    """Return a grey cine without a window, compressed, of a bright bar that moves; some frames are blank."""
    frames = np.random.default_rng(5).integers(10, 60, (9, 90, 120)).astype(np.uint8)
    for index in range(9):
        frames[index] += np.uint8(3 * index)
        frames[index, 20:60, 5 + 9 * index : 35 + 9 * index] = 200
    for number in blank:
        frames[number - 1] = 0
    data_set = sources.header(
        1,
        SOPClassUID="1.2.840.10008.5.1.4.1.1.3.1",
        Modality="US",
        Rows=90,
        Columns=120,
        SamplesPerPixel=1,
        PhotometricInterpretation="MONOCHROME2",
        BitsAllocated=8,
        BitsStored=8,
        HighBit=7,
        PixelRepresentation=0,
        NumberOfFrames=len(frames),
    )
    data_set.PixelData = frames.tobytes()
    data_set["PixelData"].VR = "OB"
    data_set.file_meta = pydicom.dataset.FileMetaDataset()
    data_set.file_meta.TransferSyntaxUID = pydicom.uid.ExplicitVRLittleEndian
    data_set.compress(pydicom.uid.RLELossless, generate_instance_uid=False)
    path = folder / "cine.dcm"
    data_set.save_as(path, enforce_file_format=True)
    return path


def test_a_grey_cine_without_a_window_goes_through_around_its_blank_frames(
    tmp_path: Path, fake: FakeEndpoint, page: list[str]
) -> None:
    fake.script = [bright_rows]
    path = grey_cine(tmp_path, 1, 5)
    found = run(tmp_path, fake, path, ", frame: all")
    (study,) = found["report"]["studies"]
    assert study["state"] == "done"
    masks = found["SEG"].pixel_array.astype(bool)
    stored = pydicom.dcmread(path).pixel_array
    numbers = []
    for mask, group in zip(masks, found["SEG"].PerFrameFunctionalGroupsSequence, strict=True):
        (image,) = group.DerivationImageSequence[0].SourceImageSequence
        numbers.append(int(image.ReferencedFrameNumber))
        assert overlap(mask, stored[numbers[-1] - 1] == 200) > 0.95
    assert numbers == [2, 3, 4, 6, 7, 8, 9]
    assert "Left heart ventricle found on 7 of 7 frames" in page
    said = " ".join(" ".join(page).split())
    assert (
        "7 of 9 frames were looked at; left out because all pixels of each have one value: frames 1, 5"
        in said
    )


def test_the_page_shows_a_frame_in_the_contrast_that_the_model_saw(
    tmp_path: Path, fake: FakeEndpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    drawn = []
    scene = Canvas.scene

    def noting(self: Canvas, shown: Any, *rest: Any) -> Any:
        drawn.append(shown)
        return scene(self, shown, *rest)

    monkeypatch.setattr(Canvas, "scene", noting)
    fake.script = [bright_rows]
    path = grey_cine(tmp_path, 1)
    run(tmp_path, fake, path, ", frame: all")
    source = read_instance(path, digest="")
    common = contrast.common(source)
    number = int(drawn[0].caption.split("frame ")[1].split()[0])
    whole, alone = (
        display_image(source, view=View.ANY, frame=number - 1, common=one).pixels
        for one in (common, None)
    )
    np.testing.assert_array_equal(drawn[0].pixels, whole)
    assert (whole != alone).any()


def test_a_cine_of_blank_frames_is_not_suitable(tmp_path: Path, fake: FakeEndpoint) -> None:
    found = run(tmp_path, fake, grey_cine(tmp_path, *range(1, 10)), ", frame: all")
    (study,) = found["report"]["studies"]
    assert study["state"] == "not_suitable"
    assert "each of the 9 frames of Instance" in json.dumps(study)
    assert not fake.asked


def test_a_cine_of_one_slice_of_the_heart_comes_back_where_that_slice_lies(
    tmp_path: Path, fake: FakeEndpoint
) -> None:
    """An enhanced MR of phases: one place, one Frame of Reference, a mask for each frame."""
    fake.script = [bright_rows]
    frames = np.random.default_rng(6).integers(0, 300, (6, 40, 50)).astype(np.uint16)
    for index in range(1, 6):
        frames[index, 5:25, 4 * index : 4 * index + 16] = 3000
    frames[0] = 0
    own = at(*[(-12.5, 30.25, 7)] * 6)
    path = enhanced(tmp_path, frames, modality="MR", own=own).path
    found = run(tmp_path, fake, path, ", frame: all")
    segmentation = found["SEG"]
    assert segmentation.FrameOfReferenceUID == "2.25.3"
    numbers = []
    masks = segmentation.pixel_array.astype(bool)
    for mask, group in zip(masks, segmentation.PerFrameFunctionalGroupsSequence, strict=True):
        (image,) = group.DerivationImageSequence[0].SourceImageSequence
        numbers.append(int(image.ReferencedFrameNumber))
        assert overlap(mask, frames[numbers[-1] - 1] == 3000) > 0.9
        assert group.PlanePositionSequence[0].ImagePositionPatient == [-12.5, 30.25, 7]
    assert numbers == [2, 3, 4, 5, 6]


def stained(asked: Asked) -> Any:
    """Find the prompt where a tile is stained, on every row of the call."""
    records = []
    for image, _ in asked.body["input_data"]["data"]:
        with PIL.Image.open(io.BytesIO(base64.b64decode(image))) as opened:
            green = np.asarray(opened)[..., 1]
        data = base64.b64encode(np.where(green < 128, 250, 3).astype(np.uint8).tobytes()).decode()
        features = {"data": data, "shape": [1, 1024, 1024], "dtype": "uint8"}
        records.append({"image_features": json.dumps(features), "text_features": ["x"]})
    return records


def placed(folder: Path) -> Path:
    """Return the shared slide with what it lacks: origin, thickness, a Frame of Reference that is a UID."""
    data_set = pydicom.dcmread(SHARED / "wsi/sm-15frame-jpeg-camelyon.dcm")
    origin = pydicom.Dataset()
    origin.XOffsetInSlideCoordinateSystem, origin.YOffsetInSlideCoordinateSystem = 25.0, 60.0
    data_set.TotalPixelMatrixOriginSequence = [origin]
    (shared,) = data_set.SharedFunctionalGroupsSequence
    shared.PixelMeasuresSequence[0].SliceThickness = "0.001"  # highdicom's reader wants it
    data_set["FrameOfReferenceUID"] = pydicom.DataElement("FrameOfReferenceUID", "UI", "2.25.74")
    path = folder / "slide.dcm"
    data_set.save_as(path)
    return path


def test_masks_on_the_tiles_of_a_slide_make_one_picture_of_it(
    tmp_path: Path, fake: FakeEndpoint, page: list[str]
) -> None:
    fake.script = [stained]
    path = placed(tmp_path)
    run(tmp_path, fake, path)
    frames = pydicom.pixels.pixel_array(path)
    whole = np.zeros((768, 1280), np.bool_)
    for index, pixels in enumerate(frames):
        row, column = divmod(index, 5)
        whole[row * 256 :, column * 256 :][:256, :256] = pixels[..., 1] < 128
    (written,) = (tmp_path / "out").rglob("*segmentation*.dcm")
    matrix = hd.seg.segread(written).get_total_pixel_matrix()[..., 0].astype(bool)
    assert matrix.shape == (700, 1152)
    assert overlap(matrix, whole[:700, :1152]) > 0.85
    assert overlap(matrix[::-1], whole[:700, :1152]) < 0.5
    assert overlap(matrix[:, ::-1], whole[:700, :1152]) < 0.5
    assert any("tiles were looked at" in line for line in page)


def test_a_slide_that_does_not_say_where_it_lies_is_refused(
    tmp_path: Path, fake: FakeEndpoint
) -> None:
    found = run(tmp_path, fake, SHARED / "wsi/sm-15frame-jpeg-camelyon.dcm")
    (study,) = found["report"]["studies"]
    assert study["state"] == "not_suitable"
    assert "FrameOfReferenceUID" in json.dumps(study)
    assert not fake.asked


@pytest.fixture
def page(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Every text that is drawn on a page, line by line."""
    drawn: list[str] = []
    text = Canvas.text

    def noting(self: Canvas, where: tuple[int, int], words: str, *rest: Any) -> None:
        drawn.append(words)
        text(self, where, words, *rest)

    monkeypatch.setattr(Canvas, "text", noting)
    return drawn


def test_what_was_not_found_is_said_on_the_page(
    tmp_path: Path, fake: FakeEndpoint, page: list[str]
) -> None:
    found = run(tmp_path, fake, SHARED / "us/us-34frame-ybr422-jpeg.dcm")
    assert "Only frame 17 of 34 was looked at, the one in the middle" in page
    assert any(line.startswith("As stored, frame 17 of 34") for line in page)
    assert f"{NOT_FOUND} that it is absent: fetal head" in " ".join(" ".join(page).split())
    assert [one.SegmentLabel for one in found["SEG"].SegmentSequence] == ["Left heart ventricle"]


def photograph(folder: Path, modality: str) -> Path:
    """Return the shared endoscopic photograph as another kind of camera or archive would write it."""
    data_set = pydicom.dcmread(SHARED / "vl/endoscopy-barretts-j2ki-nema.dcm")
    data_set.Modality = modality
    if modality == "XC":
        data_set.SOPClassUID = data_set.file_meta.MediaStorageSOPClassUID = (
            VLPhotographicImageStorage
        )
    path = folder / "photograph.dcm"
    data_set.save_as(path)
    return path


@pytest.mark.parametrize(
    ("modality", "label", "words"),
    [
        ("ES", "Neoplastic colon polyp", "neoplastic polyp in colon endoscope"),
        ("OT", "Neoplastic colon polyp", "neoplastic polyp in colon endoscope"),
        ("XC", "Skin lesion", "lesion in skin dermoscopy"),
    ],
)
def test_a_lesion_whose_mask_looks_like_one_is_written(
    tmp_path: Path, fake: FakeEndpoint, modality: str, label: str, words: str
) -> None:
    path = photograph(tmp_path, modality)
    found = run(tmp_path, fake, path)
    shown = display_image(read_instance(path, digest=""), view=View.ANY)
    mask = found["SEG"].pixel_array.astype(bool).reshape(shown.pixels.shape[:2])
    assert overlap(mask, shown.pixels.max(axis=2) > BRIGHT) > 0.85
    (segment,) = found["SEG"].SegmentSequence
    assert segment.SegmentLabel == label
    assert fake.asked[0].row()["text"] == words


def test_a_slice_of_the_retina_has_its_mask_on_the_frame_that_was_looked_at(
    tmp_path: Path, fake: FakeEndpoint
) -> None:
    layers = np.full((3, 60, 90), 20, np.uint8)
    layers[:, 35:45] = 120
    layers[1, 10:20, 5:25] = 240
    source = enhanced(
        tmp_path,
        layers,
        modality="OPT",
        own=at((0, 0, 0), (0, 0, 1), (0, 0, 2)),
        StudyDate="20261123",
    )
    found = run(tmp_path, fake, source.path)
    shown = display_image(source, view=View.ANY, frame=1).pixels
    (mask,) = found["SEG"].pixel_array.astype(bool).reshape(-1, 60, 90)
    assert overlap(mask, shown > BRIGHT) > 0.85
    assert overlap(mask[:, ::-1], shown > BRIGHT) < 0.85
    (group,) = found["SEG"].PerFrameFunctionalGroupsSequence
    (image,) = group.DerivationImageSequence[0].SourceImageSequence
    assert image.ReferencedFrameNumber == 2


MAMMOGRAM = """
site: {{name: Test, time_zone: Etc/UTC, use: research, responsible: tests}}
endpoints:
  demo:
    kind: parse2d
    url: http://127.0.0.1:{port}/score
    key: file:{key}
    name: Demo
    version: "1"
    reference: true
defaults: {{max_age: "off"}}
rules:
  - name: mammogram
    when: {{Modality: MG}}
    select: {{take: image}}
    run: [{{demo: [breast]}}]
"""


def test_the_reference_model_finds_the_breast_on_a_mammogram(tmp_path: Path) -> None:
    path = SHARED / "mg/mg-mlo-12bit-jpeglossless.dcm"
    config, key = tmp_path / "site.yaml", tmp_path / "key"
    key.write_text("k-1")
    key.chmod(0o600)
    config.write_text(MAMMOGRAM.format(port=free_port(), key=key))
    assert process.run([path], tmp_path / "out", config, Identity.LENIENT) == 0
    written = {path.name.split("-")[0]: path for path in (tmp_path / "out").glob("*/*.dcm")}
    assert set(written) == {"segmentation", "capture"}  # nothing is measured on a projection
    segmentation = pydicom.dcmread(written["segmentation"])
    assert [one.SegmentLabel for one in segmentation.SegmentSequence] == ["Breast"]
    level = display_image(read_instance(path, digest=""), view=View.ANY).pixels
    mask = segmentation.pixel_array.astype(bool).reshape(level.shape)
    assert overlap(mask, level > 8) > 0.85
    assert overlap(mask[:, ::-1], level > 8) < 0.5


def test_a_lesion_whose_mask_looks_like_none_is_not_found(
    tmp_path: Path, fake: FakeEndpoint
) -> None:
    _distributions(tmp_path / "target_dist.json", likely=[3000, 7000])
    found = run(tmp_path, fake, photograph(tmp_path, "ES"))
    assert "SEG" not in found
    assert found["report"]["studies"][0]["state"] == "nothing_found"


def test_an_image_of_a_retired_sop_class_is_refused_by_name(
    tmp_path: Path, fake: FakeEndpoint
) -> None:
    config, out = tmp_path / "site.yaml", tmp_path / "out"
    _distributions(tmp_path / "d.json", likely=FLAT)
    config.write_text(CONFIG.format(url=fake.url, frame="", file=tmp_path / "d.json"))
    path = SHARED / "us/us-8frame-mono2-j2k.dcm"
    assert process.run([path], out, config, Identity.LENIENT) == 1
    (study,) = json.loads((out / "report.json").read_text())["studies"]
    assert "1.2.840.10008.5.1.4.1.1.3, which is retired" in study["reason"]


def test_nothing_found_is_a_result_and_no_mask(
    tmp_path: Path, fake: FakeEndpoint, page: list[str]
) -> None:
    fake.script = [_faint]
    found = run(tmp_path, fake, SHARED / "vl/ophthalmic-ir-heidelberg-jpegll.dcm")
    assert "SEG" not in found
    (study,) = found["report"]["studies"]
    assert study["state"] == "nothing_found"
    assert any(line.startswith(NOT_FOUND) for line in page)


def bright_rows(asked: Asked) -> Any:
    """Answer every row of a call as bright does."""
    columns = asked.body["input_data"]["columns"]
    records = []
    for row in asked.body["input_data"]["data"]:
        one = {"input_data": {"columns": columns, "data": [row]}}
        records += bright(Asked(asked.path, asked.headers, one))
    return records


def _faint(asked: Asked) -> Any:
    count = asked.row()["text"].count("&") + 1
    masks = np.full((count, 1024, 1024), 127, np.uint8)
    data = base64.b64encode(masks.tobytes()).decode()
    shape = list(masks.shape)
    return [{"image_features": json.dumps({"data": data, "shape": shape, "dtype": "uint8"})}]
