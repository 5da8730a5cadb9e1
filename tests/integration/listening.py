"""A listener inside the test's own process, and a Storage SCU that sends bytes as they are."""

from __future__ import annotations

import tempfile
import time
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any

import yaml
from pydicom.dataset import Dataset
from pydicom.filebase import DicomBytesIO
from pydicom.filewriter import write_dataset
from pydicom.uid import UID, ExplicitVRLittleEndian, generate_uid
from pynetdicom import AE, _config, build_context
from pynetdicom.association import Association
from pynetdicom.dimse_primitives import C_STORE
from pynetdicom.presentation import PresentationContext

from listener.ae import start
from pacs_ai.gateway import Gateway
from pacs_ai.ledger import deliveries
from pacs_ai.ledger.deliveries import ObjectRow
from pacs_ai.ledger.views import Views
from pacs_ai.settings import Settings, loads
from tests.peers import free_port
from tests.unfinished import unfinished

CT = "1.2.840.10008.5.1.4.1.1.2"
CALLING, CALLED = "MODALITY", "PACSAI"
_GLOBALS = (
    "STORE_RECV_CHUNKED_DATASET",
    "ENFORCE_UID_CONFORMANCE",
    "LOG_HANDLER_LEVEL",
    "LOG_REQUEST_IDENTIFIERS",
    "LOG_RESPONSE_IDENTIFIERS",
    "UNRESTRICTED_STORAGE_SERVICE",
)


@dataclass(frozen=True)
class Listening:
    """A gateway whose listener runs in this process."""

    gateway: Gateway

    @property
    def settings(self) -> Settings:
        return self.gateway.settings

    @property
    def port(self) -> int:
        return self.settings.listener.port

    def instances(self) -> list[dict[str, Any]]:
        """Return what the ledger holds."""
        return Views(self.gateway.ledger.database).instances(None)

    def files(self) -> list[Path]:
        """Return every file of received Instances in the spool."""
        return sorted((self.gateway.spool.path / "instances").rglob("*.dcm"))

    def temporary(self) -> list[Path]:
        """Return the files that are being written."""
        return unfinished(self.gateway.spool.temporary)

    def left(self) -> list[Path]:
        """Return temporary files that stay; one outlives its answer by a moment."""
        until = time.monotonic() + 5
        while (found := self.temporary()) and time.monotonic() < until:
            time.sleep(0.01)
        return found

    def work(self, study: str) -> list[dict[str, Any]]:
        """Return a Study's rows of work."""
        rows: list[dict[str, Any]] = Views(self.gateway.ledger.database).timeline(study)["work"]
        return rows

    def made(self, data_set: Dataset) -> None:
        """Let the ledger know a data set as a result of the gateway's own."""
        with self.gateway.ledger.database.write() as connection:
            row = ObjectRow(
                SOPInstanceUID=str(data_set.SOPInstanceUID),
                SOPClassUID=str(data_set.SOPClassUID),
                StudyInstanceUID=str(data_set.StudyInstanceUID),
                SeriesInstanceUID=str(data_set.SeriesInstanceUID),
                transfer_syntax_uid=str(ExplicitVRLittleEndian),
                kind="capture",
                volumetric=False,
                subject="page",
                digest="0" * 64,
                size=1,
            )
            deliveries.add_object(connection, row)


def write_settings(
    folder: Path, *, addresses: Sequence[str] = ("127.0.0.1",), **listener: Any
) -> str:
    """Return a settings file of a gateway that one modality on loopback may send to."""
    values = {
        "site": {"name": "test", "time_zone": "UTC", "use": "research", "responsible": "nobody"},
        "data": str(folder / "gateway"),
        "listener": {
            "ae_title": CALLED,
            "port": free_port(),
            "minimum_free": 1,
            "processes": 1,
            **listener,
        },
        "peers": {
            "modality": {"ae_titles": [CALLING], "addresses": [*addresses], "quiet": "1h"},
            "elsewhere": {"ae_titles": ["ELSEWHERE"], "addresses": ["192.0.2.7"]},
        },
    }
    return yaml.safe_dump(values)


