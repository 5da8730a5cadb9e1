"""Comprehensive 3D SR (TID 1500): what was found, where, how sure, and what was measured.

PS3.3 A.35.13, PS3.16 TID 1500. Every group of a projection image carries a region (TID 1410): a
box where the model pointed, the whole image where it did not, because a common viewer fails on a
group without coordinates. A volume's groups name the segment they speak of (TID 1411).

A concept that is absent, uncertain or historical is never written as a Finding (121071, DCM): a
reader that ignores evaluations would show it as present.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import highdicom as hd
import numpy as np
from pydicom.dataset import Dataset
from pydicom.sr.codedict import codes
from pydicom.sr.coding import Code as PydicomCode
from pydicom.uid import SegmentationStorage

from pacs_ai.encoding import Encoding
from pacs_ai.encoding.document import (
    algorithm,
    image_library,
    no_finding,
    observation_context,
    procedures,
    text_item,
    unverified,
)
from pacs_ai.encoding.equipment import Place, finish, tracking_uid
from pacs_ai.encoding.identity import identity_of, light_source
from pacs_ai.encoding.segmentation import KIND as SEGMENTATION
from pacs_ai.encoding.segmentation import concept, groups, segment_tracking
from pacs_ai.encoding.volumes import millilitres
from pacs_ai.results import (
    HOUNSFIELD,
    Assertion,
    Box,
    Done,
    Finding,
    JobResults,
    Measurement,
    Narrative,
    NothingFound,
    Segmentation,
)
from pacs_ai.terms import CONTRADICTIONS, SIDES, term

KIND = "report"

_PRESENCE = {
    Assertion.PRESENT: codes.SCT.Present,
    Assertion.ABSENT: codes.SCT.Absent,
    Assertion.UNCERTAIN: codes.SCT.Undetermined,
}
"""Values of a presence evaluation (PS3.16 CID 240)."""

_CLAIMS = (Assertion.PRESENT, Assertion.UNCERTAIN)

_Kind = TypeVar("_Kind", Finding, Measurement, Segmentation)
_Group = (
    hd.sr.PlanarROIMeasurementsAndQualitativeEvaluations
    | hd.sr.VolumetricROIMeasurementsAndQualitativeEvaluations
)

_CERTAINTY = codes.DCM.CertaintyOfFinding
_UNITS = {
    "1": PydicomCode("1", "UCUM", "no units"),
    "%": PydicomCode("%", "UCUM", "Percent"),
    "ml": PydicomCode("ml", "UCUM", "milliliter"),
    HOUNSFIELD: PydicomCode(HOUNSFIELD, "UCUM", "Hounsfield unit"),
    "mm": PydicomCode("mm", "UCUM", "millimeter"),
    "mm2": PydicomCode("mm2", "UCUM", "square millimeter"),
}


def encode(work: Encoding) -> tuple[Dataset, ...]:
    """Write findings, measurements and volumes; an empty tuple where an entry has none.

    Raises
    ------
    EncodingError
        When a source lacks what a reference needs.
    """
    written: list[Dataset] = []
    segmentations = 0
    for entry in work.entries:
        content = _Content(work, entry, segmentations)
        segmentations += len(groups(entry))
        if content.groups:
            written.append(_document(content, Place(KIND, len(written) + 1)))
    return tuple(written)


@dataclass(frozen=True, slots=True)
class _Region:
    """A place on an image: a box, or the whole of it."""

    source: Dataset
    box: Box | None = None

    def coordinates(self) -> np.ndarray[tuple[int, int], np.dtype[np.float64]]:
        """Five points, closed, column and row, clipped to the image (PS3.3 C.18.6.1.1)."""
        rows, columns = int(self.source.Rows), int(self.source.Columns)
        left, top, right, bottom = 0.0, 0.0, float(columns), float(rows)
        if self.box is not None:
            left, right = (min(max(x, 0.0), right) for x in (self.box.left, self.box.right))
            top, bottom = (min(max(y, 0.0), bottom) for y in (self.box.top, self.box.bottom))
        corners = [(left, top), (right, top), (right, bottom), (left, bottom), (left, top)]
        return np.array(corners, np.float64)


class _Content:
    """The measurement groups of one entry, and what they refer to.

    ``before`` counts the Segmentations that entries before this one make of the same work.
    """

    def __init__(self, work: Encoding, entry: JobResults, before: int) -> None:
        self.work = work
        self.before = before
        self.entry = entry
        self.references: list[Dataset] = []
        found = entry.outcome
        self.results = found.results if isinstance(found, Done | NothingFound) else ()
        self.sources = {uid: light_source(work.study.instance(uid)) for uid in self._analysed()}
        self.groups = [
            *self._findings(),
            *self._measurements(),
            *self._volumes(),
        ]
        self._comment()

    def _of(self, kind: type[_Kind]) -> list[_Kind]:
        return [one for one in self.results if isinstance(one, kind)]

    def _analysed(self) -> Iterable[str]:
        uids = dict.fromkeys(self.entry.sources)
        for result in self.results:
            if isinstance(result, Finding | Measurement | Segmentation):
                uids.update(dict.fromkeys(result.sources))
        return uids

    def _findings(self) -> list[_Group]:
        made: list[_Group] = []
        stated: list[Finding] = []
        for number, finding in enumerate(self._of(Finding), 1):
            if finding.assertion in _CLAIMS and finding.boxes:
                made += self._boxes(number, finding)
            elif finding.assertion is Assertion.PRESENT:
                region = _Region(self.sources[finding.sources[0]])
                made.append(
                    self._group(region, f"{finding.label} {number}, not localised", finding)
                )
            else:
                stated.append(finding)
        if stated or self._flagged_nothing():
            made.append(self._statements(stated))
        return made

    def _flagged_nothing(self) -> bool:
        spoke = any(isinstance(one, Finding | Narrative) for one in self.results)
        return isinstance(self.entry.outcome, NothingFound) and spoke

    def _boxes(self, number: int, finding: Finding) -> list[_Group]:
        return [
            self._group(
                _Region(self.sources[box.source], box),
                f"{finding.label} {number}" + (f".{place}" if len(finding.boxes) > 1 else ""),
                finding,
            )
            for place, box in enumerate(finding.boxes, 1)
        ]

    def _group(self, region: _Region, name: str, finding: Finding) -> _Group:
        what = term(finding.label)
        present = finding.assertion is Assertion.PRESENT
        sites = []
        if what.region is not None:
            side = SIDES.get(finding.side)
            sites = [
                hd.sr.FindingSite(concept(what.region), concept(side) if side else None),
            ]
        certainty = []
        if finding.score is not None:
            percent = round(finding.score * 100, 1)
            certainty = [hd.sr.Measurement(_CERTAINTY, percent, _UNITS["%"])]
        return self._planar(
            region,
            name,
            finding_type=concept(what.code) if present else None,
            finding_sites=sites or None,
            measurements=certainty or None,
            qualitative_evaluations=[self._presence(finding)],
        )

    def _presence(self, finding: Finding) -> hd.sr.QualitativeEvaluation:
        name = concept(term(finding.label).code)
        return hd.sr.QualitativeEvaluation(name, _PRESENCE[finding.assertion])

    def _statements(self, findings: Sequence[Finding]) -> _Group:
        """Return one group for all that holds of the image as a whole.

        An evaluation has no side, so what was said of one side stands as text. So does an absence
        that the same answer contradicts.
        """
        claimed = {one.label for one in self._of(Finding) if one.assertion in _CLAIMS}
        coded: dict[tuple[str, Assertion], Finding] = {}
        texts: list[str] = []
        for finding in findings:
            sided = finding.side not in ("", "bilateral")
            denied = finding.assertion is Assertion.ABSENT and finding.label in claimed
            if sided or denied or finding.assertion not in _PRESENCE:
                side = f", {finding.side}" if finding.side else ""
                texts.append(f"{finding.assertion.value.capitalize()}: {finding.label}{side}")
            else:
                coded[finding.label, finding.assertion] = finding
        first = findings[0].sources[0] if findings else next(iter(self.sources))
        group = self._planar(
            _Region(self.sources[first]),
            "whole image",
            qualitative_evaluations=[self._presence(one) for one in coded.values()] or None,
        )
        for text in dict.fromkeys(texts):
            group[0].ContentSequence.append(text_item(text))
        return group

    def _measurements(self) -> list[_Group]:
        made = []
        for result in self._of(Measurement):
            if not self._of_volume(result):
                value = hd.sr.Measurement(
                    concept(term(result.label).code),
                    round(result.value, 3),
                    _unit(result.unit),
                )
                group = self._planar(
                    _Region(self.sources[result.sources[0]]), result.label, measurements=[value]
                )
                group[0].ContentSequence.append(text_item(f"Method: {result.method}"))
                made.append(group)
        return made

    def _of_volume(self, measurement: Measurement) -> bool:
        masks = self._of(Segmentation)
        return any(one.volumetric and one.label == measurement.segment for one in masks)

    def _volumes(self) -> list[_Group]:
        """Return a group for each segment of a volume: its size and what was measured in it."""
        made = []
        for index, masks in enumerate(groups(self.entry), self.before + 1):
            if not masks[0].volumetric:
                continue
            place = Place(SEGMENTATION, index)
            self.references.append(self._segmentation(place))
            for number, mask in enumerate(masks, 1):
                made.append(self._volume(place, number, mask))
        return made

    def _segmentation(self, place: Place) -> Dataset:
        """Return what names the SEG of the same work; its UIDs derive from the same stamp."""
        reference = Dataset()
        reference.SOPClassUID = SegmentationStorage
        reference.SOPInstanceUID = place.instance_uid(self.work.stamp)
        reference.SeriesInstanceUID = place.series_uid(self.work.stamp)
        reference.StudyInstanceUID = self.work.study.StudyInstanceUID
        return reference

    def _volume(self, place: Place, number: int, mask: Segmentation) -> _Group:
        what = term(mask.label)
        source = self.sources[mask.sources[0]]
        name, uid = segment_tracking(self.work.stamp, place, number, mask.label)
        site = None
        if what.region is not None or what.laterality is not None:
            side = concept(what.laterality) if what.laterality else None
            site = [hd.sr.FindingSite(concept(what.region or what.code), side)]
        group = hd.sr.VolumetricROIMeasurementsAndQualitativeEvaluations(
            tracking_identifier=hd.sr.TrackingIdentifier(uid, name),
            referenced_segment=hd.sr.ReferencedSegment(
                sop_class_uid=SegmentationStorage,
                sop_instance_uid=str(place.instance_uid(self.work.stamp)),
                segment_number=number,
                source_series=hd.sr.SourceSeriesForSegmentation(str(source.SeriesInstanceUID)),
            ),
            finding_type=concept(what.code),
            finding_sites=site,
            algorithm_id=algorithm(self.entry.model, self.entry),
            measurements=self._sizes(mask) or None,
        )
        return group

    def _sizes(self, mask: Segmentation) -> list[hd.sr.Measurement]:
        given = [one for one in self._of(Measurement) if one.segment == mask.label]
        made = [
            hd.sr.Measurement(concept(term(one.label).code), round(one.value, 3), _unit(one.unit))
            for one in given
        ]
        volume = millilitres(mask, self.work.study)
        if volume is not None and not any(one.label == "volume" for one in given):
            code = concept(term("volume").code)
            made.append(hd.sr.Measurement(code, round(volume, 2), _UNITS["ml"]))
        return made

    def _planar(self, region: _Region, name: str, **content: Any) -> _Group:
        uid = tracking_uid(self.work.stamp, "finding", name, str(region.source.SOPInstanceUID))
        group = hd.sr.PlanarROIMeasurementsAndQualitativeEvaluations(
            tracking_identifier=hd.sr.TrackingIdentifier(str(uid), name),
            referenced_region=hd.sr.ImageRegion(
                graphic_type=hd.sr.GraphicTypeValues.POLYLINE,
                graphic_data=region.coordinates(),
                source_image=hd.sr.SourceImageForRegion(
                    str(region.source.SOPClassUID),
                    str(region.source.SOPInstanceUID),
                    self._frames(str(region.source.SOPInstanceUID)),
                ),
            ),
            algorithm_id=algorithm(self.entry.model, self.entry),
            **content,
        )
        return group

    def _frames(self, uid: str) -> list[int] | None:
        """Return which frames of a multi-frame image were looked at; None for all (PS3.3 10.3)."""
        header = self.work.study.instance(uid).header
        if int(header.get("NumberOfFrames") or 1) == 1:
            return None
        frame = self.entry.parameters.get("frame")
        if isinstance(frame, int):
            return [frame]
        return list(self.entry.parameters.get("frames", ())) or None

    def _comment(self) -> None:
        """Put what a reader must know into the last group, where all that is general stands."""
        if not self.groups:
            return
        words = list(self.entry.notes)
        words += identity_of(self.work.study.instances[0]).notes
        words += [o.sentence for o in self._of(Finding) if o.label in CONTRADICTIONS.values()]
        if self._flagged_nothing():
            words.insert(0, no_finding(self.entry))
        for text in words:
            self.groups[-1][0].ContentSequence.append(text_item(text))


def _unit(unit: str) -> PydicomCode:
    return _UNITS.get(unit, PydicomCode(unit, "UCUM", unit))


def _document(content: _Content, place: Place) -> Dataset:
    work, entry = content.work, content.entry
    sources = list(content.sources.values())
    report = hd.sr.MeasurementReport(
        observation_context=observation_context(work.stamp),
        procedure_reported=procedures(work, entry),
        imaging_measurements=content.groups,
        title=codes.DCM.ImagingMeasurementReport,
    )
    tree = report[0].ContentSequence
    # highdicom's own library needs elements that radiographs often lack.
    tree.insert(len(tree) - 1, image_library(sources))
    dataset = unverified(
        hd.sr.Comprehensive3DSR, report, [*sources, *content.references], work, place
    )
    return finish(dataset, work, place, "findings")
