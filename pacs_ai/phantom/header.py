"""What every Instance of the phantom says of patient, Study and equipment.

The patient is plainly a phantom; dates follow the acquisition time that the caller gives, and every
UID derives from what decides the bytes, so that the same call makes the same Instances.
"""

from __future__ import annotations

from datetime import datetime, timedelta

from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import UID, ExplicitVRLittleEndian

from pacs_ai.uids import (
    IMPLEMENTATION_CLASS_UID,
    IMPLEMENTATION_VERSION_NAME,
    Digestible,
    derived_uid,
    digest,
)

_AGE_YEARS = 61
_BEFORE_BIRTHDAY = timedelta(days=100)


def identity(kind: str, *, name: str, when: datetime, **decides: Digestible) -> str:
    """Digest everything that decides a phantom Study; UIDs and random numbers derive from it."""
    return digest(["phantom", kind, name, when.isoformat(), {**decides}])


def instance(
    sop_class_uid: UID, *, identity: str, number: int, series: int, when: datetime
) -> Dataset:
    """Start an Instance: SOP Common, Patient, General Study, Series and Equipment (PS3.3 C.7).

    Parameters
    ----------
    sop_class_uid : UID
    identity : str
        What :func:`identity` returned.
    number, series : int
        Instance Number and Series Number.
    when : datetime
        Acquisition time; with a time zone it is written to Timezone Offset From UTC.
    """
    made = Dataset()
    made.SpecificCharacterSet = "ISO_IR 100"
    made.SOPClassUID = sop_class_uid
    made.SOPInstanceUID = derived_uid("phantom instance", identity, series, number)
    made.StudyInstanceUID = derived_uid("phantom study", identity)
    made.SeriesInstanceUID = derived_uid("phantom series", identity, series)
    made.SeriesNumber = series
    made.InstanceNumber = number
    _patient(made, when)
    date, time = when.strftime("%Y%m%d"), when.strftime("%H%M%S")
    for level in ("Study", "Series", "Acquisition", "Content"):
        setattr(made, f"{level}Date", date)
        setattr(made, f"{level}Time", time)
    if when.tzinfo is not None:
        made.TimezoneOffsetFromUTC = when.strftime("%z")
    made.AccessionNumber = f"PH{identity[:10].upper()}"
    made.StudyID = identity[:8].upper()
    made.ReferringPhysicianName = ""
    made.Manufacturer = "PACS AI phantom"
    made.ManufacturerModelName = "Voxel phantom"
    made.DeviceSerialNumber = "1"
    made.SoftwareVersions = IMPLEMENTATION_VERSION_NAME
    made.BurnedInAnnotation = "NO"
    made.LossyImageCompression = "00"
    made.file_meta = _file_meta(made)
    return made


def _patient(made: Dataset, when: datetime) -> None:
    birthday = when.replace(year=when.year - _AGE_YEARS, day=min(when.day, 28)) - _BEFORE_BIRTHDAY
    made.PatientName = "Phantom^Chest"
    made.PatientID = "PHANTOM-1"
    made.PatientBirthDate = birthday.strftime("%Y%m%d")
    made.PatientAge = f"{_AGE_YEARS:03d}Y"
    made.PatientSex = "O"


def _file_meta(made: Dataset) -> FileMetaDataset:
    meta = FileMetaDataset()
    meta.FileMetaInformationVersion = b"\x00\x01"
    meta.MediaStorageSOPClassUID = made.SOPClassUID
    meta.MediaStorageSOPInstanceUID = made.SOPInstanceUID
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    meta.ImplementationClassUID = IMPLEMENTATION_CLASS_UID
    meta.ImplementationVersionName = IMPLEMENTATION_VERSION_NAME
    return meta


def code(value: str, scheme: str, meaning: str) -> Dataset:
    """Return a code sequence item (PS3.3 section 8)."""
    made = Dataset()
    made.CodeValue = value
    made.CodingSchemeDesignator = scheme
    made.CodeMeaning = meaning
    return made