def make_settings(folder: Path, **listener: Any) -> Settings:
    """Return settings of a gateway that one modality on loopback may send to."""
    return loads(write_settings(folder, **listener))


@contextmanager
def listening(settings: Settings) -> Iterator[Listening]:
    """Run a listener for the length of the block; the library's globals are put back after it."""
    former = {name: getattr(_config, name) for name in _GLOBALS}
    folder, template = tempfile.tempdir, tempfile.template
    gateway = Gateway(settings)
    server = start(gateway)
    try:
        yield Listening(gateway)
    finally:
        server.shutdown()
        gateway.close()
        for name, value in former.items():
            setattr(_config, name, value)
        tempfile.tempdir, tempfile.template = folder, template


@contextmanager
def association(
    port: int,
    contexts: Sequence[PresentationContext] = (),
    *,
    calling: str = CALLING,
    called: str = CALLED,
) -> Iterator[Association]:
    """Open an association for the length of the block, established or not."""
    entity = AE(calling)
    entity.acse_timeout = entity.dimse_timeout = entity.network_timeout = 20
    asked = [*contexts] or [build_context(CT, ExplicitVRLittleEndian)]
    opened = entity.associate("127.0.0.1", port, contexts=asked, ae_title=called)
    try:
        yield opened
    finally:
        if opened.is_established:
            opened.release()
        entity.shutdown()


def image(**elements: Any) -> Dataset:
    """Return the smallest data set that can be received as a CT Instance."""
    made = Dataset()
    made.SOPClassUID = CT
    made.SOPInstanceUID = generate_uid()
    made.Modality = "CT"
    made.PatientName = "Doe^Jane"
    made.PatientID = "4711"
    made.StudyInstanceUID = generate_uid()
    made.SeriesInstanceUID = generate_uid()
    made.Rows = made.Columns = 4
    for keyword, value in elements.items():
        setattr(made, keyword, value)
    return made


def encoded(data_set: Dataset, syntax: str = ExplicitVRLittleEndian) -> bytes:
    """Return a data set's bytes in a transfer syntax."""
    uid = UID(syntax)
    buffer = DicomBytesIO()
    buffer.is_little_endian, buffer.is_implicit_VR = uid.is_little_endian, uid.is_implicit_VR
    write_dataset(buffer, data_set)
    data = buffer.getvalue()
    if not uid.is_deflated:
        return data
    squeezer = zlib.compressobj(9, zlib.DEFLATED, -zlib.MAX_WBITS)
    return squeezer.compress(data) + squeezer.flush()


def send(
    opened: Association,
    data: bytes | None,
    *,
    sop_class: str = CT,
    sop_instance: str,
    syntax: str = ExplicitVRLittleEndian,
) -> Dataset:
    """C-STORE bytes as they are, or a command without a data set; returns the status data set."""
    (context,) = [
        one
        for one in opened.accepted_contexts
        if one.abstract_syntax == sop_class and one.transfer_syntax[0] == syntax
    ]
    request = C_STORE()
    request.MessageID = 1
    request.AffectedSOPClassUID = UID(sop_class)
    request.AffectedSOPInstanceUID = UID(sop_instance)
    request.Priority = 2
    request.DataSet = None if data is None else BytesIO(data)
    # As the library's own send_c_store() does: its reactor would take the answer off the queue.
    opened._reactor_checkpoint.clear()
    while not opened._is_paused:
        time.sleep(0.0001)
    try:
        opened.dimse.send_msg(request, int(context.context_id or 0))
        _, answer = opened.dimse.get_msg(block=True)
    finally:
        opened._reactor_checkpoint.set()
    assert answer is not None, "no answer to the C-STORE"
    status = Dataset()
    status.Status = answer.Status
    comment = getattr(answer, "ErrorComment", None)
    if comment is not None:
        status.ErrorComment = comment
    return status


def store(port: int, data_set: Dataset, **other: str) -> Dataset:
    """C-STORE one CT Instance over an association of its own; returns the status data set."""
    with association(port) as opened:
        assert opened.is_established
        return send(opened, encoded(data_set), sop_instance=str(data_set.SOPInstanceUID), **other)
