"""Real images through the whole gateway: what tests/data/expected.yaml says must happen to them."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import highdicom
import numpy as np
import pydicom
import pytest
import yaml
from pydicom.dataset import Dataset

from pacs_ai import phantom, results
from pacs_ai.cli import process
from pacs_ai.cli.files import data_set_bytes
from pacs_ai.cli.status import print_status
from pacs_ai.encoding.identity import TYPE_2
from pacs_ai.settings import Identity, load
from tests.end_to_end import reading
from tests.peers.dcmtk import storescu
from tests.running import ROOT, Models, Running, running_gateway, write_settings

EXPECTED: dict[str, Any] = {
    name: one
    for name, one in yaml.safe_load((ROOT / "tests/data/expected.yaml").read_text()).items()
    if "jobs" in one
}
SIIM = "cxr/cr-pa-8bit-jpegbaseline-nih-siim.dcm"
CANON = "cxr/dx-pa-mono1-12bit-j2k-canon.dcm"
THORAX = "ct-thorax/Lung_Dx-A0001_chest-ct_64slices.tar.xz"
PROCESSED = [SIIM, CANON, THORAX]
WITHOUT_MODEL = [name for name, one in EXPECTED.items() if not one.get("jobs", True)]
# What pydicom says of the values that these very files hold; the gateway's own processes silence it.
QUIET = "ignore:.*(Invalid value for VR|exceeds the maximum length):UserWarning"


@dataclass(frozen=True)
class Processed:
    """What `pacs-ai process` left of all the images together."""

    out: Path
    report: dict[str, Any]
    said: str
    sources: dict[str, tuple[Dataset, ...]]

    def folder(self, name: str) -> Path:
        return self.out / str(self.sources[name][0].StudyInstanceUID)

    def timeline(self, name: str) -> dict[str, Any]:
        uid = str(self.sources[name][0].StudyInstanceUID)
        (found,) = (one for one in self.report["studies"] if one["StudyInstanceUID"] == uid)
        return dict(found)


def files(name: str, data: Path, scratch: Path) -> list[Path]:
    """Return the files of an entry of expected.yaml, unpacked where they are in an archive."""
    archive, _, member = name.partition("!")
    if not archive.endswith(".tar.xz"):
        return [data / name]
    with tarfile.open(data / archive) as packed:
        packed.extractall(scratch, filter="data")
    return sorted(path for path in scratch.rglob(member or "*.dcm") if path.is_file())


@pytest.fixture(scope="module")
def paths(shared_data: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[Path]]:
    return {name: files(name, shared_data, tmp_path_factory.mktemp("source")) for name in PROCESSED}


@pytest.fixture(scope="module")
def processed(
    models: Models, paths: dict[str, list[Path]], tmp_path_factory: pytest.TempPathFactory
) -> Processed:
    """Run the command once on two radiographs of different patients and the thorax CT."""
    folder = tmp_path_factory.mktemp("process")
    out = folder / "out"
    given = [str(path) for some in paths.values() for path in some]
    config = ("--config", str(write_settings(folder, models)))
    ran = subprocess.run(
        [sys.executable, "-m", "pacs_ai.cli", "process", *given, "--out", str(out), *config],
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert ran.returncode == 0, ran.stderr
    sources: dict[str, tuple[Dataset, ...]] = {
        name: tuple(pydicom.dcmread(path, stop_before_pixels=True) for path in some)
        for name, some in paths.items()
    }
    report = json.loads((out / "report.json").read_text())
    return Processed(out, report, ran.stdout + ran.stderr, sources)


# ---------------------------------------------------------------------- a results' Study


@pytest.mark.parametrize("name", PROCESSED)
def test_a_real_image_gives_every_kind_of_object(processed: Processed, name: str) -> None:
    expected, timeline = EXPECTED[name], processed.timeline(name)
    assert timeline["state"] in expected["states"]
    kinds = [path.name.partition("-")[0] for path in processed.folder(name).glob("*.dcm")]
    assert sorted(kinds) == sorted(expected["objects"])
    assert {job["outcome"] for job in timeline["jobs"]} <= {"done", "nothing_found"}
    assert {one["state"] for one in timeline["deliveries"]} == {"stored"}
    assert len(list(processed.folder(name).glob("capture-*.png"))) == 1


@pytest.mark.parametrize("name", PROCESSED)
def test_no_validator_finds_an_error(processed: Processed, name: str) -> None:
    for path in processed.folder(name).glob("*.dcm"):
        assert reading.complaints(path) == [], path.name


@pytest.mark.parametrize("name", PROCESSED)
def test_patient_and_study_are_copied_byte_for_byte_or_left_out(
    processed: Processed, paths: dict[str, list[Path]], name: str
) -> None:
    left_out = EXPECTED[name]["left_out"]
    source = pydicom.dcmread(paths[name][0], stop_before_pixels=True)
    for path in processed.folder(name).glob("*.dcm"):
        made = pydicom.dcmread(path)
        for keyword in (*TYPE_2, "PatientAge", "PatientSize", "PatientWeight", "StudyDescription"):
            original = None if keyword in left_out else reading.raw(source, keyword)
            absent = b"" if keyword in TYPE_2 else None
            assert reading.raw(made, keyword) == (original or absent), (path.name, keyword)
        assert made.StudyInstanceUID == source.StudyInstanceUID
        series = {str(one.SeriesInstanceUID) for one in processed.sources[name]}
        assert made.SeriesInstanceUID not in series


@pytest.mark.parametrize("name", PROCESSED)
def test_what_was_left_out_is_noted_and_nowhere_repeated(
    processed: Processed, paths: dict[str, list[Path]], name: str
) -> None:
    source = pydicom.dcmread(paths[name][0], stop_before_pixels=True)
    notes = [f"{one} of the source is not valid" for one in EXPECTED[name]["left_out"]]
    for path in processed.folder(name).glob("*.dcm"):
        for equipment in pydicom.dcmread(path).ContributingEquipmentSequence:
            said = str(equipment.ContributionDescription)
            assert [note for note in notes if note not in said] == []
            assert said.count("of the source is not valid") == len(notes)
        for keyword in EXPECTED[name]["left_out"]:
            value = reading.raw(source, keyword) or b""
            assert len(value) < 16 or value not in path.read_bytes()


@pytest.mark.parametrize("name", [SIIM, CANON])
def test_an_unknown_age_is_said_where_a_reader_looks(processed: Processed, name: str) -> None:
    for path in reading.of_kind(processed.folder(name), "report"):
        assert [text for text in reading.texts(pydicom.dcmread(path)) if "Age unknown" in text]


def test_results_of_one_patient_do_not_name_another(processed: Processed) -> None:
    ids = {name: str(processed.sources[name][0].PatientID) for name in PROCESSED}
    assert len(set(ids.values())) == len(PROCESSED)
    for name in PROCESSED:
        others = [one.encode() for other, one in ids.items() if other != name]
        for path in processed.folder(name).glob("*.dcm"):
            assert not [one for one in others if one in path.read_bytes()]


def test_nothing_that_is_printed_or_named_holds_a_patient(processed: Processed) -> None:
    names = " ".join(str(path.relative_to(processed.out)) for path in processed.out.rglob("*"))
    report = json.dumps({**processed.report, "workitems": []})
    for some in processed.sources.values():
        for keyword in ("PatientID", "PatientName"):
            value = str(some[0][keyword].value)
            assert value not in processed.said
            assert value not in names
            assert value not in report
    assert "Warning" not in processed.said


def test_every_result_says_what_it_is(processed: Processed) -> None:
    for path, made in reading.objects(processed.out).items():
        reading.assert_labelled(path, made)


# ---------------------------------------------------------------------- the thorax CT


def along_normal(sources: tuple[Dataset, ...]) -> list[Dataset]:
    """Return slices in the order of their own positions."""
    axes = np.array(sources[0].ImageOrientationPatient, float).reshape(2, 3)
    normal = np.cross(*axes)
    return sorted(
        sources, key=lambda one: float(np.array(one.ImagePositionPatient, float) @ normal)
    )


@pytest.fixture(scope="module")
def segments(
    processed: Processed, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, reading.Nrrd]:
    (path,) = reading.of_kind(processed.folder(THORAX), "segmentation")
    return reading.dcmqi_segments(path, tmp_path_factory.mktemp("dcmqi"))


def test_dcmqi_reads_the_thorax_on_its_exact_geometry(
    processed: Processed, segments: dict[str, reading.Nrrd]
) -> None:
    slices = along_normal(processed.sources[THORAX])
    first, last = (np.array(slices[at].ImagePositionPatient, float) for at in (0, -1))
    axes = np.array(first_of(slices, "ImageOrientationPatient"), float).reshape(2, 3)
    down, across = (float(one) for one in first_of(slices, "PixelSpacing"))
    expected = np.array([axes[0] * across, axes[1] * down, (last - first) / (len(slices) - 1)])
    assert set(segments) == {"left lung", "right lung", "bone", "body"}
    for one in segments.values():
        assert one.voxels.shape == (slices[0].Columns, slices[0].Rows, len(slices))
        assert np.abs(one.origin - first).max() < 1e-3
        assert np.abs(one.directions - expected).max() < 1e-5


def first_of(slices: list[Dataset], keyword: str) -> Any:
    return slices[0][keyword].value


def test_the_left_lung_lies_on_the_patient_s_left(segments: dict[str, reading.Nrrd]) -> None:
    left, right = segments["left lung"], segments["right lung"]
    # +x is towards the patient's left (PS3.3 C.7.6.2.1.1).
    assert left.centroid[0] > right.centroid[0] + 80
    assert abs(left.centroid[2] - right.centroid[2]) < 40
    assert not (left.voxels & right.voxels).any()


def test_both_lungs_are_as_large_as_lungs_are(segments: dict[str, reading.Nrrd]) -> None:
    left, right = (segments[f"{side} lung"].millilitres for side in ("left", "right"))
    assert 1000 < left < 4000
    assert 1000 < right < 4500
    assert left < right < 2 * left
    assert segments["body"].millilitres > left + right + segments["bone"].millilitres


def test_every_reader_gets_the_mask_that_the_model_s_answer_became(
    processed: Processed, segments: dict[str, reading.Nrrd]
) -> None:
    (path,) = reading.of_kind(processed.folder(THORAX), "segmentation")
    kept = {one.label: one for one in spooled_masks(processed, processed.sources[THORAX])}
    by_uid = {str(one.SOPInstanceUID): one for one in processed.sources[THORAX]}
    order = next(iter(kept.values())).sources
    slices = [by_uid[uid] for uid in order]
    by_geometry = reading.volume_masks(path, slices)
    by_reference = read_by_highdicom(path, order)
    assert set(kept) == set(by_geometry) == set(by_reference) == set(segments)
    upwards = [order.index(str(one.SOPInstanceUID)) for one in along_normal(tuple(slices))]
    for label, one in kept.items():
        assert one.mask.any()
        assert np.array_equal(by_geometry[label], one.mask)
        assert np.array_equal(by_reference[label], one.mask)
        assert np.array_equal(segments[label].voxels, one.mask[upwards].transpose(2, 1, 0))


def spooled_masks(
    processed: Processed, sources: tuple[Dataset, ...]
) -> Iterator[results.Segmentation]:
    """Yield the masks that the spool of the run keeps for a Study."""
    uids = {str(one.SOPInstanceUID) for one in sources}
    for path in (processed.out / "gateway/spool/results").glob("*.json"):
        for one in results.loads(path.read_bytes()):
            if isinstance(one, results.Segmentation) and set(one.sources) == uids:
                yield one


def read_by_highdicom(path: Path, order: tuple[str, ...]) -> dict[str, reading.Mask]:
    seg = highdicom.seg.segread(path)
    numbers = list(seg.segment_numbers)
    pixels = seg.get_pixels_by_source_instance(
        list(order), segment_numbers=numbers, ignore_spatial_locations=True,
        assert_missing_frames_are_empty=True,
    )  # fmt: skip
    labels = [str(seg.get_segment_description(number).SegmentLabel).lower() for number in numbers]
    return {label: pixels[..., place] > 0 for place, label in enumerate(labels)}


# ---------------------------------------------------------------------- what no model may see


@pytest.mark.filterwarnings(QUIET)
@pytest.mark.parametrize("name", WITHOUT_MODEL)
def test_what_no_rule_takes_reaches_no_model_and_says_why(
    name: str,
    tmp_path: Path,
    models: Models,
    shared_data: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    expected, given = EXPECTED[name], files(name, shared_data, tmp_path / "source")
    config = write_settings(tmp_path, models)
    assert process.run(given, tmp_path / "out", config, None) == 0
    (timeline,) = json.loads((tmp_path / "out/report.json").read_text())["studies"]
    assert [timeline["state"]] == expected["states"]
    assert {one["kind"] for one in timeline["work"]} <= {"assemble", "route", "encode", "worklist"}
    assert timeline["jobs"] == []
    assert not list((tmp_path / "out/gateway/spool/results").iterdir())
    assert process.explain(given, load(config)) == 0
    explained = capsys.readouterr().out
    deciding = {one["rule"]: one["deciding"] for one in timeline["verdicts"]}
    for rule, words in expected["verdicts"].items():
        assert words in deciding[rule]
        assert words in explained
    told = load(config, overrides={"data": str(tmp_path / "out/gateway")})
    assert print_status(told, timeline["StudyInstanceUID"], None, "text") == 0
    status = capsys.readouterr().out
    assert timeline["reason"]
    assert timeline["reason"] in status
    assert all(words in status for words in expected["verdicts"].values())
    if timeline["state"] == "no_rule":
        assert all(words in timeline["reason"] for words in expected["verdicts"].values())


@pytest.mark.filterwarnings(QUIET)
def test_strict_identity_holds_an_image_without_patient_id(
    tmp_path: Path, models: Models, shared_data: Path
) -> None:
    film = shared_data / "cxr/cr-pa-mono1-10bit-fuji.dcm"
    config = write_settings(tmp_path, models)
    assert process.run([film], tmp_path / "out", config, Identity.STRICT) == 1
    (timeline,) = json.loads((tmp_path / "out/report.json").read_text())["studies"]
    assert timeline["state"] == "held"
    assert "has no PatientID" in timeline["reason"]
    assert timeline["jobs"] == []


# ---------------------------------------------------------------------- through listener and worker


@pytest.fixture(scope="module")
def gateway(models: Models, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """Run listener and worker with a destination of each profile."""
    folder = tmp_path_factory.mktemp("gateway")
    destinations: dict[str, dict[str, Any]] = {
        "results": {"path": "all", "profile": "all", "narrative": True},
        "viewer": {"path": "viewer", "profile": "basic"},
        "readers": {"path": "readers", "profile": "basic", "narrative": True},
    }
    for one in destinations.values():
        one.update(kind="folder", path=str(folder / one["path"]))
    path = write_settings(folder, models, destinations=destinations, delivery=list(destinations))
    with running_gateway(path) as running:
        yield running


@pytest.fixture(scope="module")
def received(gateway: Running, paths: dict[str, list[Path]]) -> dict[str, Any]:
    """Send a real radiograph by DCMTK's storescu, and wait for its end."""
    face = gateway.settings.listener
    storescu(paths[SIIM], "--propose-jpeg8", port=face.port, called=face.ae_title, calling="DEMO")
    study = str(pydicom.dcmread(paths[SIIM][0], stop_before_pixels=True).StudyInstanceUID)
    gateway.wait(lambda: bool(gateway.views.find(study=study, accession_number=None)))
    return gateway.wait_ended(study)


