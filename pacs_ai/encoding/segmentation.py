"""Segmentation (SEG, BINARY): the masks of one Job on the exact grid of their source.

PS3.3 A.51. One object for all masks on the same sources, one object a Series. With a Frame of
Reference the planes say where they lie, those of single frames too; a radiograph's mask has the
source's own matrix instead and says so by its derivation (PS3.3 C.8.20).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import highdicom as hd
import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset
from pydicom.sr.codedict import codes
from pydicom.uid import ExplicitVRLittleEndian

from pacs_ai.encoding import Encoding, Stamp
from pacs_ai.encoding.equipment import (
    CONTENT_CREATOR,
    MODEL_NAME,
    NOT_VERIFIED,
    REFERENCE_NOTE,
    Place,
    algorithm_name,
    code_item,
    finish,
    mark_lossy,
    plain,
    tracking_uid,
)
from pacs_ai.encoding.identity import light_frames, light_source, require, valid
from pacs_ai.encoding.sequences import planes_of, spread, why_nowhere
from pacs_ai.encoding.slides import light_tiles
from pacs_ai.errors import EncodingError
from pacs_ai.pixels.stacks import Plane
from pacs_ai.results import Axis, Done, JobResults, ModelIdentity, NothingFound, Segmentation
from pacs_ai.study import MANUFACTURER, Instance, is_slide
from pacs_ai.terms import Code, term

KIND = "segmentation"

_ROUNDING = 1e-4
"""How far direction cosines of slices of one volume may differ (``pixels/stacks.py``)."""

_OF_A_PLANE = (
    "FrameOfReferenceUID",
    "ImagePositionPatient",
    "ImageOrientationPatient",
    "PixelSpacing",
    "SliceThickness",
)
"""What places a slice, and every Segmentation of slices has; the first is named that is missing."""


def encode(work: Encoding) -> tuple[Dataset, ...]:
    """Write the masks of each entry; an empty tuple where there are none.

    Raises
    ------
    EncodingError
        When a mask does not fit its sources, or the sources lack what its geometry needs.
    """
    objects: list[Dataset] = []
    for entry in work.entries:
        for masks in groups(entry):
            place = Place(KIND, len(objects) + 1)
            objects.append(_encode(work, entry, masks, place))
    return tuple(objects)


def groups(entry: JobResults) -> tuple[tuple[Segmentation, ...], ...]:
    """Return the masks of an entry that are not empty, together where the sources are the same.

    The order gives each object its number and each mask its Segment Number, from 1.
    """
    if not isinstance(entry.outcome, Done | NothingFound):
        return ()
    found: dict[tuple[tuple[str, ...], tuple[int, ...]], list[Segmentation]] = {}
    for result in entry.outcome.results:
        if isinstance(result, Segmentation) and result.count:
            found.setdefault((result.sources, result.frames), []).append(result)
    return tuple(tuple(masks) for masks in found.values())


def segment_tracking(stamp: Stamp, place: Place, number: int, label: str) -> tuple[str, str]:
    """Return Tracking ID and Tracking UID of a segment: an SR that speaks of it uses the same."""
    return f"{label} {number}", str(tracking_uid(stamp, "segment", place.number, number, label))


def _encode(
    work: Encoding,
    entry: JobResults,
    masks: tuple[Segmentation, ...],
    place: Place,
) -> Dataset:
    instances = [work.study.instance(uid) for uid in masks[0].sources]
    planes = planes_of(instances[0], masks[0])
    sources = _sources(instances, masks[0], planes)
    in_sequence = masks[0].axis is Axis.FRAMES and not is_slide(sources[0])
    pixels = _one_frame(masks, sources[0]) if in_sequence else _planes(masks, sources[0])
    try:
        dataset = hd.seg.Segmentation(
            source_images=sources,
            pixel_array=pixels,
            segmentation_type=hd.seg.SegmentationTypeValues.BINARY,
            segment_descriptions=[
                _description(work.stamp, place, number, mask, entry.model)
                for number, mask in enumerate(masks, 1)
            ],
            series_instance_uid=place.series_uid(work.stamp),
            series_number=place.series_number(work),
            sop_instance_uid=place.instance_uid(work.stamp),
            instance_number=1,
            manufacturer=MANUFACTURER,
            manufacturer_model_name=MODEL_NAME,
            software_versions=plain(work.stamp.software_version),
            device_serial_number=plain(work.stamp.installation),
            content_creator_name=CONTENT_CREATOR,
            content_label="AI_SEGMENTATION",
            content_description=_content_description(entry.model),
            transfer_syntax_uid=ExplicitVRLittleEndian,
            omit_empty_frames=True,
        )
    except KeyError as error:
        raise EncodingError(
            f"no Segmentation can refer to SOP Class {sources[0].SOPClassUID}, which is retired or "
            "private: send the images in a current one"
        ) from error
    except (ValueError, TypeError, AttributeError) as error:
        if masks[0].volumetric and not masks[0].frames:
            for source in sources:
                require(source, _OF_A_PLANE)
        raise EncodingError(_no_geometry(instances[0], masks[0])) from error
    _say_orientation(dataset, instances[0])
    dataset.BurnedInAnnotation = "NO"
    _refer_to_used(dataset)
    if in_sequence:
        spread(dataset, masks, planes)
    else:
        _check_frames(dataset, masks)
        _refer_to_frames(dataset, masks[0].frames)
    mark_lossy(dataset, instances)
    dataset["PixelData"].VR = "OB"  # PS3.5 A.2: either, at one bit; nobody else would choose
    return finish(dataset, work, place, KIND)


def _no_geometry(instance: Instance, mask: Segmentation) -> str:
    """Say why highdicom makes no object of a mask: by then only geometry is left to refuse."""
    if "NumberOfFrames" in instance.header and not mask.volumetric:
        why = why_nowhere(instance, mask)
        if why:
            return f"{why}. Its SOP Class {instance.SOPClassUID} makes no Segmentation without it"
    return (
        f"the geometry of Series {instance.SeriesInstanceUID} does not make a Segmentation:"
        " its Instances must share one orientation, spacing and Frame of Reference"
    )


def _sources(
    instances: Sequence[Instance], mask: Segmentation, planes: Sequence[Plane]
) -> list[Dataset]:
    """Return what highdicom needs of the sources of a mask, for all its slices or its first frame."""
    if is_slide(instances[0].header):
        return [light_tiles(instances[0], mask.frames or (1,))]
    if mask.frames and mask.volumetric:
        return _light_frames(instances, mask.frames)
    if planes:
        return [light_frames(instances[0], [planes[0].frame.number])]
    return _light_sources(instances[:1] if mask.axis is Axis.FRAMES else instances)


def _say_orientation(dataset: Dataset, instance: Instance) -> None:
    """Say of an object that lies nowhere in the patient what its source says, and no more."""
    if "FrameOfReferenceUID" in dataset and not is_slide(instance.header):
        return
    orientation = valid(instance.header, "PatientOrientation")
    dataset.PatientOrientation = None if orientation is None else orientation.value
    for group in dataset.SharedFunctionalGroupsSequence:
        if not any(group.get("PixelMeasuresSequence", ())):
            group.pop("PixelMeasuresSequence", None)


def _light_sources(instances: Sequence[Instance]) -> list[Dataset]:
    """Return single-frame sources, with one orientation where they differ by rounding.

    An object has one orientation; that of the first is as true as any.
    """
    sources = [light_source(instance) for instance in instances]
    for source, instance in zip(sources, instances, strict=True):
        if "FrameOfReferenceUID" not in source and "NumberOfFrames" in instance.header:
            _as_one_frame(source)
    first = sources[0].get("ImageOrientationPatient")
    for source in sources[1:]:
        own = source.get("ImageOrientationPatient")
        if (
            first is not None
            and own is not None
            and np.allclose(first, own, rtol=0, atol=_ROUNDING)
        ):
            source.ImageOrientationPatient = first
    return sources


def _as_one_frame(source: Dataset) -> None:
    """Make one frame of an image whose SOP Class may hold several (ultrasound, ophthalmic, ...).

    highdicom asks such a class for functional groups, which these have not.
    """
    source.NumberOfFrames = 1  # of a cine, the one that was looked at
    group, measures = Dataset(), Dataset()
    if "PixelSpacing" in source:
        measures.PixelSpacing = source.PixelSpacing
    group.PixelMeasuresSequence = [measures]
    source.SharedFunctionalGroupsSequence = [group]


def _light_frames(instances: Sequence[Instance], frames: tuple[int, ...]) -> list[Dataset]:
    if len({instance.SOPInstanceUID for instance in instances}) > 1:
        raise EncodingError("the frames of a mask come from several multi-frame Instances")
    return [light_frames(instances[0], frames)]


def _refer_to_frames(dataset: Dataset, frames: tuple[int, ...]) -> None:
    """Number frames as their Instance does: highdicom counts those that it was given.

    One frame of a cine is given to it as an image alone, for which it writes no number.
    """
    if not frames:
        return
    items = {
        id(source): source  # segments on one plane share what it derives from
        for group in dataset.PerFrameFunctionalGroupsSequence
        for derivation in group.DerivationImageSequence
        for source in derivation.SourceImageSequence
    }
    for source in items.values():
        number = int(source.get("ReferencedFrameNumber", 1))
        source.ReferencedFrameNumber = frames[number - 1]


def _refer_to_used(dataset: Dataset) -> None:
    """Keep only references to Instances that a frame comes from; highdicom lists every source."""
    used = {
        str(source.ReferencedSOPInstanceUID)
        for frame in dataset.PerFrameFunctionalGroupsSequence
        for derivation in frame.DerivationImageSequence
        for source in derivation.SourceImageSequence
    }
    for series in dataset.ReferencedSeriesSequence:
        series.ReferencedInstanceSequence = _used(series.ReferencedInstanceSequence, used)
    if "SourceImageSequence" in dataset:
        dataset.SourceImageSequence = _used(dataset.SourceImageSequence, used)


def _used(items: Sequence[Dataset], used: set[str]) -> list[Dataset]:
    return [item for item in items if str(item.ReferencedSOPInstanceUID) in used]


def _one_frame(masks: Sequence[Segmentation], source: Dataset) -> NDArray[np.uint8]:
    """Return a frame in which every segment is, shape (1, Rows, Columns, segments)."""
    _, rows, columns = _shape(masks, source)
    return np.ones((1, rows, columns, len(masks)), np.uint8)


def _shape(masks: Sequence[Segmentation], source: Dataset) -> tuple[int, int, int]:
    """Return the slices or frames, Rows and Columns of masks, which are those of their source."""
    shape = (len(masks[0].sources), int(source.Rows), int(source.Columns))
    for mask in masks:
        own = mask.shape if len(mask.shape) == 3 else (1, *mask.shape)
        if own != shape:
            raise EncodingError(
                f"the mask of {mask.label} has shape {own} and its source {shape}:"
                " the model's answer was not brought back to the native grid"
            )
    return shape


class _Planes(np.ndarray[Any, np.dtype[np.uint8]]):
    """Planes by segment, shape (planes, Rows, Columns, segments), 0 or 1; each is made when asked for.

    highdicom asks for one plane at a time, for the greatest value, and for the sum over segments to
    learn whether any two overlap. In memory there is a single 1: a byte a voxel for each of ten prompts
    on a CT of 600 slices would be 1.6 GB.
    """

    masks: Sequence[Segmentation]

    def __getitem__(self, index: Any) -> Any:
        if self.ndim == 4 and isinstance(index, int | np.integer):
            if not 0 <= index < len(self):
                raise IndexError(index)  # ends a loop over the planes
            planes = np.stack([mask.plane(int(index)) for mask in self.masks])
            return np.moveaxis(planes.view(np.uint8), 0, -1)
        return super().__getitem__(index)

    def sum(self, axis: int) -> NDArray[np.int64]:  # type: ignore[override]
        """Return the most segments that lie on one pixel of each plane."""
        found = [plane.sum(axis=axis, dtype=np.uint8).max() for plane in self]
        return np.array(found, np.int64)


def _planes(masks: Sequence[Segmentation], source: Dataset) -> _Planes:
    shape = (*_shape(masks, source), len(masks))
    planes = np.broadcast_to(np.ones(1, np.uint8), shape).view(_Planes)
    planes.masks = masks
    return planes


def _check_frames(dataset: Dataset, masks: Sequence[Segmentation]) -> None:
    """Refuse an object whose frames are not those of the masks: highdicom has read them another way."""
    wanted = sum(
        bool(mask.plane(index).any()) for mask in masks for index in range(len(mask.sources))
    )
    if dataset.NumberOfFrames != wanted:
        raise EncodingError(
            f"the Segmentation has {dataset.NumberOfFrames} frames and its masks {wanted}: install the "
            "highdicom of requirements/run.txt"
        )


def _description(
    stamp: Stamp, place: Place, number: int, mask: Segmentation, model: ModelIdentity
) -> hd.seg.SegmentDescription:
    what = term(mask.label)
    if what.category is None or what.colour is None:
        raise EncodingError(f"{mask.label} is not a thing that can be segmented: see pacs_ai.terms")
    tracking_id, uid = segment_tracking(stamp, place, number, mask.label)
    description = hd.seg.SegmentDescription(
        segment_number=number,
        segment_label=mask.label[:1].upper() + mask.label[1:],
        segmented_property_category=concept(what.category),
        segmented_property_type=concept(what.code),
        algorithm_type=hd.seg.SegmentAlgorithmTypeValues.AUTOMATIC,
        algorithm_identification=hd.AlgorithmIdentificationSequence(
            name=algorithm_name(model),
            family=codes.DCM.ArtificialIntelligence,
            version=plain(model.version),
            source=plain(model.manufacturer),
            parameters={"prompt": plain(mask.prompt, 1024)} if mask.prompt else None,
        ),
        tracking_id=tracking_id,
        tracking_uid=uid,
        anatomic_regions=[concept(what.region)] if what.region else None,
        display_color=hd.color.CIELabColor.from_rgb(*what.colour),
    )
    if what.laterality:
        kind = description.SegmentedPropertyTypeCodeSequence[0]
        kind.SegmentedPropertyTypeModifierCodeSequence = [code_item(what.laterality)]
    return description


def concept(code: Code) -> hd.sr.CodedConcept:
    """Return a code as highdicom wants it."""
    return hd.sr.CodedConcept(code.value, code.scheme, code.meaning)


def _content_description(model: ModelIdentity) -> str:
    return f"{NOT_VERIFIED}; {REFERENCE_NOTE}" if model.reference else NOT_VERIFIED
