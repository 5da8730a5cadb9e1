"""The head of a DICOM file that comes in pieces: what it is, before its data set begins (PS3.10 7.1)."""

from __future__ import annotations

from io import BytesIO
from struct import unpack

from pydicom.filereader import read_dataset
from pydicom.uid import UID

from pacs_ai.file_meta import GROUP_LENGTH_END, LOOKED_AT, ends_there
from pacs_ai.intake import UNREADABLE, Context

LIMIT = 64 * 1024
"""Most bytes that File Meta Information may have; a few hundred are usual."""

SYNTAX_UNSUPPORTED = 0xC122
CLASS_UNSUPPORTED = 0x0122

_PREFIX_END = 132
_GROUP_LENGTH = b"\x02\x00\x00\x00UL\x04\x00"
_PROGRAMS = (b"MZ", b"\x7fELF", b"\xfe\xed\xfa", b"\xce\xfa\xed\xfe", b"\xcf\xfa\xed\xfe")

_STORAGE = "1.2.840.10008.5.1.4.1.1."
_STORAGE_ELSEWHERE = frozenset({"1.2.840.10008.5.1.4.34.7", "1.2.840.10008.5.1.4.34.10"})


class FileMetaError(ValueError):
    """A part cannot be taken in; carries what to tell the sender.

    Parameters
    ----------
    message : str
        A fixed phrase.
    status : int
        Failure Reason (PS3.18 Table I.2-2).
    context : Context, optional
        What the part says it is, where that could be read.
    """

    def __init__(self, message: str, *, status: int, context: Context | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.context = context


class FileMeta:
    """Gathers the first bytes of a part until its File Meta Information is whole.

    Parameters
    ----------
    study : str or None
        The Study that the request is for, when it names one.
    """

    def __init__(self, study: str | None) -> None:
        self._study = study
        self._bytes = bytearray()

    def feed(self, piece: memoryview) -> tuple[Context, memoryview] | None:
        """Take a piece; return what the Instance is and the rest of the piece, or None for now.

        Raises
        ------
        FileMetaError
            When this is no DICOM file, or one whose class or encoding is not taken.
        """
        before = len(self._bytes)
        self._bytes += piece[: LIMIT + GROUP_LENGTH_END + LOOKED_AT - before]
        if len(self._bytes) < GROUP_LENGTH_END:
            return None
        if self._bytes[128:_PREFIX_END] != b"DICM":
            raise FileMetaError("not a DICOM file", status=UNREADABLE)
        if self._bytes.startswith(_PROGRAMS):
            raise FileMetaError("a file that is a program as well", status=UNREADABLE)
        if self._bytes[_PREFIX_END : GROUP_LENGTH_END - 4] != _GROUP_LENGTH:
            raise FileMetaError("File Meta Information without length", status=UNREADABLE)
        (length,) = unpack("<I", self._bytes[GROUP_LENGTH_END - 4 : GROUP_LENGTH_END])
        if length > LIMIT:
            raise FileMetaError("File Meta Information of more than 64 KiB", status=UNREADABLE)
        end = GROUP_LENGTH_END + length
        if len(self._bytes) < end + LOOKED_AT:
            return None
        if not ends_there(self._bytes, end):
            raise FileMetaError("File Meta Information of another length", status=UNREADABLE)
        context = self._read(end)
        return context, memoryview(self._bytes[end:] + bytes(piece[len(self._bytes) - before :]))

    def _read(self, end: int) -> Context:
        try:
            meta = read_dataset(
                BytesIO(self._bytes[GROUP_LENGTH_END:end]),
                is_implicit_VR=False,
                is_little_endian=True,
            )
            sop_class, instance, syntax = (
                UID(str(meta.get(keyword, "") or ""))
                for keyword in (
                    "MediaStorageSOPClassUID",
                    "MediaStorageSOPInstanceUID",
                    "TransferSyntaxUID",
                )
            )
        except Exception as error:  # pydicom raises many types on hostile bytes
            raise FileMetaError("unreadable File Meta Information", status=UNREADABLE) from error
        if not (sop_class.is_valid and instance.is_valid and syntax.is_valid):
            raise FileMetaError("File Meta Information without UIDs", status=UNREADABLE)
        context = Context(
            SOPClassUID=str(sop_class),
            SOPInstanceUID=str(instance),
            transfer_syntax_uid=str(syntax),
            StudyInstanceUID=self._study,
        )
        if not sop_class.startswith(_STORAGE) and sop_class not in _STORAGE_ELSEWHERE:
            raise FileMetaError("no Storage SOP Class", status=CLASS_UNSUPPORTED, context=context)
        if syntax.is_private or not syntax.is_transfer_syntax:
            raise FileMetaError(
                "no standard transfer syntax", status=SYNTAX_UNSUPPORTED, context=context
            )
        return context
