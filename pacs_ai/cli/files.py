"""DICOM files on disk as if a peer had sent them."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from struct import unpack

import pydicom
from pydicom.errors import InvalidDicomError

from pacs_ai.file_meta import ends_there
from pacs_ai.gateway import Gateway
from pacs_ai.intake import Context, Receipt
from pacs_ai.routing.kinds import fact_of
from pacs_ai.study import Instance, Study, rejected_by, role_of

PEER = "file"


def walk(paths: Iterable[Path]) -> Iterator[Path]:
    """Yield every file at or below the given paths, in order of name."""
    for path in paths:
        yield from (
            sorted(one for one in path.rglob("*") if one.is_file()) if path.is_dir() else [path]
        )


def take_in(gateway: Gateway, path: Path) -> Receipt | str:
    """Put one file through the receive path; a sentence when it is not a DICOM file (PS3.10)."""
    try:
        meta = pydicom.filereader.read_file_meta_info(path)
    except (InvalidDicomError, EOFError):
        return "not a DICOM file (PS3.10)"
    keywords = ("MediaStorageSOPClassUID", "MediaStorageSOPInstanceUID", "TransferSyntaxUID")
    absent = [keyword for keyword in keywords if not meta.get(keyword)]
    if absent or "FileMetaInformationGroupLength" not in meta:
        return f"File Meta Information without {(absent or ['group length'])[0]}"
    data = path.read_bytes()
    if not ends_there(data, len(data) - len(data_set_bytes(data))):
        return "File Meta Information of another length than it says"
    context = Context(
        SOPClassUID=str(meta.MediaStorageSOPClassUID),
        SOPInstanceUID=str(meta.MediaStorageSOPInstanceUID),
        transfer_syntax_uid=str(meta.TransferSyntaxUID),
    )
    incoming = gateway.incoming(PEER, context)
    try:
        incoming.write(data_set_bytes(data))
        return incoming.commit()
    finally:
        incoming.discard()


def data_set_bytes(data: bytes) -> bytes:
    """Return the data set of a DICOM file, without preamble and File Meta (PS3.10 section 7.1)."""
    (meta_length,) = unpack("<I", data[140:144])
    return data[144 + meta_length :]


def studies(paths: Sequence[Path]) -> tuple[list[Study], list[str]]:
    """Return the source Studies among files, and a sentence for each file that is no source."""
    grouped: dict[str, list[Instance]] = {}
    rejected: set[str] = set()
    refused = []
    for path in walk(paths):
        try:
            header = pydicom.dcmread(path, stop_before_pixels=True)
            digest = hashlib.sha256(data_set_bytes(path.read_bytes())).hexdigest()
            instance = Instance(header, path, digest, str(header.file_meta.TransferSyntaxUID))
            if role_of(header) != "source":
                rejected |= rejected_by(header)
                known = fact_of(header, ("presentation_state", "dose_report"))
                what = f"it is {known}, no source" if known else "made from images, no source"
                refused.append(f"{path.name}: {what}: no rule is asked")
                continue
            grouped.setdefault(str(header.StudyInstanceUID), []).append(instance)
        except (InvalidDicomError, EOFError, AttributeError):
            refused.append(f"{path.name}: not a DICOM file (PS3.10)")
    at = datetime.now(UTC)
    found = [
        Study(uid, tuple(members), at, PEER, frozenset(rejected))
        for uid, members in grouped.items()
    ]
    return found, refused