def delivered(gateway: Running, destination: str, study: str) -> dict[str, list[Path]]:
    """Return the files of a Study at a folder destination, by kind."""
    target = gateway.settings.destinations[destination]
    assert target.kind == "folder"
    found: dict[str, list[Path]] = {}
    for path in (target.path / study).glob("*.dcm"):
        found.setdefault(path.name.partition("-")[0], []).append(path)
    return found


def test_a_radiograph_goes_through_listener_and_worker(
    gateway: Running, received: dict[str, Any], paths: dict[str, list[Path]]
) -> None:
    assert received["state"] in EXPECTED[SIIM]["states"]
    (held,) = gateway.views.instances(received["StudyInstanceUID"])
    sent = data_set_bytes(paths[SIIM][0].read_bytes())
    assert held["digest"] == hashlib.sha256(sent).hexdigest()
    came = delivered(gateway, "results", received["StudyInstanceUID"])
    kinds = sorted(kind for kind, some in came.items() for _ in some)
    assert kinds == sorted(EXPECTED[SIIM]["objects"])
    for path in (path for some in came.values() for path in some):
        assert reading.complaints(path) == [], path.name
        reading.assert_labelled(path, pydicom.dcmread(path))


def test_the_listener_s_way_gives_the_same_masks_as_the_file_s_way(
    gateway: Running, received: dict[str, Any], processed: Processed
) -> None:
    film = processed.sources[SIIM][0]
    here = delivered(gateway, "results", received["StudyInstanceUID"])["segmentation"]
    there = reading.of_kind(processed.folder(SIIM), "segmentation")
    one, other = (reading.film_masks(path, film) for (path,) in (here, there))
    assert set(one) == set(other) == {"left lung", "right lung", "heart"}
    assert all(np.array_equal(one[label], other[label]) for label in one)


def test_a_basic_destination_gets_no_report_and_no_mask_on_a_radiograph(
    gateway: Running, received: dict[str, Any]
) -> None:
    came = delivered(gateway, "viewer", received["StudyInstanceUID"])
    assert set(came) == {"capture"}


def test_a_narrative_goes_only_where_it_is_released(
    gateway: Running, received: dict[str, Any]
) -> None:
    study = received["StudyInstanceUID"]
    released = {
        name
        for name in gateway.settings.destinations
        if "narrative" in delivered(gateway, name, study)
    }
    assert released == {"results", "readers"}
    assert set(delivered(gateway, "readers", study)) == {"capture", "narrative"}


def test_a_basic_destination_gets_the_masks_of_a_volume(gateway: Running) -> None:
    thorax = phantom.thorax_ct(name="profile", when=datetime.now(UTC), slices=64, rows=64)
    gateway.send(thorax)
    study = str(thorax[0].StudyInstanceUID)
    assert gateway.wait_ended(study)["state"] == "done"
    assert set(delivered(gateway, "viewer", study)) == {"capture", "segmentation"}
    assert set(delivered(gateway, "results", study)) == {"capture", "segmentation", "report"}
