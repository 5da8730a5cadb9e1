"""Frames: what a header says of one picture, whether it is an Instance or a part of one.

Multi-frame Instances say it in functional groups (PS3.3 C.7.6.16): an item of the frame's own
comes before the shared one, and both before the top level of the data set.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field

from pydicom.dataset import Dataset

from pacs_ai.errors import PixelError
from pacs_ai.study import Instance, values

_FRAME_TYPES = tuple(f"{kind}FrameTypeSequence" for kind in ("CTImage", "MRImage", "PET"))
_MACROS: Mapping[str, tuple[str, ...]] = {
    "ImagePositionPatient": ("PlanePositionSequence",),
    "ImageOrientationPatient": ("PlaneOrientationSequence",),
    "PixelSpacing": ("PixelMeasuresSequence",),
    "SliceThickness": ("PixelMeasuresSequence",),
    "FrameType": _FRAME_TYPES,
    "VolumetricProperties": _FRAME_TYPES,
    "VolumeBasedCalculationTechnique": _FRAME_TYPES,
    "ComplexImageComponent": _FRAME_TYPES,
    "StackID": ("FrameContentSequence",),
    "TemporalPositionIndex": ("FrameContentSequence",),
    "FrameAcquisitionNumber": ("FrameContentSequence",),
    "ConvolutionKernel": ("CTReconstructionSequence",),
    "EffectiveEchoTime": ("MREchoSequence",),
    "DiffusionBValue": ("MRDiffusionSequence",),
    "DiffusionGradientOrientation": ("MRDiffusionSequence", "DiffusionGradientDirectionSequence"),
    "NominalPercentageOfCardiacPhase": ("CardiacSynchronizationSequence",),
}
"""Element to the macros that hold it (PS3.3 C.7.6.16.2, C.8.13, C.8.15, C.8.22)."""


@dataclass(frozen=True, slots=True)
class Frame:
    """One picture of an Instance.

    Attributes
    ----------
    instance : Instance
    number : int
        From 1, as ReferencedFrameNumber counts.
    groups : tuple of Dataset
        Its functional groups, the frame's own first; empty for a single-frame Instance.
    """

    instance: Instance = field(repr=False)
    number: int = 1
    groups: tuple[Dataset, ...] = field(repr=False, default=())

    @property
    def index(self) -> int:
        """Its place in the pixel data, from 0."""
        return self.number - 1

    def values(self, keyword: str) -> tuple[str, ...]:
        """Return an element's values as :func:`pacs_ai.study.values` does, the nearest statement."""
        for group in self.groups:
            found = _in_macros(group, keyword)
            if found:
                return found
        return values(self.instance.header, keyword)

    def text(self, *keywords: str) -> str:
        r"""Return the values of the first of these elements that has any, joined by ``\``."""
        return next(("\\".join(found) for one in keywords if (found := self.values(one))), "")

    @property
    def named(self) -> str:
        """How messages name it: by UID and number, and nothing of the patient's."""
        name = f"Instance {self.instance.SOPInstanceUID}"
        return f"frame {self.number} of {name}" if self.groups else name


def _in_macros(group: Dataset, keyword: str) -> tuple[str, ...]:
    for name in _MACROS.get(keyword, ()):
        for item in group.get(name) or ():
            # One macro lies within another: the direction of a diffusion gradient.
            found = values(item, keyword) or _in_macros(item, keyword)
            if found:
                return found
    return ()


def frames_of(instance: Instance, wanted: Collection[int] = ()) -> tuple[Frame, ...]:
    """Return the frames of an Instance, in the order of their numbers.

    Parameters
    ----------
    instance : Instance
    wanted : collection of int
        Numbers of the frames to return, from 1; all when empty.

    Raises
    ------
    PixelError
        When its frames say nothing of their own, or other frames than it has.
    """
    header = instance.header
    own = header.get("PerFrameFunctionalGroupsSequence") or ()
    count = (*values(header, "NumberOfFrames"), "1")[0]
    if not own:
        if count not in ("0", "1"):
            raise PixelError(
                f"Instance {instance.SOPInstanceUID} has {count} frames and no "
                "PerFrameFunctionalGroupsSequence that says where each lies, and geometry is never "
                "guessed: send the enhanced or the single-frame Series"
            )
        return (Frame(instance),)
    if count != str(len(own)):
        raise PixelError(
            f"Instance {instance.SOPInstanceUID} has NumberOfFrames {count} and {len(own)} items "
            "of PerFrameFunctionalGroupsSequence: correct it at its source"
        )
    if wanted and not set(wanted) <= set(range(1, len(own) + 1)):
        raise PixelError(
            f"Instance {instance.SOPInstanceUID} has {count} frames (NumberOfFrames) and not all of "
            "those selected: name others in the rule"
        )
    shared = tuple(header.get("SharedFunctionalGroupsSequence") or ())[:1]
    return tuple(
        Frame(instance, number, (group, *shared))
        for number, group in enumerate(own, 1)
        if not wanted or number in wanted
    )
