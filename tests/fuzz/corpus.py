"""What is damaged: data sets, files, requests and PDU streams that are right, all made here."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from struct import pack

from pydicom.dataset import Dataset
from pydicom.encaps import encapsulate

from tests.fuzz import mutation
from tests.integration import wire
from tests.integration.listening import CALLED, CALLING, CT, encoded, image
from tests.integration.test_stow import BOUNDARY, body_of, file_of

IMPLICIT, EXPLICIT = wire.IMPLICIT, wire.EXPLICIT
BIG_ENDIAN, DEFLATED = "1.2.840.10008.1.2.2", "1.2.840.10008.1.2.1.99"
JPEG = "1.2.840.10008.1.2.4.50"
CONTEXTS = {3: EXPLICIT, 5: IMPLICIT, 7: BIG_ENDIAN, 9: DEFLATED, 11: JPEG}
"""Presentation contexts of CT Image Storage; 1 is Verification."""
STUDY = "1.2.826.0.1.3680043.10.999.1000000"
"""Of every data set; its last seven digits can be put in place of others."""


@dataclass(frozen=True)
class Encoded:
    """A data set as its bytes, and how it would be announced.

    Attributes
    ----------
    data : bytes
    context : int
        Of :data:`CONTEXTS`.
    uid : str
        Its SOP Instance UID.
    """

    data: bytes
    context: int
    uid: str

    @property
    def layout(self) -> mutation.Read:
        """How its elements are found."""
        layouts = {IMPLICIT: mutation.implicit, BIG_ENDIAN: mutation.big_endian}
        layouts[DEFLATED] = mutation.opaque
        return layouts.get(CONTEXTS[self.context], mutation.explicit)


def of_study(one: Encoded, number: int) -> Encoded:
    """Return a data set as one of another Study; one that is deflated stays what it is."""
    data = one.data.replace(STUDY.encode(), f"{STUDY[:-7]}{1_000_000 + number}".encode())
    return replace(one, data=data)


def _made(number: int) -> Dataset:
    made = image(
        SpecificCharacterSet="ISO_IR 192",
        SOPInstanceUID=f"1.2.826.0.1.3680043.10.999.{number}",
        StudyInstanceUID=STUDY,
        SeriesInstanceUID="1.2.826.0.1.3680043.10.999.1.2",
        PatientName="Fuzz^Made",
        StudyDate="20260102",
        AccessionNumber="A1",
        SamplesPerPixel=1,
        PhotometricInterpretation="MONOCHROME2",
        BitsAllocated=16,
        BitsStored=12,
        HighBit=11,
        PixelRepresentation=0,
        PixelSpacing=["0.5", "0.5"],
        ImagePositionPatient=["0", "0", str(number)],
        ImageOrientationPatient=["1", "0", "0", "0", "1", "0"],
    )
    made.PixelData = bytes(range(32))
    made["PixelData"].VR = "OW"
    return made


def _with_sequences(number: int) -> Dataset:
    made = _made(number)
    code = Dataset()
    code.CodeValue, code.CodingSchemeDesignator, code.CodeMeaning = "T-1", "SRT", "Chest"
    step = Dataset()
    step.ScheduledProtocolCodeSequence = [code, code]
    made.RequestAttributesSequence = [step]
    made["RequestAttributesSequence"].is_undefined_length = True
    made.AnatomicRegionSequence = [code]
    block = made.private_block(0x0011, "PACS AI FUZZ", create=True)
    block.add_new(0x01, "LO", "private")
    block.add_new(0x02, "UN", b"\xfe\xff\x00\xe0\x00\x00\x00\x00")
    return made


def _encapsulated(number: int) -> Dataset:
    made = _made(number)
    made.BitsAllocated = made.BitsStored = 8
    made.HighBit = 7
    made.PixelData = encapsulate([b"\xff\xd8\xff\xe0" + bytes(60) + b"\xff\xd9"])
    made["PixelData"].VR = "OB"
    made["PixelData"].is_undefined_length = True
    return made


def _encoded(made: Dataset, context: int) -> Encoded:
    return Encoded(encoded(made, CONTEXTS[context]), context, str(made.SOPInstanceUID))


DATA_SETS = (
    *(_encoded(_made(number), number) for number in (3, 5, 7, 9)),
    *(_encoded(_with_sequences(10 + number), number) for number in (3, 5, 7, 9)),
    _encoded(_encapsulated(21), 11),
)

FILES = (file_of(_made(31)), file_of(_with_sequences(32)), file_of(_made(33)))

BODIES = (body_of(*FILES), body_of(FILES[1]), body_of(FILES[0], header="") + b"epilogue")


# ---------------------------------------------------------------------- PDU streams


def _item(kind: int, body: bytes) -> bytes:
    return pack(">BBH", kind, 0, len(body)) + body


def request(user_items: bytes = b"", *, extra: int = 0) -> bytes:
    """Return the A-ASSOCIATE-RQ of every stream, with more items or contexts where asked."""
    contexts = [(1, wire.VERIFICATION, wire.IMPLICIT)]
    contexts += [(number, CT, syntax) for number, syntax in CONTEXTS.items()]
    contexts += [(13 + 2 * number, CT, EXPLICIT) for number in range(extra)]
    plain = wire.associate(CALLING, CALLED, contexts)
    if not user_items:
        return plain
    # User Information is the last item: what is added belongs to it (PS3.8 section 9.3.2.3).
    body = plain[6:]
    place = body.rindex(b"\x50\x00\x00")
    user = _item(0x50, body[place + 4 :] + user_items)
    return wire.pdu(0x01, body[:place] + user)


_USER_ITEMS = b"".join(
    (
        _item(0x53, pack(">HH", 1, 1)),  # asynchronous operations window
        _item(0x54, pack(">H", len(CT)) + CT.encode() + b"\x01\x00"),  # role selection
        _item(0x55, b"FUZZ_1"),  # implementation version name
        _item(0x56, pack(">H", len(CT)) + CT.encode() + b"\x00\x01\x02"),  # extended negotiation
        _item(0x57, pack(">HH", len(CT), 17) + CT.encode() + b"1.2.840.10008.4.2" + pack(">H", 0)),
        _item(0x58, b"\x01\x00" + pack(">H", 4) + b"user" + pack(">H", 0)),  # user identity
    )
)

RELEASE, ABORT = wire.pdu(0x05, bytes(4)), wire.pdu(0x07, bytes(4))
ECHO = wire.values(
    1,
    wire.COMMAND | wire.LAST,
    wire.command(0x0030, data_set=False, sop_class=wire.VERIFICATION),
)


def store(data: bytes, context: int, uid: str, *, piece: int = 16_000) -> bytes:
    """Return the P-DATA-TF PDUs of a C-STORE."""
    start = wire.command(0x0001, data_set=True, sop_class=CT, sop_instance=uid)
    pieces = [data[place : place + piece] for place in range(0, len(data), piece)] or [b""]
    last = len(pieces) - 1
    return wire.values(context, wire.COMMAND | wire.LAST, start) + b"".join(
        wire.values(context, wire.LAST if number == last else 0, one)
        for number, one in enumerate(pieces)
    )


def _store(encoded: Encoded, piece: int = 16_000) -> bytes:
    return store(encoded.data, encoded.context, encoded.uid, piece=piece)


STREAMS: Sequence[bytes] = (
    request() + ECHO + RELEASE,
    request(_USER_ITEMS) + ECHO * 3 + RELEASE,
    request(extra=100) + ECHO + RELEASE,
    *(request() + _store(one) + RELEASE for one in DATA_SETS),
    request() + b"".join(_store(one, 100) for one in DATA_SETS[:3]) + ECHO + RELEASE,
    request() + _store(DATA_SETS[0], 50)[:400] + ABORT,
    request() + RELEASE + ECHO,
)


# ---------------------------------------------------------------------- bodies


def parts(data: bytes) -> mutation.Layout:
    """Find the parts of a multipart body."""
    found = mutation.Layout()
    places = [one.start() for one in re.finditer(rb"--" + BOUNDARY.encode(), data)]
    found.pieces = list(pairwise([*places, len(data)]))
    return found
